"""Tags for files of every kind: what is written, what is reported, and that nothing depends on the neighbours."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import random_runs
import soundfile

from audiotag_jax.audio.crop import crop_loudest
from audiotag_jax.inference import predict
from audiotag_jax.inference.tagger import load_tagger
from audiotag_jax.runtime.errors import UserError

RATE_HZ, LENGTH = random_runs.RATE_HZ, random_runs.LENGTH


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "sounds"
    folder.mkdir()
    random_runs.make_sounds(folder)
    return random_runs.make_run(random_runs.tiny_config(folder), tmp_path_factory.mktemp("runs") / "run")


def noise(num_samples: int, seed: int = 0) -> np.ndarray:
    """With a colour of its own."""
    rng = np.random.default_rng(seed)
    return (0.1 * np.convolve(rng.standard_normal(num_samples), rng.standard_normal(5), "same")).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Files good and bad; to read, not to write."""
    folder = tmp_path_factory.mktemp("audio")
    (folder / "below").mkdir()
    sounds = {
        "short.wav": noise(500),
        "long.wav": np.concatenate([noise(3 * LENGTH, 1), np.zeros(2 * LENGTH, np.float32), noise(100, 2)]),
        "silent.wav": np.zeros(LENGTH, np.float32),
        "constant.wav": np.full(2000, 0.5, np.float32),
        "nan.wav": np.full(2000, np.nan, np.float32),
        'below/a, "b".WAV': noise(LENGTH, 3),
        "below/.hidden.wav": noise(LENGTH, 4),
    }
    for name, samples in sounds.items():
        soundfile.write(folder / name, samples, RATE_HZ, subtype="FLOAT", format="WAV")
    (folder / "empty.wav").touch()
    (folder / "text.wav").write_text("no sound at all")
    (folder / "notes.txt").write_text("not even by its name")
    return folder


def tables(out: Path) -> tuple[list[dict], list[dict], dict]:
    rows = [list(csv.DictReader((out / name).open(newline=""))) for name in ("predictions.csv", "windows.csv")]
    return *rows, json.loads((out / "predictions.json").read_text())


@pytest.fixture(scope="module")
def written(workdir, folder, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("out") / "deep" / "er"
    predict.run(workdir, [str(folder)], out=out)
    return out


def by_name(rows: list[dict], folder: Path) -> dict[str, dict]:
    return {Path(row["path"]).relative_to(folder).as_posix(): row for row in rows}


def test_every_recording_once_and_in_order(written, folder):
    recordings, _, whole = tables(written)
    names = ['below/a, "b".WAV', "constant.wav", "empty.wav", "long.wav", "nan.wav", "short.wav", "silent.wav"]
    assert list(by_name(recordings, folder)) == [*names, "text.wav"]
    assert [each["path"] for each in whole["recordings"]] == [row["path"] for row in recordings]


def test_what_cannot_be_heard_is_reported_not_guessed(written, folder):
    recordings, windows, whole = tables(written)
    rows = by_name(recordings, folder)
    for name, reason in {"empty.wav": "empty file", "text.wav": "unreadable", "nan.wav": "non-finite"}.items():
        assert reason in rows[name]["note"]
        assert (rows[name]["duration_s"], rows[name]["windows"]) == ("", "0")
    for name, count in {"silent.wav": "1", "constant.wav": "2"}.items():
        assert rows[name]["windows"] == rows[name]["silent_windows"] == count
        assert rows[name]["note"].startswith("silent")
    for name in ("empty.wav", "text.wav", "nan.wav", "silent.wav", "constant.wav"):
        assert rows[name]["tag"] == rows[name]["tag_1"] == rows[name]["probability_1"] == ""
        answer = by_name(whole["recordings"], folder)[name]
        assert answer["tag"] is answer["probabilities"] is None
    silent = [row for row in windows if row["note"] == "silent"]
    assert len(silent) == 1 + 2 + 2
    assert {row["tag"] for row in silent} == {""}


def test_windows_of_a_long_recording(written, workdir, folder):
    """5 clips and 100 samples, the fourth and the fifth silent; the last window ends with the recording."""
    recordings, windows, whole = tables(written)
    mine = [row for row in windows if row["path"].endswith("long.wav")]
    seconds = LENGTH / RATE_HZ
    starts = [0, seconds, 2 * seconds, 3 * seconds, 4 * seconds, 4 * seconds + 100 / RATE_HZ]
    assert [float(row["start_s"]) for row in mine] == pytest.approx(starts)
    assert [float(row["end_s"]) for row in mine] == pytest.approx([start + seconds for start in starts])
    assert [row["note"] for row in mine] == ["", "", "", "silent", "silent", ""]
    samples, _ = soundfile.read(folder / "long.wav", dtype="float32")
    heard = [samples[round(start * RATE_HZ) :][:LENGTH] for start in [*starts[:3], starts[-1]]]
    expected = np.asarray(load_tagger(workdir).probabilities(np.stack(heard)))
    answer = by_name(whole["recordings"], folder)["long.wav"]
    sounding = [window["probabilities"] for window in answer["windows"] if window["tag"]]
    np.testing.assert_allclose(sounding, expected, rtol=0, atol=2e-6)
    np.testing.assert_allclose(answer["probabilities"], expected.mean(axis=0), rtol=0, atol=2e-6)
    row = by_name(recordings, folder)["long.wav"]
    assert (row["windows"], row["silent_windows"], row["duration_s"]) == ("6", "2", "1.525")


def test_a_short_recording_is_heard_as_in_training(written, workdir, folder):
    """In the middle of silence; and its tags are the likeliest classes, in order."""
    recordings, windows, whole = tables(written)
    clip = crop_loudest(noise(500), LENGTH, RATE_HZ // 2)
    expected = np.asarray(load_tagger(workdir).probabilities(clip[None]))[0]
    assert not clip[:350].any()
    assert not clip[850:].any()
    row, answer = by_name(recordings, folder)["short.wav"], by_name(whole["recordings"], folder)["short.wav"]
    np.testing.assert_allclose(answer["probabilities"], expected, rtol=0, atol=2e-6)
    order = np.argsort(-expected)
    assert [row[f"tag_{rank}"] for rank in (1, 2, 3)] == [random_runs.CLASSES[k] for k in order[:3]]
    assert row["tag"] == row["tag_1"] == answer["tag"]
    assert [float(row[f"probability_{rank}"]) for rank in (1, 2, 3)] == pytest.approx(expected[order[:3]], abs=2e-6)
    (window,) = [row for row in windows if row["path"].endswith("short.wav")]
    assert (float(window["start_s"]), float(window["end_s"])) == (0, 500 / RATE_HZ)


def test_json_says_how_it_came_about(written, workdir):
    whole = tables(written)[2]
    tagger = load_tagger(workdir)
    assert whole["classes"] == list(random_runs.CLASSES)
    assert (whole["temperature"], whole["folds"]) == (tagger.temperature, [0, 1])
    assert (whole["sample_rate_hz"], whole["window_s"], whole["hop_s"]) == (RATE_HZ, 0.3, 0.3)
    assert not list(written.glob(".*.tmp"))


def test_neighbours_do_not_matter(workdir, folder, tmp_path):
    """Alone, or with others in the batch and in another order."""
    names = ["short.wav", 'below/a, "b".WAV']
    alone = []
    for number, name in enumerate(names):
        predict.run(workdir, [str(folder / name)], out=tmp_path / str(number))
        alone += tables(tmp_path / str(number))[2]["recordings"]
    paths = [str(folder / name) for name in ("long.wav", names[1], "text.wav", names[0], names[1])]
    predict.run(workdir, paths, out=tmp_path / "together")
    together = by_name(tables(tmp_path / "together")[2]["recordings"], folder)
    assert list(together) == ["long.wav", names[1], "text.wav", names[0]]
    for name, expected in zip(names, alone, strict=True):
        np.testing.assert_allclose(together[name]["probabilities"], expected["probabilities"], rtol=0, atol=1.5e-6)


def test_many_windows_fill_many_batches(workdir, folder, tmp_path):
    """A hop of 50 ms: 26 windows, three of a batch and more; each as by the tagger itself."""
    predict.run(workdir, [str(folder / "long.wav")], hop_s=0.05, out=tmp_path)
    answer = tables(tmp_path)[2]["recordings"][0]
    samples, _ = soundfile.read(folder / "long.wav", dtype="float32")
    assert [window["start_s"] for window in answer["windows"]] == pytest.approx(
        [n * 0.05 for n in range(25)] + [1.525 - 0.3]
    )
    tagger = load_tagger(workdir)
    for window in answer["windows"]:
        start = round(window["start_s"] * RATE_HZ)
        heard = samples[start : start + LENGTH]
        if heard.any():
            expected = np.asarray(tagger.probabilities(heard[None]))[0]
            np.testing.assert_allclose(window["probabilities"], expected, rtol=0, atol=2e-6)
        else:
            assert window["probabilities"] is None


def test_threshold(workdir, folder, tmp_path):
    path = str(folder / "short.wav")
    predict.run(workdir, [path], out=tmp_path / "any", top=1)
    (row,), (window,), _ = tables(tmp_path / "any")
    best = float(row["probability_1"])
    assert "tag_2" not in row
    for threshold, tag in ((best - 1e-4, row["tag_1"]), (best + 1e-4, "none of these")):
        predict.run(workdir, [path], out=tmp_path / "some", threshold=threshold, top=99)
        (row,), (window,), whole = tables(tmp_path / "some")
        assert row["tag"] == window["tag"] == whole["recordings"][0]["tag"] == tag
        assert float(row["probability_1"]) == best
        assert "tag_4" in row
        assert "tag_5" not in row


def test_written_beside_the_run_and_said(workdir, folder, capsys):
    predict.run(workdir, [str(folder)])
    said = capsys.readouterr().out
    assert len(tables(workdir / "predicted")[0]) == 8
    assert "recordings: 8 (3 tagged, 2 silent, 3 unreadable)" in said
    assert "2 of 6 windows silent" in said
    assert "not read: empty file" in said


def test_nothing_to_tag(workdir, folder, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(
        UserError, match=r"None of the recordings could be read \(2\).*\n.*empty\.wav +not read: empty file"
    ):
        predict.run(workdir, [str(folder / "empty.wav"), str(folder / "gone.wav")], out=out)
    with pytest.raises(UserError, match=r"nothing to tag in .*\n.*\.flac"):
        predict.run(workdir, [str(tmp_path)], out=out)
    with pytest.raises(UserError, match=r"nothing to tag: --audio is missing"):
        predict.run(workdir, [], out=out)
    assert not list(out.glob("*.*sv")) + list(out.glob("*.json"))


@pytest.mark.parametrize(
    "options", [{"top": 0}, {"threshold": 1.5}, {"threshold": float("nan")}, {"hop_s": -1}, {"hop_s": 1e-6}], ids=str
)
def test_bad_options(workdir, folder, options):
    with pytest.raises(UserError):
        predict.run(workdir, [str(folder)], **options)


def test_odd_names(workdir, folder, tmp_path):
    """A line break; and bytes that are no UTF-8: tagged and in tables all the same."""
    odd = [tmp_path / "a\nb.wav", tmp_path / os.fsdecode(b"\xff.wav")]
    for path in odd:
        path.write_bytes((folder / "short.wav").read_bytes())
    predict.run(workdir, [str(tmp_path)], out=tmp_path / "out")
    rows, _, whole = tables(tmp_path / "out")
    assert [row["path"] for row in rows] == [str(odd[0]), f"{tmp_path}/\\udcff.wav"]
    assert [each["path"] for each in whole["recordings"]] == [str(path) for path in odd]
    assert rows[0]["tag"]
    assert rows[1] | {"path": ""} == rows[0] | {"path": ""}


def test_a_name_is_no_formula_for_a_spreadsheet(workdir, tmp_path, monkeypatch):
    soundfile.write(tmp_path / "=1+1.wav", noise(500), RATE_HZ)
    monkeypatch.chdir(tmp_path)
    predict.run(workdir, ["=1+1.wav"], out=tmp_path / "out")
    for name in ("predictions.csv", "windows.csv"):
        with (tmp_path / "out" / name).open(newline="") as file:
            assert [row["path"] for row in csv.DictReader(file)] == ["'=1+1.wav"]
    whole = json.loads((tmp_path / "out/predictions.json").read_text())
    assert whole["recordings"][0]["path"] == "=1+1.wav"


def test_a_recording_hardly_longer_than_a_clip_is_one_window(workdir, tmp_path):
    """Cropped as in training, on its loudest half second; here at the end."""
    samples = noise(LENGTH + 10) * np.linspace(0, 1, LENGTH + 10, dtype=np.float32)
    soundfile.write(tmp_path / "a.wav", samples, RATE_HZ, subtype="FLOAT")
    predict.run(workdir, [str(tmp_path)], out=tmp_path / "out")
    _, (window,), whole = tables(tmp_path / "out")
    assert (float(window["start_s"]), float(window["end_s"])) == (0, pytest.approx((LENGTH + 10) / RATE_HZ, abs=1e-3))
    clip = crop_loudest(samples, LENGTH, RATE_HZ // 2)
    expected = np.asarray(load_tagger(workdir).probabilities(clip[None]))[0]
    np.testing.assert_allclose(whole["recordings"][0]["probabilities"], expected, rtol=0, atol=2e-6)


def test_a_cut_file_says_so(workdir, folder, tmp_path):
    whole = (folder / "long.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[: len(whole) // 2])
    predict.run(workdir, [str(tmp_path)], out=tmp_path / "out")
    (row,), _, _ = tables(tmp_path / "out")
    assert "truncated" in row["note"]
    assert row["tag"]
