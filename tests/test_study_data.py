"""Tables of the studies' data sets, from clones made of empty files with the repositories' names."""

import collections
import csv
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from audiotag_jax.datasets.folder import open_folder
from audiotag_jax.study import store
from audiotag_jax.study.results import Clips, Results, VariantLogits

ROOT = Path(__file__).parents[1]
NOTES = (
    "flute_A4_05_forte_normal",
    "flute_As3_1_piano_normal",
    "flute_C4_phrase_forte_normal",
    "flute_D5_long_forte_x",
)


def touch(path: Path, text: str = "x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def clone(tmp_path) -> Path:
    for machine, per_class in {"RM50": 9, "TR808": 3, "TR909": 3, "R8": 2, "DX": 2, "LM1": 2, "SP12": 1}.items():
        for label in ("bd", "sd", "hh", "perc", "fx"):
            for take in range(per_class):
                name = f"Take {take}.{'WAV' if take else 'wav'}"
                touch(tmp_path / "machines" / machine / f"{machine.lower()}-{label}" / name)
        touch(tmp_path / "machines" / machine / f"{machine.lower()}-bd" / "desktop.ini")
    for name in NOTES:
        touch(tmp_path / "audio" / "flute" / f"{name}.mp3")
    for pitch in ("C2", "Ds3", "F4", "Gs2", "B5"):
        touch(tmp_path / "audio" / "double bass" / f"double-bass_{pitch}_025_piano_arco-normal.mp3")
    touch(tmp_path / "audio" / "flute" / "flute_Fs3_15_forte_normal.mp3", "")  # empty, as one file of the collection is
    touch(tmp_path / "audio" / "percussion" / "gong" / "gong__1_forte_struck.mp3")
    for digit in range(10):
        for speaker in ("ann", "bob", "eve"):
            for take in range(2):
                touch(tmp_path / "recordings" / f"{digit}_{speaker}_{take}.wav")
    return tmp_path


def table(dataset: str, clone: Path) -> tuple[str, list[dict[str, str]]]:
    command = [sys.executable, str(ROOT / "benchmarks/study_data.py"), dataset, str(clone)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    with (clone / f"{dataset}.csv").open(newline="") as file:
        return done.stdout, list(csv.DictReader(file))


def test_drums_by_machine(clone):
    printed, rows = table("drums", clone)
    assert "66 clips, 3 classes, 7 recordings, folds of 27, 9, 9, 12, 9; at least 3 of a class in each fold" in printed
    assert {row["label"] for row in rows} == {"bd", "sd", "hh"}
    folds = collections.defaultdict(set)
    for row in rows:
        assert row["path"].startswith(f"machines/{row['recording']}/")
        folds[row["recording"]].add(row["fold"])
    assert all(len(each) == 1 for each in folds.values())
    source = open_folder(clone, "drums.csv")
    assert len(source.clips) == 66 and {clip.fold for clip in source.clips} == set(range(5))
    assert all(Path(clip.path).is_file() for clip in source.clips)


def test_notes_by_pitch_class(clone):
    printed, rows = table("notes", clone)
    assert "7 clips, 2 classes, 7 recordings" in printed
    by_recording = {row["recording"]: (row["fold"], row["label"]) for row in rows}
    assert by_recording["flute A4"] == ("4", "flute") and by_recording["flute As3"] == ("4", "flute")
    assert [by_recording[f"double bass {pitch}"][0] for pitch in ("C2", "Ds3", "F4", "Gs2", "B5")] == list("12234")


def test_digits_by_speaker(clone):
    printed, rows = table("digits", clone)
    assert "60 clips, 10 classes, 30 recordings, folds of 20, 20, 20; at least 2 of a class in each fold" in printed
    assert {(row["recording"].split()[0], row["fold"]) for row in rows} == {("ann", "1"), ("bob", "2"), ("eve", "3")}


def test_another_folder_is_refused_in_a_line(tmp_path):
    command = [sys.executable, str(ROOT / "benchmarks/study_data.py"), "drums", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "has no sounds of drums" in done.stderr
    assert not list(tmp_path.iterdir())


def test_strides_are_compared_from_saved_predictions(tmp_path):
    rng, labels, n = np.random.default_rng(0), np.arange(300) % 4, 300
    clips = Clips(np.array([f"{k:03d}" for k in range(n)]), labels, np.ones(n, bool), np.arange(n) % 2)
    right = rng.uniform(size=(2, n)) < 0.7
    for name, changed in (("exact", 0), ("same", 0), ("worse", 150)):
        variants = []
        for variant, each in zip(("hires_q2", "hires_q8"), right, strict=True):
            answers = np.where(each & (np.arange(n) >= changed), labels, (labels + 1) % 4)
            variants.append(VariantLogits(variant, (0,), np.eye(4, dtype=np.float32)[answers][None], None))
        store.write(tmp_path / name / "predictions/drums", Results(tuple("abcd"), clips, None, tuple(variants)), [])
    compare = runpy.run_path(str(ROOT / "benchmarks/compare_strides.py"))["compare"]
    rows = compare([tmp_path / name for name in ("exact", "same", "worse")], "drums", margin=0.05, num_resamples=500)
    assert [(row["variant"], row["run"]) for row in rows] == [
        (variant, run) for variant in ("hires_q2", "hires_q8") for run in ("same", "worse")
    ]
    assert rows[0]["value"] == 0 and rows[0]["p_equivalence_holm"] < 0.05
    assert rows[1]["value"] < -0.3 and rows[1]["p_bootstrap_holm"] < 0.01 and rows[1]["p_equivalence_holm"] == 1
