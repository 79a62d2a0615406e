"""The benchmark of events: what it splices lies where its table has it, and its settings are chosen by their score."""

import csv
from pathlib import Path

import numpy as np
import soundfile

from audiotag_jax.evaluation.events import event_scores
from audiotag_jax.evaluation.predictions import VALIDATION
from audiotag_jax.inference.events import WindowScores, find_events
from audiotag_jax.settings.record import fold_dir
from benchmarks import spliced_recording

RATE_HZ = spliced_recording.RATE_HZ


def write_clips(folder: Path) -> None:
    """Tones of 1.5 s after 0.5 s of silence, in a table like that of ESC-50, of which the first eight are held out."""
    (folder / "audio").mkdir(parents=True)
    (folder / "meta").mkdir()
    tone = np.sin(2 * np.pi * 440 * np.arange(round(1.5 * RATE_HZ)) / RATE_HZ)
    names = [f"{n}.wav" for n in range(12)]
    for name in names:
        soundfile.write(folder / "audio" / name, np.concatenate([np.zeros(RATE_HZ // 2), 0.5 * tone]), RATE_HZ)
    with (folder / "meta" / "esc50.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("filename", "category"), *((name, f"c{n % 3}") for n, name in enumerate(names))])
    held_out = fold_dir(folder / "run", 1)
    held_out.mkdir(parents=True)
    labels, logits = np.zeros(8, int), np.zeros((8, 3), np.float32)
    np.savez(held_out / VALIDATION, ids=np.array(names[:8]), labels=labels, verified=labels == 0, logits=logits)


def test_a_spliced_recording_has_its_clips_where_the_table_has_them(tmp_path):
    write_clips(tmp_path)
    path, events = spliced_recording.splice(tmp_path, tmp_path, tmp_path / "run", 1, 40.0, seed=0)
    samples, rate_hz = soundfile.read(path)
    assert rate_hz == RATE_HZ and len(samples) == 40 * RATE_HZ
    loud = np.abs(samples) > 0.01  # the noise is at a thousandth
    expected = np.zeros(len(samples), bool)
    for event in events:
        expected[round(event.onset_s * RATE_HZ) : round(event.offset_s * RATE_HZ)] = True
    assert 4 <= len(events) <= 8
    assert loud.sum() > 0.9 * expected.sum() and not (loud & ~expected).any()
    gaps = [after.onset_s - before.offset_s for before, after in zip(events, events[1:], strict=False)]
    assert min(gaps) >= 2.5 and max(gaps) <= 6.5  # the pause and the clip's own silence
    pause = samples[round(events[0].offset_s * RATE_HZ) :][: 2 * RATE_HZ]
    assert 0 < np.abs(pause).max() < 0.01 and not samples[: 2 * RATE_HZ].any()  # noise; digital silence
    with (tmp_path / "true_fold_1.csv").open(newline="") as file:
        assert [row["label"] for row in csv.DictReader(file)] == [event.tag for event in events]


def test_the_settings_chosen_are_those_with_the_best_score(monkeypatch):
    monkeypatch.setattr(spliced_recording, "GRID", {**spliced_recording.GRID, "min_gap_s": (0.0, 1.0)})
    starts = 0.1 * np.arange(200)
    scores = np.random.default_rng(0).uniform(0, 0.45, (200, 1)).astype(np.float32)
    scores[50:70] += 0.3
    scores[120:150] += 0.3
    windows = WindowScores(scores, starts, starts + 1.0)
    true = [spliced_recording.Event("c", 5.45, 7.45), spliced_recording.Event("c", 12.45, 15.45)]
    chosen = spliced_recording.choose(windows, ("c",), true)
    found = find_events(*windows, ("c",), chosen)
    assert event_scores({"": true}, {"": found}, collar_s=0.5, with_offset=False)["f1"] == 1
