"""Which clips a fold trains on and is scored on; what runs of one process share."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from audiotag_jax.runtime.errors import UserError
from audiotag_jax.settings.settings import parse_settings
from audiotag_jax.training import experiment as experiment_module
from audiotag_jax.training.experiment import Experiment, check_devices, count_steps_per_epoch, open_experiment
from configs import log_db, mel_db


class Clips:
    folds = np.array([0, 1, 2, 0, 1, 2, 2])


def experiment(*, inner_split: bool) -> Experiment:
    config = log_db.get_config("demo")
    config.train.inner_split = inner_split
    parts = dict.fromkeys(("dataset_dir", "metadata", "resident", "folds", "steps_per_epoch", "programs"))
    return Experiment(settings=parse_settings(config), examples=Clips(), all_folds=(0, 1, 2), **parts)


def test_a_fold_is_scored_on_what_it_does_not_train_on():
    opened = experiment(inner_split=False)
    assert opened.training_clips(1).tolist() == [0, 2, 3, 5, 6]
    assert opened.validation_clips(1).tolist() == [1, 4]


def test_an_inner_split_never_touches_its_fold():
    opened = experiment(inner_split=True)
    assert opened.training_clips(1).tolist() == [0, 3]
    assert opened.validation_clips(1).tolist() == [2, 5, 6]
    assert opened.training_clips(2).tolist() == [1, 4]
    assert opened.validation_clips(2).tolist() == [0, 3]
    assert opened.test_examples is None


def test_steps_are_as_many_as_the_largest_training_set_fills():
    assert count_steps_per_epoch([30, 33], [30, 33], 16) == 3
    with pytest.raises(UserError, match="5 to 33 clips remain: too uneven"):
        count_steps_per_epoch([5, 33], [33, 5], 8)
    assert count_steps_per_epoch([5, 33], [33], 8) == 5  # the small set is of a fold that this run does not train


def test_variants_share_what_is_compiled(tmp_path):
    def tiny(config):
        config.dataset.path, config.dataset.prepared_dir = str(tmp_path / "data"), str(tmp_path / "prepared")
        config.dataset.duration_s, config.model.width = 0.1, 4
        config.spectral.num_frames = config.spectral.num_bins = 32
        return config

    one, other = (open_experiment(parse_settings(tiny(each.get_config("demo")))) for each in (log_db, mel_db))
    assert other.programs.train_step is one.programs.train_step
    faster = tiny(log_db.get_config("demo"))
    faster.optimizer.learning_rate_high *= 2
    assert open_experiment(parse_settings(faster)).programs.tx is not one.programs.tx


@pytest.mark.parametrize(("devices", "batch_size", "rows"), [(1, 3, 3), (8, 24, 3), (8, 20, 3), (2, 1, 1)])
def test_mixup_needs_an_even_number_of_clips_a_device(monkeypatch, devices, batch_size, rows):
    monkeypatch.setattr(jax, "device_count", lambda: devices)

    def settings(mixup_alpha, size):
        config = log_db.get_config("demo")
        config.augment.mixup_alpha, config.train.batch_size = mixup_alpha, size
        return parse_settings(config)

    with pytest.raises(UserError, match=rf"batch_size {batch_size} gives a device {rows} clips, an odd number"):
        check_devices(settings(0.3, batch_size))
    check_devices(settings(0.3, batch_size), trains=False)  # evaluation mixes nothing
    check_devices(settings(0.0, batch_size))
    check_devices(settings(0.3, devices * (rows + 1)))


@pytest.mark.parametrize(("pretrained", "init_from", "made"), [("yamnet", "", 1), ("", "runs/probe", 1), ("", "", 0)])
def test_folded_weights_get_statistics_wherever_they_come_from(monkeypatch, pretrained, init_from, made):
    calls = []

    def counted(body, variables, images):
        calls.append(images.shape)
        return {"params": 1, "batch_stats": 1}

    for name, value in {"with_statistics": counted, "is_folded": lambda _: True}.items():
        monkeypatch.setattr(experiment_module, name, value)
    for name in ("to_images", "normalize"):
        monkeypatch.setattr(experiment_module, name, lambda x, _: x)
    network = SimpleNamespace(body=None)
    model = SimpleNamespace(name="yamnet", pretrained=pretrained, init_from=init_from, network=lambda _: network)
    opened = SimpleNamespace(
        settings=SimpleNamespace(model=model, front_end=None),
        classes=("a", "b"),
        training_clips=lambda fold: np.arange(3),
        examples=SimpleNamespace(inputs=np.zeros((5, 7), np.float32)),
    )
    state = SimpleNamespace(params={"body": 0}, batch_stats={"body": 0}, replace=lambda **changes: changes)
    Experiment._with_statistics(opened, state, 0)
    assert calls == [(3, 7)] * made
