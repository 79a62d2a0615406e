"""Which runs a study consists of: every variant under the same budget, differing in what its file says alone."""

import dataclasses
import json

import numpy as np
import pytest
from sklearn.metrics import log_loss

from audiotag_jax.evaluation.task import MULTI_LABEL
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.files import write_npz
from audiotag_jax.settings.settings import parse_settings, recorded_fields
from audiotag_jax.settings.variants import configs_dir
from audiotag_jax.study.plan import (
    check_study,
    choose_factor,
    final,
    finished_run,
    search,
    variant_names,
    variant_settings,
)
from configs import hires_q8, log_db, waveform


@pytest.fixture
def base():
    return log_db.get_config("demo")


def test_all_variants_are_compared_unless_some_are_named(base):
    names = variant_names(parse_settings(base).study)
    files = {path.stem for path in configs_dir().glob("*.py")} - {"__init__", "default", "yamnet"}
    assert names[0] == "log_db" and len(names) == len(set(names)) >= 14 and set(names) == files
    base.study.variants, base.study.baseline = ("hires_q8", "mel_db", "hires_q8"), "mel_db"
    assert variant_names(parse_settings(base).study) == ("mel_db", "hires_q8")
    base.study.variants = ("hires_q3",)
    with pytest.raises(UserError, match=r"unknown variant 'hires_q3'; choose from .*hires_q1, .*waveform"):
        variant_names(parse_settings(base).study)


@pytest.mark.parametrize("module", [hires_q8, waveform])
def test_a_variant_is_its_file_with_the_changes_of_the_command_line(base, module):
    base.train.num_epochs, base.dataset.path, base.seed = 3, "elsewhere", 5
    expected = module.get_config("demo")
    expected.train.num_epochs, expected.dataset.path, expected.seed = 3, "elsewhere", 5
    assert variant_settings(parse_settings(base), expected.name) == parse_settings(expected)


def test_what_a_variant_is_made_of_is_not_overridden(base):
    base.model.name = "resnet18"
    assert variant_settings(parse_settings(base), "waveform").model.name == "waveform"
    assert variant_settings(parse_settings(base), "mel_db").model.name == "resnet18"


def test_every_variant_has_the_same_budget(base):
    def budget(config):
        return {name: recorded_fields(config)[name] for name in ("dataset", "train", "optimizer", "augment", "seed")}

    configs = [variant_settings(parse_settings(base), name) for name in variant_names(parse_settings(base).study)]
    assert all(budget(config) == budget(configs[0]) for config in configs)


def test_a_search_is_short_and_scored_on_inner_splits(base, tmp_path):
    base.study.seeds, base.study.rate_factors = (4, 5), (0.5, 1.0, 2.0)
    trials = search(parse_settings(base), tmp_path, "mel_db", (0, 1, 2))
    assert list(trials) == [0.5, 1.0, 2.0]
    assert len({trial.workdir for trial in trials.values()}) == 3
    trial = trials[2.0].settings
    assert (trial.training.inner_split, trial.training.num_epochs, trial.seed) == (True, base.study.search_epochs, 4)
    assert trial.optimizer.learning_rate_high == 2 * base.optimizer.learning_rate_high
    assert trial.optimizer.learning_rate_low == 2 * base.optimizer.learning_rate_low


def test_a_search_gives_every_variant_as_many_epochs(tmp_path):
    """Also where an early part of them is of a frozen body, which waveform does not have."""
    base = parse_settings(log_db.get_config("esc50_finetune"))
    trials = (search(base, tmp_path, name, (0, 1, 2))[1.0].settings.training for name in ("log_db", "waveform"))
    total, own = ({each.frozen_epochs: each.num_epochs + each.frozen_epochs} for each in trials)
    expected = base.comparison.search_epochs + base.training.frozen_epochs
    assert total == {base.training.frozen_epochs: expected} and own == {0: expected} and expected == 15
    for changes in ({"num_epochs": 20}, {"frozen_epochs": 0}):  # as given on the command line
        given = dataclasses.replace(base, training=dataclasses.replace(base.training, **changes))
        own = [variant_settings(given, name).training for name in ("log_db", "waveform")]
        assert len({each.frozen_epochs + each.num_epochs for each in own}) == 1


def test_folds_with_the_same_rate_share_a_run(base, tmp_path):
    one, two = final(parse_settings(base), tmp_path, "mel_db", 7, {0: 1.0, 1: 2.0, 2: 1.0})
    assert (one.folds, two.folds) == ((0, 2), (1,))
    assert one.workdir != two.workdir and one.settings.seed == two.settings.seed == 7
    assert two.settings.optimizer.learning_rate_high == 2 * one.settings.optimizer.learning_rate_high
    assert not one.settings.training.inner_split
    assert finished_run([one, two], 7, has_test=False) is None
    for training, folds in ((one, (0, 2)), (two, (1,))):
        for fold in folds:
            (training.workdir / f"fold_{fold}").mkdir(parents=True)
            write_npz(training.workdir / f"fold_{fold}" / "predictions.npz", ids=[])
    run = finished_run([one, two], 7, has_test=False)
    assert run.workdirs == {0: one.workdir, 2: one.workdir, 1: two.workdir}
    assert finished_run([one, two], 7, has_test=True) is None


def test_bad_values_are_named(base):
    base.study.rate_factors = (0.5, 1.0)
    for field, value in (
        ("seeds", ()),
        ("seeds", (0.5,)),
        ("rate_factors", ()),
        ("rate_factors", (1.0, 1.0)),
        ("rate_factors", (0.0, 1.0)),
        ("search_epochs", 0),
    ):
        config = base.copy_and_resolve_references()
        config.study[field] = value
        with pytest.raises(UserError, match=f"config.study.{field} is"):
            parse_settings(config)
    base.train.folds = (0,)
    with pytest.raises(UserError, match=r"set --config\.train\.folds"):
        check_study(parse_settings(base))


def test_variants_lie_in_the_folder_of_configurations():
    assert (configs_dir() / "default.py").is_file()
    assert "study" not in recorded_fields(parse_settings(log_db.get_config("demo")))
    assert json.loads(log_db.get_config("demo").to_json())["study"]["baseline"] == "log_db"


def test_the_rate_of_the_least_loss_where_clips_have_several_labels(base, tmp_path):
    base.study.rate_factors = (0.5, 1.0)
    trials = search(parse_settings(base), tmp_path, "mel_db", (0,))
    labels = np.array([[1, 0], [1, 1], [0, 0]], np.int8)
    for factor, sure in ((0.5, 2.0), (1.0, 1.0)):
        logits = sure * np.where(labels == 1, 1.0, -1.0)
        logits[0, 0] *= -3  # the surer one is punished
        ids = np.array(["a", "b", "c"])
        fields = {"ids": ids, "labels": labels, "verified": np.ones(3, bool), "recordings": np.full(3, "")}
        folder = trials[factor].workdir / "fold_0"
        folder.mkdir(parents=True)
        write_npz(folder / "predictions.npz", logits=logits, **fields)
        expected = log_loss(labels.ravel(), 1 / (1 + np.exp(-logits.ravel())))
        assert MULTI_LABEL.losses(logits, labels).mean() == pytest.approx(expected)
    assert choose_factor(trials, 0) == 1.0
