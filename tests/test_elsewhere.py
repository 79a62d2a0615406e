"""Predictions made without this project: files that mode compare reads, of clips that were held out."""

import csv
import sys

import numpy as np
import pytest
import soundfile

from audiotag_jax.evaluation.foreign import read_foreign, read_labels
from benchmarks import elsewhere

CLASSES, FOLDS, CLIPS = ("dog", "rain"), (1, 2, 3), 3


@pytest.fixture
def folder(tmp_path):
    """Tones and noises of 1.1 s in the layout of ESC-50."""
    (tmp_path / "audio").mkdir()
    (tmp_path / "meta").mkdir()
    rng, rows, seconds = np.random.default_rng(0), [], np.arange(17600) / 16000
    for n in range(len(FOLDS) * len(CLASSES) * CLIPS):
        kind, name = n % 2, f"{n}.wav"
        sound = rng.standard_normal(17600) if kind else np.sin(2 * np.pi * rng.uniform(300, 600) * seconds)
        soundfile.write(tmp_path / "audio" / name, 0.1 * sound, 16000)
        rows.append([name, FOLDS[n % 3], CLASSES[kind], n // 2])
    with (tmp_path / "meta/esc50.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["filename", "fold", "category", "src_file"], *rows])
    return tmp_path


def answers(folder, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["elsewhere.py", str(folder), f"--out={folder / 'out'}", *arguments])
    elsewhere.main()
    return read_labels(folder / "out/labels.csv")


def share_right(path, labels):
    found = read_foreign(path)
    assert sorted(found.ids.tolist()) == sorted(labels.labels) and found.classes == CLASSES
    names = [found.classes[k] for k in found.logits.argmax(1)]
    return np.mean([labels.labels[clip] == name for clip, name in zip(found.ids.tolist(), names, strict=True)])


def test_mean_spectra(folder, monkeypatch, capsys):
    labels = answers(folder, monkeypatch, "--epochs=0")
    assert labels.recordings["3.wav"] == "1" and len(labels.labels) == 18
    assert share_right(folder / "out/mean_spectra.csv", labels) == 1
    assert capsys.readouterr().out.startswith("scikit-learn on mean spectra: 1.000 of 18 held-out clips right")
    assert not (folder / "out/torch_cnn.npz").exists()


def test_a_network_in_pytorch(folder, monkeypatch):
    pytest.importorskip("torch")
    labels = answers(folder, monkeypatch, "--epochs=4", "--clips=2")
    assert len(labels.labels) == 12
    assert share_right(folder / "out/torch_cnn.npz", labels) >= 0.5


def test_a_clip_is_answered_by_what_never_saw_its_fold():
    images, labels, folds = np.arange(6), np.array([0, 1, 0, 1, 0, 1]), np.array([1, 1, 2, 2, 3, 3])

    def answer(seen, seen_labels, others):
        assert len(seen) == len(seen_labels) == 4
        return np.array([[each in seen, not np.intersect1d(seen, others).size] for each in others])

    np.testing.assert_array_equal(elsewhere.held_out(answer, images, labels, folds), [[0, 1]] * 6)
