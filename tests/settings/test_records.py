"""Runs of earlier releases, libraries and devices are resumed, evaluated, inspected, used for tagging and exported."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import random_runs

from audiotag_jax.audio import decode
from audiotag_jax.datasets.prepare import dataset_name, prepare
from audiotag_jax.inference import export
from audiotag_jax.inference.tagger import load_tagger
from audiotag_jax.runtime import environment
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.settings.record import RunRecord, read_record, settings_of_trained_folds, write_record
from audiotag_jax.settings.settings import Settings, parse_settings
from audiotag_jax.spectral.features import CHANNELS
from audiotag_jax.training import evaluate, inspect_checkpoint, train
from configs import log_db

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
    for part in ("name", "preset", "seed", "spectral", "model", "optimizer", "augmentation"):
        assert getattr(first.settings, part) == getattr(now.settings, part)
    # Only when validation scores are written has changed in the preset since.
    assert first.settings.training == dataclasses.replace(now.settings.training, evaluate_every_epochs=0)


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


@pytest.fixture
def elsewhere(folder, finished, tmp_path) -> tuple[Settings, Path]:
    """Settings of a copy of sounds, datasets and run, and its work directory."""
    for name in ("sounds", "prepared"):
        shutil.copytree(folder.with_name(name), tmp_path / name)
    settings = parse_settings(random_runs.tiny_config(tmp_path / "sounds"))
    return settings, Path(shutil.copytree(finished, tmp_path / "run"))


def logits(workdir: Path) -> np.ndarray:
    with np.load(workdir / "fold_1/predictions.npz") as saved:
        return saved["logits"]


def upgrade(monkeypatch) -> None:
    monkeypatch.setattr(environment, "_version", lambda name: "99.0")
    monkeypatch.setattr(environment, "_device", lambda: "gpu NVIDIA H100")


def test_a_run_is_evaluated_after_an_upgrade_and_on_another_device(elsewhere, monkeypatch, capsys):
    settings, workdir = elsewhere
    (workdir / "fold_1/predictions.npz").unlink()
    train.run(settings, workdir)  # it records where
    evaluate.run(settings, workdir)
    expected, record = logits(workdir), read_record(workdir)
    assert "note: the run was trained" not in capsys.readouterr().out
    assert [each["device"] for each in record.provenance["trained"]] == ["cpu"]
    upgrade(monkeypatch)
    evaluate.run(settings, workdir)
    printed = capsys.readouterr().out
    assert "preparing" not in printed and "computed again" not in printed
    [note] = [line for line in printed.splitlines() if line.startswith("note: the run was trained with")]
    jax_version = record.provenance["trained"][0]["jax"]
    assert f"jax {jax_version}, here 99.0" in note and "device cpu, here gpu NVIDIA H100; scores may differ" in note
    np.testing.assert_array_equal(logits(workdir), expected)
    assert read_record(workdir) == record
    for path in settings_datasets(settings):
        shutil.rmtree(path)
    evaluate.run(settings, workdir)
    assert "note: the images that the run was trained on were computed with jax" in capsys.readouterr().out
    train.run(settings, workdir)  # all folds are finished
    assert read_record(workdir) == record
    (workdir / "fold_1/predictions.npz").unlink()
    train.run(settings, workdir)
    assert [each["device"] for each in read_record(workdir).provenance["trained"]] == ["cpu", "gpu NVIDIA H100"]


def settings_datasets(settings: Settings) -> list[Path]:
    return list((Path(settings.dataset.prepared_dir) / "audiotag_spectrograms").iterdir())


def test_a_run_is_resumed_and_evaluated_without_its_recordings(elsewhere, capsys):
    settings, workdir = elsewhere
    shutil.rmtree(settings.dataset.path)
    expected = logits(workdir)
    (workdir / "fold_1/predictions.npz").unlink()
    train.run(settings, workdir)
    evaluate.run(settings, workdir)
    np.testing.assert_array_equal(logits(workdir), expected)
    assert "note: there are no recordings in" in capsys.readouterr().out


def test_a_run_is_evaluated_on_its_own_images_after_a_new_version_of_the_algorithm(elsewhere, monkeypatch, capsys):
    settings, workdir = elsewhere
    expected = logits(workdir)
    monkeypatch.setitem(CHANNELS, "log_db", CHANNELS["log_db"]._replace(version=7))
    evaluate.run(settings, workdir)
    assert "versions of the algorithms: log_db 1 (now 7)" in capsys.readouterr().out
    np.testing.assert_array_equal(logits(workdir), expected)
    for path in settings_datasets(settings):
        shutil.rmtree(path)
    with pytest.raises(UserError, match="contains a run on other data"):  # whose images nothing can make any more
        evaluate.run(settings, workdir)


@pytest.mark.parametrize("gone", ["nothing", "recordings", "folder"])
def test_a_run_is_evaluated_after_a_new_version_of_the_decoder(elsewhere, monkeypatch, capsys, gone):
    """Also on a machine that has its dataset alone."""
    settings, workdir = elsewhere
    expected = logits(workdir)
    monkeypatch.setattr(decode, "VERSION", decode.VERSION + 1)
    if gone == "folder":
        shutil.rmtree(settings.dataset.path)
    elif gone == "recordings":
        for path in Path(settings.dataset.path).glob("*.wav"):
            path.unlink()
    evaluate.run(settings, workdir)
    printed = capsys.readouterr().out
    assert f"versions of the algorithms: decoder {decode.VERSION - 1} (now {decode.VERSION})" in printed
    assert "preparing" not in printed
    np.testing.assert_array_equal(logits(workdir), expected)
    if gone == "recordings":
        table = Path(settings.dataset.path) / "clips.csv"
        table.write_text(table.read_text().replace("rain", "bird", 1))
        with pytest.raises(UserError, match="None of the 14 training recordings could be read"):
            evaluate.run(settings, workdir)


def test_images_computed_in_the_steps_keep_clips_of_an_earlier_decoder(elsewhere, monkeypatch, capsys):
    settings, _ = elsewhere
    settings = dataclasses.replace(settings, dataset=dataclasses.replace(settings.dataset, on_the_fly=True))
    recorded, clips_dir = dataset_name(settings), prepare(settings)
    monkeypatch.setattr(decode, "VERSION", decode.VERSION + 1)
    assert prepare(settings, recorded) == clips_dir
    assert "versions of the algorithms: decoder" in capsys.readouterr().out
    assert prepare(settings) != clips_dir


def test_a_changed_label_is_other_data(elsewhere):
    settings, workdir = elsewhere
    table = Path(settings.dataset.path) / "clips.csv"
    table.write_text(table.read_text().replace("rain", "bird", 1))
    with pytest.raises(UserError, match="contains a run on other data"):
        evaluate.run(settings, workdir)


def test_all_trained_folds_of_a_run_that_was_trained_in_parts(tmp_path):
    config = log_db.get_config("folder")
    config.train.folds = (1,)  # of the last part
    settings = parse_settings(config.to_dict())
    write_record(tmp_path, RunRecord(settings, ("a", "b"), None))
    for fold in (10, 0, 1):
        (tmp_path / f"fold_{fold}" / "checkpoints").mkdir(parents=True)
    (tmp_path / "fold_2").mkdir()
    found = settings_of_trained_folds(tmp_path)
    assert found.training.folds == (0, 1, 10)
    assert dataclasses.replace(found, training=settings.training) == read_record(tmp_path).settings
