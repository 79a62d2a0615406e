"""A run on clips with any number of labels, from the table to the exported file, and a study of such runs."""

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from ml_collections import ConfigDict
from sklearn.metrics import average_precision_score, f1_score

from audiotag_jax.doctor import examine
from audiotag_jax.doctor.report import format_report
from audiotag_jax.evaluation.calibration import fit_temperature
from audiotag_jax.evaluation.decision import cross_fit, fit_decision
from audiotag_jax.inference import export, predict
from audiotag_jax.inference.tagger import load_tagger
from audiotag_jax.settings.settings import parse_settings
from audiotag_jax.study import datasets, run_report
from audiotag_jax.training import embed_dataset, evaluate, train
from configs import log_db

RATE_HZ = 4000
CLASSES = ("bird", "dog", "rain")
NUM_TRAIN, NUM_TEST = 44, 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Every set of three tones, none to all, of which each is a class; the last test clip is not scored."""
    folder = tmp_path_factory.mktemp("data") / "sounds"
    folder.mkdir()
    rng, seconds = np.random.default_rng(0), np.arange(1600) / RATE_HZ
    rows = [("path", "label", "split", "verified", "recording")]
    for n in range(NUM_TRAIN + NUM_TEST):
        own = [k for k in range(3) if n >> k & 1]
        sound = sum((0.2 * np.sin(2 * np.pi * 200 * 3**k * seconds) for k in own), 0.01 * rng.standard_normal(1600))
        soundfile.write(folder / f"{n:02d}.wav", sound, RATE_HZ)
        label = "" if n == NUM_TRAIN + NUM_TEST - 1 else "|".join(CLASSES[k] for k in own)
        rows.append((f"{n:02d}.wav", label, "train" if n < NUM_TRAIN else "test", int(n % 3 > 0), f"r{n // 2}"))
    with (folder / "clips.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


@pytest.fixture(scope="module")
def config(folder) -> ConfigDict:
    config = log_db.get_config("folder")
    config.dataset.path, config.dataset.table, config.dataset.label_separator = str(folder), "clips.csv", "|"
    config.dataset.prepared_dir = str(folder.with_name("prepared"))
    config.dataset.sample_rate_hz, config.dataset.duration_s, config.dataset.num_folds = RATE_HZ, 0.3, 2
    config.spectral.num_frames = config.spectral.num_bins = 32
    config.spectral.window_samples = config.spectral.fft_samples = 256
    config.model.width, config.train.batch_size, config.train.num_epochs = 4, 16, 25
    config.train.evaluate_every_epochs = 5
    config.augment = log_db.get_config("esc50_probe").augment  # none: here the frequency is the class
    config.augment.mixup_alpha = 0.1
    config.train.unverified_weight = 0.5
    config.train.class_weights = config.train.sampling = "balanced"
    config.train.verified_epochs = 2
    config.optimizer.label_smoothing = 0.05
    return config


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("runs") / "run"
    train.run(parse_settings(config), workdir)
    return workdir


def held_out(workdir: Path) -> dict[str, np.ndarray]:
    parts = [np.load(workdir / f"fold_{fold}" / "predictions.npz") for fold in (0, 1)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0].files}


def test_predictions_and_summary(finished, folder):
    saved = held_out(finished)
    numbers = np.array([int(clip[:2]) for clip in saved["ids"]])
    assert sorted(numbers) == list(range(NUM_TRAIN)) and saved["labels"].dtype == np.int8
    np.testing.assert_array_equal(saved["labels"], numbers[:, None] >> np.arange(3) & 1)
    summary = json.loads((finished / "summary.json").read_text(), parse_constant=pytest.fail)
    table = summary["validation"]["all"]
    assert summary["task"] == "multi_label" and table["num_clips"] == NUM_TRAIN
    precisions = average_precision_score(saved["labels"], saved["logits"], average=None)
    assert table["map"]["value"] == pytest.approx(precisions.mean())
    found = {name: entry["average_precision"]["value"] for name, entry in summary["classes"].items()}
    assert found == pytest.approx(dict(zip(CLASSES, precisions, strict=True)))
    assert table["map"]["value"] > 0.9 and table["num_recordings"] == NUM_TRAIN / 2  # tones are easily told apart
    assert summary["test"]["all"]["num_clips"] == NUM_TEST - 1
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    validation = [line for line in lines if line["split"] == "validation"]
    assert validation[-1]["lwlrap"] > 0.9 and validation[-1]["loss"] < validation[0]["loss"]


def test_the_submission_has_a_column_for_each_class(finished):
    with (finished / "submission.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["fname", *CLASSES] and len(rows) == NUM_TEST
    assert all(0 <= float(cell) <= 1 for row in rows for cell in row[1:])


def test_evaluated_again_it_is_the_same(config, finished, tmp_path, capsys):
    before = held_out(finished), (finished / "summary.json").read_text()
    evaluate.run(parse_settings(config), finished)
    assert (finished / "summary.json").read_text() == before[1]
    np.testing.assert_array_equal(held_out(finished)["logits"], before[0]["logits"])
    assert "lwlrap (95 % interval)" in capsys.readouterr().out


def test_predict_lists_every_tag_that_reaches_the_threshold(finished, folder, tmp_path):
    tagger = load_tagger(finished)
    saved = held_out(finished)
    assert tagger.activation == "sigmoid"
    assert tagger.temperature == pytest.approx(fit_temperature(saved["logits"], saved["labels"]))
    files = [str(folder / f"{n:02d}.wav") for n in range(8, 16)]
    predict.run(finished, files, out=tmp_path)
    whole = json.loads((tmp_path / "predictions.json").read_text())
    assert whole["thresholds"] == pytest.approx(tagger.thresholds, abs=1e-6) and whole["task"] == "multi_label"
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    right = 0
    for n, (row, entry) in enumerate(zip(rows, whole["recordings"], strict=True)):
        given = zip(CLASSES, entry["probabilities"], tagger.thresholds, strict=True)
        reached = {name for name, p, threshold in given if p >= threshold}
        assert set(entry["tags"]) == reached and row["tag"] == ("; ".join(entry["tags"]) or "none of these")
        right += reached == {CLASSES[k] for k in range(3) if n >> k & 1}
    assert right >= 5
    predict.run(finished, files, out=tmp_path, threshold=1.0, overwrite=True)
    assert json.loads((tmp_path / "predictions.json").read_text())["recordings"][3]["tags"] == []


def test_the_exported_file_gives_the_probability_of_each_class(finished):
    tagger = load_tagger(finished)
    described = export.describe(tagger)
    assert described["task"] == "multi_label" and "by itself" in described["output"]
    assert described["thresholds"] == pytest.approx(tagger.thresholds, abs=1e-6)
    assert described["offsets"] == pytest.approx(tagger.decision.offsets, abs=1e-6)
    assert export.compare(export.serialize(tagger), tagger) <= export.TOLERANCE
    assert np.asarray(tagger.probabilities(export.probe_waveforms(tagger))).sum(1).max() != pytest.approx(1)


def test_a_probe_of_its_body(config, finished, tmp_path):
    probe = config.copy_and_resolve_references()
    probe.model.init_from = str(finished / "fold_{fold}")
    probe.train.sampling, probe.train.verified_epochs = "uniform", 0
    probe.train.probe, probe.optimizer.probe_penalty = True, 1.0
    probe.augment = log_db.get_config("esc50_probe").augment
    train.run(parse_settings(probe), tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["probe"] and summary["validation"]["all"]["map"]["value"] > 0.9
    columns, _ = embed_dataset.embed_dataset(parse_settings(probe))
    assert dict(zip(columns["ids"], columns["labels"], strict=True))["07.wav"] == "bird|dog|rain"


def test_doctor_counts_pairs_and_clips_without_a_label(config):
    report = examine.examine(parse_settings(config).dataset)
    assert report["labels_a_clip"] == [6, 17, 16, 5] and report["fold_sizes"] == [22, 22]
    assert [pair["labels"] for pair in report["pairs"]] == [["bird", "dog"], ["bird", "rain"], ["dog", "rain"]]
    assert sum(report["labels"]["bird"]["folds"]) == 22 and report["num_unlabelled_test"] == 1
    assert any("6 training clips have no label" in line for line in report["verdict"])
    assert report["unlabelled"][0] == "00.wav" and len(report["unlabelled"]) == 6
    assert (report["inseparable"], report["implied"], report["rare"]) == ([], [], [])
    assert "Labels a training clip: 6 with 0, 17 with 1, 16 with 2, 5 with 3." in format_report(report)


def test_probabilities_are_calibrated_class_by_class_and_tags_chosen_on_other_folds(finished, folder):
    tagger, saved = load_tagger(finished), held_out(finished)
    decision = fit_decision(saved["logits"], saved["labels"])
    np.testing.assert_allclose(tagger.thresholds, decision.thresholds)
    assert decision.is_own.all()  # 20 clips with and without each class
    waveforms = np.stack([soundfile.read(folder / f"{n:02d}.wav", frames=1200, dtype="float32")[0] for n in range(6)])
    expected = []
    for fold in (0, 1):
        plain = dataclasses.replace(load_tagger(finished, [fold]), decision=None, temperature=1.0)
        p = np.asarray(plain.probabilities(waveforms), np.float64)
        expected.append(decision.probabilities(np.log(p / (1 - p))))
    np.testing.assert_allclose(tagger.probabilities(waveforms), np.mean(expected, axis=0), atol=1e-4)
    tags = json.loads((finished / "summary.json").read_text())["tags"]
    parts = np.repeat((0, 1), len(saved["ids"]) // 2)
    _, chosen = cross_fit(saved["logits"], saved["labels"], parts)
    assert tags["f1_macro"]["value"] == pytest.approx(f1_score(saved["labels"], chosen, average="macro"))
    assert tags["f1_micro"]["value"] == pytest.approx(f1_score(saved["labels"], chosen, average="micro"))


def test_a_study_of_probes(config, finished, tmp_path):
    probe = config.copy_and_resolve_references()
    probe.model.init_from, probe.train.probe = str(finished / "fold_{fold}"), True
    probe.train.sampling, probe.train.verified_epochs = "uniform", 0
    probe.augment = log_db.get_config("esc50_probe").augment
    probe.study.variants, probe.study.seeds, probe.study.rate_factors = ("log_db",), (0,), (1.0,)
    datasets.run(parse_settings(probe), tmp_path)
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["task"] == "multi_label" and {row["name"] for row in scores["rows"]} >= {"log_db"}
    assert {each["part"] for each in scores["by_class"]} == {"held out", "test"}
    assert (tmp_path / "report.html").exists()
    [folder] = tmp_path.glob("runs/log_db-*")
    run_report.run(folder)
