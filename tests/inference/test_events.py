"""Windows' probabilities to events: by definition, against SciPy's labelling, and with sounds of known times."""

import contextlib
import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import random_runs
import scipy.ndimage
import soundfile

from audiotag_jax.evaluation.events import Event
from audiotag_jax.inference import predict
from audiotag_jax.inference.event_reference import COLUMNS, read_reference
from audiotag_jax.inference.events import EventOptions, find_events, window_scores
from audiotag_jax.inference.export import serialize
from audiotag_jax.inference.tagger import Tagger, load_tagger
from audiotag_jax.inference.windows import WindowOptions
from audiotag_jax.runtime.errors import UserError

RATE_HZ, LENGTH = random_runs.RATE_HZ, random_runs.LENGTH
WINDOW_S, HOP_S = 1.0, 0.25


def events(*scores: list[float], length_s: float = WINDOW_S, **options) -> list[Event]:
    """Of windows every HOP_S, of one list of scores a class."""
    starts = HOP_S * np.arange(len(scores[0]))
    values = np.array(scores, np.float32).T
    return find_events(
        values, starts, starts + length_s, [f"c{k}" for k in range(len(scores))], EventOptions(**options)
    )


def test_hysteresis_starts_with_one_threshold_and_ends_with_the_other():
    found = events([0, 0.3, 0.6, 0.4, 0.3, 0.1, 0.4, 0.4, 0], on_threshold=0.5, off_threshold=0.3)
    assert [event[:3] for event in found] == [("c0", 0.625, 1.625)]  # the second stretch never reaches 0.5
    assert found[0].score == pytest.approx(0.6)


def test_edges_are_between_centres_and_those_of_the_recording():
    assert events([0.9, 0.9])[0][1:3] == (0, HOP_S + WINDOW_S)
    assert events([0.9])[0][1:3] == (0, WINDOW_S)
    found = find_events([[0], [0.9]], [0, 2.5], [2, 4.5], ["c0"])  # the last window ends with the recording
    assert [event[:3] for event in found] == [("c0", 2.25, 4.5)]


@pytest.mark.parametrize("hop_s", [0.5, 0.1, 0.02])
def test_a_shorter_hop_places_edges_better(hop_s):
    """Of a network that recognizes a sound when it fills half of a window: half a hop off at most."""
    rng = np.random.default_rng(0)
    starts = np.arange(0, 20, hop_s)
    for onset_s, length_s in zip(rng.uniform(2, 10, 50), rng.uniform(1.5, 5, 50), strict=True):
        filled = np.minimum(starts + WINDOW_S, onset_s + length_s) - np.maximum(starts, onset_s)
        (found,) = find_events(filled[:, None].clip(0), starts, starts + WINDOW_S, ["c0"], EventOptions(0.5, 0.5))
        assert abs(found.onset_s - onset_s) <= hop_s / 2 + 1e-6
        assert abs(found.offset_s - onset_s - length_s) <= hop_s / 2 + 1e-6


def test_against_scipys_labels():
    rng = np.random.default_rng(1)
    values = scipy.ndimage.uniform_filter1d(rng.random((400, 5)), 3, axis=0).astype(np.float32)
    starts = HOP_S * np.arange(400)
    found = find_events(values, starts, starts + WINDOW_S, list("abcde"), EventOptions(0.7, 0.4))
    expected = []
    for k, name in enumerate("abcde"):
        labels, _ = scipy.ndimage.label(values[:, k] >= np.float32(0.4))
        for (part,) in scipy.ndimage.find_objects(labels):
            if values[part, k].max() >= 0.7:
                first = starts[part][0] + WINDOW_S / 2 - HOP_S / 2 if part.start else 0.0
                last = starts[part][-1] + WINDOW_S / 2 + (HOP_S if part.stop < 400 else WINDOW_S) / 2
                expected.append((name, first, last, values[part, k].max()))
    assert len(expected) > 50
    assert found == sorted(expected, key=lambda event: (event[1], event[2], event[0]))


def test_short_events_and_gaps():
    scores = [0, 0.9, 0, 0, 0.9, 0.9, 0.9, 0, 0]
    assert len(events(scores)) == 2
    assert [event[1:3] for event in events(scores, min_duration_s=0.5)] == [(1.375, 2.125)]
    assert [event[1:3] for event in events(scores, min_gap_s=0.6)] == [(0.625, 2.125)]
    assert len(events(scores, min_gap_s=0.5)) == 2  # the gap is 0.5 s
    assert [event[1:3] for event in events(scores, min_gap_s=0.6, min_duration_s=1.5)] == [(0.625, 2.125)]


def test_smoothing_removes_what_is_short():
    scores = [0, 0, 0.9, 0, 0, 0.9, 0, 0.9, 0.9, 0]
    assert [event[1:3] for event in events(scores, smooth_windows=3)] == [(1.875, 2.625)]
    mean = {"smooth_windows": 3, "smoothing": "mean", "off_threshold": 0.5}
    assert events(scores, **mean, on_threshold=0.65) == []
    assert [event[1:3] for event in events(scores, **mean, on_threshold=0.55)] == [(1.875, 2.625)]


@pytest.mark.parametrize("smooth_windows", [1, 3])
def test_a_silent_window_is_in_no_event(smooth_windows):
    nan = float("nan")
    found = events([0.9, 0.9, 0.9, nan, 0.9, 0.9, 0.9], smooth_windows=smooth_windows)
    assert [event[1:3] for event in found] == [(0, 1.125), (1.375, 2.5)]
    assert events([nan, nan]) == [] == find_events(np.zeros((2, 0)), [0, 1], [1, 2], ["c0"])


def test_classes_do_not_exclude_each_other():
    found = events([0, 0.9, 0.9, 0, 0], [0, 0, 0.8, 0.8, 0])
    assert [event.tag for event in found] == ["c0", "c1"] and found[0].offset_s > found[1].onset_s


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_threshold": 0.2, "off_threshold": 0.3}, "off at most on"),
        ({"on_threshold": 0.0}, "above 0"),
        ({"smooth_windows": 4}, "odd"),
        ({"smoothing": "max"}, "choose from median, mean"),
        ({"min_gap_s": -1.0}, "0 s or more"),
    ],
)
def test_options_that_cannot_work(options, message):
    with pytest.raises(ValueError, match=message):
        EventOptions(**options)


def test_scores_that_do_not_fit():
    with pytest.raises(ValueError, match=r"\[windows, classes\]"):
        find_events(np.zeros((3, 2)), np.arange(3), np.arange(3) + 1, ["a"])


# Of a run, of its exported program, and by the command.


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "sounds"
    folder.mkdir()
    random_runs.make_sounds(folder)
    return random_runs.make_believable(
        random_runs.make_run(random_runs.tiny_config(folder), tmp_path_factory.mktemp("runs") / "run")
    )


@pytest.fixture(scope="module")
def tagger(workdir) -> Tagger:
    return load_tagger(workdir)


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Path:
    """Noises of two colours with digital silence between them and behind them."""
    rng = np.random.default_rng(0)
    first, second = 0.1 * rng.standard_normal((2, 6 * LENGTH))
    silence = np.zeros(5 * LENGTH)
    path = tmp_path_factory.mktemp("audio") / "spliced.wav"
    sounds = [first, silence, np.convolve(second, np.ones(8) / 8, "same"), silence]
    soundfile.write(path, np.concatenate(sounds), RATE_HZ, subtype="FLOAT")
    return path


OPTIONS = EventOptions(on_threshold=0.4, off_threshold=0.2, smooth_windows=3)


def test_a_run_and_its_exported_program_give_the_same_events(tagger, recording):
    from jax import export

    program = export.deserialize(bytearray(serialize(tagger))).call
    options = WindowOptions(tagger.sample_rate_hz, tagger.length_samples, tagger.length_samples // 4)
    scores = window_scores(recording, program, options)
    ours = tagger.events(recording, options=OPTIONS)
    theirs = find_events(*scores, tagger.classes, OPTIONS)
    assert len(ours) >= 2
    assert [event[:3] for event in theirs] == [event[:3] for event in ours]
    assert [event.score for event in theirs] == pytest.approx([event.score for event in ours], abs=1e-5)
    samples, rate_hz = soundfile.read(recording)
    assert tagger.events(samples, rate_hz, options=OPTIONS) == ours


def test_silence_has_no_events(tagger, recording):
    found = tagger.events(recording, options=EventOptions(on_threshold=0.05, min_gap_s=0.01))
    window_s = LENGTH / RATE_HZ
    silent = ((6 * window_s, 11 * window_s), (17 * window_s, 22 * window_s))
    inner = [(start + window_s, end - window_s) for start, end in silent]
    assert found
    for event in found:
        assert all(event.offset_s <= start or event.onset_s >= end for start, end in inner)
    assert tagger.events(np.zeros(10 * LENGTH), RATE_HZ) == []


def test_a_cut_file_is_warned_of(tagger, recording, tmp_path):
    whole = recording.read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[: len(whole) // 2])
    with pytest.warns(UserWarning, match=r"cut.wav: truncated: .* s decoded"):
        tagger.events(tmp_path / "cut.wav", options=OPTIONS)


def test_a_file_that_cannot_be_read(tagger, tmp_path):
    (tmp_path / "empty.wav").touch()
    with pytest.raises(ValueError, match=r"empty\.wav"):
        tagger.events(tmp_path / "empty.wav")


def rows(path: Path) -> list[dict]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def written(workdir, tagger, recording, tmp_path_factory) -> Path:
    """By the command, with a reference that has the events found but one, and one that is not there."""
    folder = tmp_path_factory.mktemp("out")
    found = tagger.events(recording, options=OPTIONS)
    shifted = [("spliced.wav", each.onset_s + 0.3, each.offset_s + 0.3, each.tag) for each in found[1:]]
    table = folder / "true.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *shifted, ("spliced.wav", 30, 31, "bell")])
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        predict.run(
            workdir,
            [str(recording)],
            out=folder / "tables",
            events=OPTIONS,
            reference=table,
            formats=("audacity", "raven"),
        )
    assert f"\nevents: {len(found)}\n" in printed.getvalue()
    return folder / "tables"


def test_the_command_writes_events_in_every_form(written, tagger, recording):
    found = tagger.events(recording, options=OPTIONS)
    expected = [(str(recording), f"{e.onset_s:.3f}", f"{e.offset_s:.3f}") for e in found]
    assert [(row["path"], row["onset_s"], row["offset_s"]) for row in rows(written / "events.csv")] == expected
    assert [row["tag"] for row in rows(written / "events.csv")] == [event.tag for event in found]
    audacity = (written / "audacity" / "spliced.wav.txt").read_text().splitlines()
    assert audacity == [f"{e.onset_s:.6f}\t{e.offset_s:.6f}\t{e.tag} {e.score:.2f}" for e in found]
    raven = (written / "raven" / "spliced.wav.Table.1.selections.txt").read_text().splitlines()
    assert len(raven) == 1 + len(found) and raven[1].split("\t")[3] == f"{found[0].onset_s:.6f}"
    about = json.loads((written / "predictions.json").read_text())
    assert about["events"]["on_threshold"] == 0.4 and about["hop_s"] == LENGTH / RATE_HZ / 4


def test_the_command_scores_events(written, tagger, recording):
    num_found = len(tagger.events(recording, options=OPTIONS))
    scores = json.loads((written / "event_scores.json").read_text())
    wide, narrow = scores["onset_within_0.5_s"], scores["onset_within_0.2_s"]
    assert wide["reference"] == wide["estimated"] == num_found
    assert wide["correct"] >= num_found - 1 > narrow["correct"]
    assert 0 < scores["segments_of_1_s"]["f1"] <= 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("other.wav,0,1,bell", r"'other\.wav' is the name of no recording"),
        ("a.wav,0,1,bell", r"'a\.wav' is the name of 2 recordings"),
        ("x/a.wav,1,1,bell", "the offset behind the onset"),
        ("x/a.wav,one,2,bell", "times in seconds"),
        ("x/a.wav,1,nan,bell", "times in seconds"),
        ("x/a.wav,1,2,", "a label is needed"),
    ],
)
def test_a_reference_that_cannot_be(tmp_path, row, message):
    (tmp_path / "true.csv").write_text(f"file,onset_s,offset_s,label\n{row}\n")
    with pytest.raises(UserError, match=message):
        read_reference(tmp_path / "true.csv", [Path("data/x/a.wav"), Path("data/y/a.wav")], ["bell"])


def test_a_reference_names_recordings_and_labels(tmp_path, capsys):
    (tmp_path / "true.csv").write_text("file,onset_s,offset_s,label\nx/a.wav,1,2,cow\ny/a.wav,,,\n")
    files = [Path("data") / name for name in ("x/a.wav", "y/a.wav", "b.wav")]
    found = read_reference(tmp_path / "true.csv", files, ["bell"])
    assert {name: [event[:3] for event in each] for name, each in found.items()} == {
        "data/x/a.wav": [("cow", 1, 2)],
        "data/y/a.wav": [],
    }
    printed = capsys.readouterr().out
    assert "cow" in printed and "1 of 3 recordings are not in" in printed


def test_classes_have_thresholds_of_their_own():
    scores, starts = np.array([[0.0, 0.0], [0.3, 0.3], [0.2, 0.2], [0.05, 0.05]]), np.arange(4.0)
    found = find_events(scores, starts, starts + 1, ["a", "b"], EventOptions(on_threshold=(0.25, 0.5)))
    assert [event[:3] for event in found] == [("a", 1.0, 3.0)]
    options = EventOptions(off_threshold=0.4)
    assert options.with_thresholds(0.5) is options and options.on == 0.5
    own = options.with_thresholds((0.25, 0.0))
    assert own.on.tolist() == [0.25, 1e-6] and own.off.tolist() == [0.25, 1e-6]
    assert EventOptions(on_threshold=0.7).with_thresholds((0.25, 0.5)).on == 0.7
    with pytest.raises(ValueError, match="2 thresholds of 3 classes"):
        find_events(np.zeros((1, 3)), [0.0], [1.0], "abc", own)
