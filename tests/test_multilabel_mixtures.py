"""Mixtures with several labels from a few short sounds in the layout of ESC-50."""

import csv
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiotag_jax.datasets.records import check_recordings
from audiotag_jax.datasets.sources import open_source

ROOT = Path(__file__).parents[1]


@pytest.fixture
def esc(tmp_path) -> Path:
    """Two folds of twelve recordings, some with two takes: each a constant whose value names its class."""
    folder = tmp_path / "esc"
    (folder / "audio").mkdir(parents=True)
    (folder / "meta").mkdir()
    rows = [("filename", "fold", "category", "src_file")]
    for n in range(30):
        name = f"{n:02d}.wav"
        tone = np.sin(2 * np.pi * 100 * (1 + n % 3) * np.arange(8000) / 16000)
        soundfile.write(folder / "audio" / name, 0.1 * (n + 1) / 30 * tone, 16000)
        rows.append((name, 1 + n % 2, ("low", "middle", "high")[n % 3], f"r{n % 24}"))
    with (folder / "meta" / "esc50.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


def test_mixtures_have_the_labels_and_levels_of_their_parts(esc, tmp_path):
    out = tmp_path / "mixtures"
    command = [sys.executable, str(ROOT / "benchmarks/multilabel_mixtures.py"), "make", f"--path={esc}"]
    done = subprocess.run([*command, f"--out={out}", "--per_fold=12"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "24 mixtures, of 1, 2, … labels: " in done.stdout, done.stderr
    source = check_recordings(open_source("folder", out, table="mixtures.csv", label_separator=","))
    assert source.classes == ("high", "low", "middle") and {clip.fold for clip in source.clips} == {0, 1}
    groups = {clip.recording for clip in source.clips}
    assert groups - {"fold1_group001", "fold2_group001"} == {"fold1_group000", "fold2_group000"}
    for clip in source.clips:
        samples, rate_hz = soundfile.read(clip.path)
        assert (rate_hz, len(samples)) == (16000, 80000) and not samples[8000:].any()
        power = np.abs(np.fft.rfft(samples[:8000]))[[50, 100, 150]] / 4000  # of 100, 200 and 300 Hz
        present = {label for label, each in zip(("low", "middle", "high"), power, strict=True) if each > 0.01}
        assert present == set(clip.labels)
        if len(clip.labels) == 3:  # one clip a label
            levels_db = 20 * np.log10(power / np.sqrt(2))
            assert (levels_db < -19.9).all() and (levels_db > -32.1).all()


def test_loud_sums_do_not_clip():
    module = runpy.run_path(str(ROOT / "benchmarks/multilabel_mixtures.py"))
    loud = module["mix"]([np.ones(100, np.float32)] * 3, np.array([0.0, 0.0, 0.0]))
    assert np.abs(loud).max() == pytest.approx(0.99, abs=1e-6)
    silent = module["mix"]([np.zeros(100, np.float32)], np.array([-20.0]))
    assert not silent.any()
