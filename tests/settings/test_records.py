"""Runs of the first release can be resumed, evaluated, inspected, used for tagging and exported."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import random_runs

from audiotag_jax.inference import export
from audiotag_jax.inference.tagger import load_tagger
from audiotag_jax.settings.record import read_record
from audiotag_jax.settings.settings import parse_settings
from audiotag_jax.training import evaluate, inspect_checkpoint, train

FIRST_FORMAT = Path(__file__).with_name("first_format.json")  # written by the release before records had a format


@pytest.fixture(scope="module")
def settings(folder):
    return parse_settings(random_runs.tiny_config(folder))


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory) -> Path:
    return random_runs.make_run(random_runs.tiny_config(folder), tmp_path_factory.mktemp("runs") / "finished")


@pytest.fixture
def old(finished, tmp_path) -> Path:
    workdir = Path(shutil.copytree(finished, tmp_path / "run"))
    shutil.copy(FIRST_FORMAT, workdir / "config.json")
    return workdir


def test_the_old_record_equals_the_current_one(finished, old):
    first, now = read_record(old), read_record(finished)
    assert first.dataset is None and "format" not in json.loads(FIRST_FORMAT.read_text())
    assert first.classes == now.classes
    where = {"path", "prepared_dir"}
    one, two = (vars(record.settings.dataset) for record in (first, now))
    assert {name: one[name] for name in one if name not in where} == {n: two[n] for n in two if n not in where}
    for part in ("name", "preset", "seed", "spectral", "model", "training", "optimizer", "augmentation"):
        assert getattr(first.settings, part) == getattr(now.settings, part)


def test_an_old_run_is_resumed_and_evaluated(settings, finished, old, capsys):
    with np.load(old / "fold_1/predictions.npz") as saved:
        logits = saved["logits"]
    (old / "fold_1/predictions.npz").unlink()
    train.run(settings, old)
    printed = capsys.readouterr().out
    assert "fold 0: finished before" in printed and "fold 1: continuing at step 1 of 1" in printed
    evaluate.run(settings, old)
    with np.load(old / "fold_1/predictions.npz") as saved:
        np.testing.assert_array_equal(saved["logits"], logits)
    assert read_record(old).dataset == read_record(finished).dataset is not None


def test_an_old_run_is_inspected_used_for_tagging_and_exported(settings, finished, old, capsys):
    text = "\n".join(line for lines in inspect_checkpoint.report(settings, old) for line in lines)
    assert "log_db:folder, 4 classes, dataset 0123456789abcdef" in text
    waveforms = np.random.default_rng(0).standard_normal((2, random_runs.LENGTH)).astype(np.float32)
    expected = load_tagger(finished).probabilities(waveforms)
    np.testing.assert_array_equal(load_tagger(old).probabilities(waveforms), expected)
    export.run(old)
    assert (old / "exported/tagger.stablehlo").stat().st_size > 0
