"""The page of one run: its figures are those of its summary and of scikit-learn, with data at hand or without."""

import csv
import json
import os
import shutil
import sys

import numpy as np
import pytest
import random_runs
import test_compare
from sklearn.metrics import accuracy_score, recall_score
from test_html import Page

from audiotag_jax import cli
from audiotag_jax.datasets.prepare import prepare, stored_datasets
from audiotag_jax.evaluation.intervals import score_table
from audiotag_jax.evaluation.predictions import VALIDATION, concatenate, load_predictions
from audiotag_jax.inference.calibrate import calibrate
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.settings.record import RunRecord, fold_dir, write_record
from audiotag_jax.settings.settings import parse_settings
from audiotag_jax.spectral.features import frequencies_hz
from audiotag_jax.study import run_report
from audiotag_jax.study.results import Clips
from audiotag_jax.study.shown import Shown, open_media
from configs import log_db


@pytest.fixture
def workdir(tmp_path):
    return test_compare.write_run(tmp_path / "run", log_db, 0)


def test_figures_curves_and_doubtful_labels(workdir, capsys):
    with (workdir / "metrics.jsonl").open("a") as file:
        for step, loss, accuracy in ((1, 0.5, 0.25), (2, 0.25, 0.75)):
            record = {"fold": 0, "step": step, "split": "validation", "loss": loss, "accuracy": accuracy}
            file.write(json.dumps(record) + "\n")
        file.write("not js")  # the last line of a killed run
    run_report.run(workdir)
    saved = concatenate([load_predictions(fold_dir(workdir, fold) / VALIDATION) for fold in (0, 1)])
    table, first = score_table(saved), saved["logits"].argmax(axis=1)
    assert table["accuracy"]["value"] == pytest.approx(accuracy_score(saved["labels"], first))
    page = Page((workdir / "report.html").read_text())
    accuracy = table["accuracy"]
    low, high = f"{accuracy['low']:.3f}", f"{accuracy['high']:.3f}"
    assert f"{accuracy['value']:.3f} [{low}, {high}]" in " ".join(page.text.split())
    for title in ("held out, all", "held out, verified", "fold 0", "fold 1", "test, mean of the folds"):
        assert title in page.text
    recall = recall_score(saved["labels"], first, average=None)
    assert all(f"{100 * each:.1f}".removesuffix(".0") + "\xa0% [" in page.text for each in recall)
    labels = [each.get("aria-label", "") for tag, each in page.elements if tag == "svg"]
    assert any("training 0.500, validation" in each or "validation 0.250, training 0.500" in each for each in labels)
    assert any(each.startswith("accuracy over steps. At the end: validation 0.750") for each in labels)
    assert any(each.startswith("Reliability") for each in labels) and "no images, no audio players" in page.text
    with (workdir / "suspects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["id"] for row in rows} == set(saved["ids"][first != saved["labels"]].tolist())
    doubts = [float(row["doubt"]) for row in rows]
    assert doubts == sorted(doubts, reverse=True) and min(doubts) >= 0
    of = dict(zip(saved["ids"], zip(saved["labels"], first, strict=True), strict=True))
    for row in rows:
        assert (row["label"], row["tag"]) == tuple(test_compare.CLASSES[k] for k in of[row["id"]])
        number = int(row["id"][:3])
        assert (row["recording"], row["verified"]) == (f"r{number // 3}", str(int(number % 4 > 0)))
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 3 and "guessing" not in said[0] and said[-1].endswith("report.html and suspects.csv")


def test_it_is_calibrated_on_the_clips_of_mode_predict(workdir, monkeypatch):
    """Verified clips alone, where they are enough; of one fold, of fifths of its recordings."""
    for folds, enough in (((0, 1), 50), ((0, 1), 10), ((0, 1), 11), ((0,), 10)):
        if enough == 11:  # the verified clips are all in one fold
            path = fold_dir(workdir, 1) / VALIDATION
            unverified = load_predictions(path)
            np.savez(path, **unverified | {"verified": np.zeros(len(unverified["ids"]), bool)})
        monkeypatch.setattr("audiotag_jax.evaluation.calibration.ENOUGH_CLIPS", enough)
        if folds == (0,):
            shutil.rmtree(fold_dir(workdir, 1))
        saved = concatenate([load_predictions(fold_dir(workdir, fold) / VALIDATION) for fold in folds])
        found = calibrate(workdir, folds)
        assert 0 < saved["verified"].sum() < len(saved["verified"])
        whole, verified = len(saved["verified"]), saved["verified"].sum()
        chosen = saved["labels"][saved["verified"]]
        are_enough = verified >= enough and len(np.unique(chosen)) == 5
        assert found.fitted_to == (f"{verified} verified held-out clips" if are_enough else f"{whole} held-out clips")
        run_report.run(workdir)
        text = " ".join(Page((workdir / "report.html").read_text()).text.split())
        assert f"On the {found.fitted_to}, on which mode predict is calibrated" in text
        before, after = found.errors
        assert f"error: {before:.3f} before, {after:.3f} calibrated." in text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "label for every clip: suspects.csv has no rows"), (1, "1 clip: suspects.csv lists it")]
)
def test_one_suspect_is_counted_in_the_singular(count, text):
    clips = Clips(np.array(["a", "b"]), np.zeros(2, int), np.ones(2, bool), np.zeros(2, int))
    assert text in run_report._about_suspects(np.arange(count), clips)


def test_a_run_that_learned_nothing_is_called_so(workdir, capsys):
    for fold in (0, 1):
        path = fold_dir(workdir, fold) / VALIDATION
        saved = load_predictions(path)
        np.savez(path, **saved | {"logits": np.zeros_like(saved["logits"])})
    run_report.run(workdir)
    share = np.bincount(test_compare.LABELS).max() / test_compare.NUM_CLIPS
    said = capsys.readouterr().out
    assert "No better than guessing: accuracy" in said and f"of which the most frequent class has {share:.3f}." in said
    assert "No better than guessing" in (workdir / "report.html").read_text()


def test_one_fold_alone_without_curves_and_with_test_clips_that_have_no_label(workdir):
    shutil.rmtree(fold_dir(workdir, 1))
    (workdir / "metrics.jsonl").unlink()
    path = fold_dir(workdir, 0) / "test_predictions.npz"
    saved = load_predictions(path)
    np.savez(path, **saved | {"labels": np.full_like(saved["labels"], -1)})
    run_report.run(workdir)
    page = Page((workdir / "report.html").read_text())
    assert "Calibrated: each fifth of the one fold's recordings under" in " ".join(page.text.split())
    assert "Learning curves" not in page.text and "fold 0" not in page.text and "test, mean" not in page.text


def test_errors_and_the_command_line(workdir, tmp_path, monkeypatch, capsys):
    with pytest.raises(UserError, match="contains no run"):
        run_report.run(tmp_path)
    monkeypatch.setattr(sys, "argv", ["main.py", "--mode=report", f"--workdir={workdir}"])
    monkeypatch.setattr(os, "_exit", sys.exit)
    cli.main(cli.parse_flags(sys.argv))
    assert "report.html and suspects.csv" in capsys.readouterr().out
    table = (workdir / "suspects.csv").read_bytes()
    run_report.run(workdir)
    assert len(list(workdir.glob("suspects*"))) == 1  # the same again
    (workdir / "suspects.csv").write_bytes(table + b"my notes\n")
    run_report.run(workdir)
    [kept] = set(workdir.glob("suspects*")) - {workdir / "suspects.csv"}
    assert (workdir / "suspects.csv").read_bytes() == table and kept.read_bytes() == table + b"my notes\n"
    assert f"the existing suspects.csv differed and was renamed to {kept.name}" in capsys.readouterr().out
    for fold in (0, 1):
        (fold_dir(workdir, fold) / VALIDATION).unlink()
    with pytest.raises(UserError, match="has no predictions yet: no fold of it is trained to its end"):
        run_report.run(workdir)


def test_sounds_and_images_are_shown_where_they_are_and_nothing_is_prepared(folder, tmp_path):
    """Computed from recordings, computed from prepared clips, and read from prepared images, they are the same."""
    config = random_runs.tiny_config(folder)
    config.dataset.prepared_dir = str(tmp_path / "prepared")
    settings = parse_settings(config)
    ids, prepared = ["03.wav", "10.wav"], tmp_path / "prepared"
    computed = open_media({"log_db": Shown(settings)})(ids)
    assert not prepared.exists() and set(computed.images["log_db"]) == set(computed.waveforms) == set(ids)
    images = prepare(settings)
    clips, found = stored_datasets(settings)
    assert found == images
    stored = open_media({"log_db": Shown(settings)})(ids)
    shutil.rmtree(images)
    half = open_media({"log_db": Shown(settings)})(ids)
    assert not images.exists() and stored_datasets(settings) == (clips, None)
    for clip in ids:
        np.testing.assert_array_equal(computed.waveforms[clip], stored.waveforms[clip])
        assert computed.waveforms[clip].shape == (random_runs.LENGTH,)
        for other in (computed, half):
            np.testing.assert_allclose(other.images["log_db"][clip], stored.images["log_db"][clip], atol=2e-3)
    shutil.rmtree(prepared)
    config.dataset.path = str(tmp_path / "absent")
    nothing = open_media({"log_db": Shown(parse_settings(config))})(ids)
    assert not nothing.waveforms and not nothing.images


def test_each_channel_of_an_image_has_its_own_frequencies(folder):
    names = ("linear_db", "mel_db", "log_db")
    config = random_runs.tiny_config(folder, names)
    config.dataset.prepared_dir = str(folder / "absent")
    settings = parse_settings(config)
    axes = open_media({"mix": Shown(settings)})(["03.wav"]).axes["mix"]
    np.testing.assert_array_equal(axes, [frequencies_hz(name, settings.spectral) for name in names])
    assert axes.shape == (3, 32) and not np.allclose(axes[0], axes[1]) and not np.allclose(axes[1], axes[2])


def test_pictures_and_players_of_mistakes(folder, tmp_path):
    """The page of a run whose recordings are there."""
    config = random_runs.tiny_config(folder)
    config.dataset.prepared_dir = str(tmp_path / "prepared")
    settings, rng = parse_settings(config), np.random.default_rng(0)
    write = tmp_path / "run"
    write.mkdir()
    write_record(write, RunRecord(settings, random_runs.CLASSES, "none"))
    ids = np.array([f"{n:02d}.wav" for n in range(random_runs.NUM_CLIPS)])
    for fold in (0, 1):
        chosen = np.arange(len(ids)) % 2 == fold
        fold_dir(write, fold).mkdir()
        labels, flags = np.arange(len(ids))[chosen] % 4, np.ones(chosen.sum(), bool)
        logits = rng.normal(size=(chosen.sum(), 4))
        np.savez(fold_dir(write, fold) / VALIDATION, ids=ids[chosen], labels=labels, verified=flags, logits=logits)
    run_report.run(write)
    text = (write / "report.html").read_text()
    assert text.count("data:audio/") == text.count("data:image/png") == text.count("<article") > 5
    assert "no pictures" not in text and not (tmp_path / "prepared").exists()
