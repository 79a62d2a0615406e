"""Tags for files of every kind: what is written, what is reported, and that nothing depends on the neighbours."""

import csv
import datetime
import json
import os
import shutil
import types
from pathlib import Path

import numpy as np
import pytest
import random_runs
import soundfile

from audiotag_jax.audio.crop import crop_loudest
from audiotag_jax.inference import output, predict
from audiotag_jax.inference.output import choose_folder
from audiotag_jax.inference.tables import TABLES
from audiotag_jax.inference.tagger import load_tagger
from audiotag_jax.runtime.errors import UserError

RATE_HZ, LENGTH = random_runs.RATE_HZ, random_runs.LENGTH


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "sounds"
    folder.mkdir()
    random_runs.make_sounds(folder)
    run = random_runs.make_run(random_runs.tiny_config(folder), tmp_path_factory.mktemp("runs") / "run")
    return random_runs.make_believable(run)


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
            np.testing.assert_allclose(window["probabilities"], expected, rtol=0, atol=1e-5)
        else:
            assert window["probabilities"] is None


def test_threshold(workdir, folder, tmp_path):
    path = str(folder / "short.wav")
    predict.run(workdir, [path], out=tmp_path / "any", top=1)
    (row,), (window,), _ = tables(tmp_path / "any")
    best = float(row["probability_1"])
    assert "tag_2" not in row
    for threshold, tag in ((best - 1e-4, row["tag_1"]), (best + 1e-4, "none of these")):
        predict.run(workdir, [path], out=tmp_path / "some", threshold=threshold, top=99, overwrite=True)
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


def test_wrong_paths_are_named_before_the_model_is_loaded(tmp_path, folder):
    wrong = [f"gone{n}.wav" for n in range(7)]
    with pytest.raises(UserError, match=r"There is no gone0\.wav, .*gone4\.wav and 2 more: 7 of 8 paths of --audio"):
        predict.run(tmp_path / "no run", [*wrong, str(folder / "short.wav")])
    with pytest.raises(UserError, match=r"Unknown --format 'mp3'; choose from audacity, raven"):
        predict.run(tmp_path / "no run", [str(folder)], formats=["raven", "mp3"])
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file is a file; name a folder"):
        predict.run(tmp_path / "no run", [str(folder)], out=tmp_path / "file")


def test_earlier_tables_are_not_replaced(workdir, folder, tmp_path, monkeypatch, capsys):
    """The default folder gets date and time; one that is named needs --overwrite."""
    short, long = str(folder / "short.wav"), str(folder / "long.wav")
    run = Path(shutil.copytree(workdir, tmp_path / "run", ignore=shutil.ignore_patterns("predicted*")))
    predict.run(run, [short])
    before = (run / "predicted/predictions.json").read_bytes()
    predict.run(run, [long])
    [other] = run.glob("predicted_20??-??-??_??-??-??")
    assert [Path(row["path"]).name for row in tables(other)[0]] == ["long.wav"]
    with pytest.raises(UserError, match=r"predicted contains predictions\.csv of an earlier call\.\n.*--overwrite"):
        predict.run(run, [long], out=run / "predicted")
    assert (run / "predicted/predictions.json").read_bytes() == before
    (run / "predicted/events.csv").write_text("of an earlier call with events\n")
    predict.run(run, [long], overwrite=True)
    assert [Path(row["path"]).name for row in tables(run / "predicted")[0]] == ["long.wav"]
    assert "predicted also contains events.csv of an earlier call" in capsys.readouterr().out
    assert (run / "predicted/events.csv").read_text() == "of an earlier call with events\n"
    clock = types.SimpleNamespace(now=lambda: datetime.datetime(2030, 1, 2, 3, 4, 5))
    monkeypatch.setattr(output, "datetime", types.SimpleNamespace(datetime=clock))
    (run / "predicted_2030-01-02_03-04-05").mkdir()
    assert choose_folder(None, run / "predicted", TABLES, overwrite=False).name == "predicted_2030-01-02_03-04-05_2"


def test_label_tracks_and_selection_tables(workdir, folder, tmp_path):
    """A row a window that has a tag; read back as their programs read them: by tabs, without quotes."""
    (tmp_path / "more").mkdir()
    shutil.copy(folder / "long.wav", tmp_path / "more")
    out = tmp_path / "out"
    predict.run(workdir, [str(folder), str(tmp_path / "more")], out=out, formats=["raven", "audacity", "csv"])
    names = ['a, "b".WAV', "constant.wav", "long.wav", "long.wav_2", "short.wav", "silent.wav"]
    assert sorted(path.name for path in (out / "audacity").iterdir()) == [f"{name}.txt" for name in names]
    assert sorted(path.name.removesuffix(".Table.1.selections.txt") for path in (out / "raven").iterdir()) == names
    windows = [row for row in tables(out)[1] if row["path"] == str(folder / "long.wav") and row["tag"]]
    lines = (out / "audacity/long.wav.txt").read_text().splitlines()
    assert len(lines) == len(windows) == 4
    for line, row in zip(lines, windows, strict=True):
        start, end, label = line.split("\t")
        assert (float(start), float(end)) == pytest.approx((float(row["start_s"]), float(row["end_s"])), abs=1e-3)
        assert label == f"{row['tag']} {float(row['probability_1']):.2f}"
    header, *lines = (out / "raven/long.wav.Table.1.selections.txt").read_text().splitlines()
    rows = [dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines]
    assert [(row["Tag"], row["Selection"]) for row in rows] == [
        (row["tag"], str(n)) for n, row in enumerate(windows, 1)
    ]
    assert {(row["Channel"], row["Low Freq (Hz)"], row["High Freq (Hz)"]) for row in rows} == {("1", "0.0", "2000.0")}
    assert (out / "audacity/silent.wav.txt").read_text() == ""
    assert not list(out.glob(".labels-*"))


def test_a_run_that_is_not_to_be_believed_names_no_tags(workdir, folder, tmp_path, capsys):
    """Its labels have nothing to do with what it names, which no temperature mends."""
    run = Path(shutil.copytree(workdir, tmp_path / "run"))
    for path in run.glob("fold_*/predictions.npz"):
        with np.load(path) as saved:
            arrays = dict(saved)
        np.savez(path, **arrays | {"labels": np.argsort(arrays["logits"], axis=1)[:, 0]})
    predict.run(run, [str(folder)], out=tmp_path / "out", threshold=0.9, formats=["audacity"])
    printed = capsys.readouterr().out
    warning = "warning: every tag is named uncertain, since the probabilities are not reliable: no better than guessing"
    assert warning in printed
    assert "; temperature 10.000 is at the limit of its range\n" in printed
    recordings, windows, whole = tables(tmp_path / "out")
    assert {row["tag"] for row in (*recordings, *windows)} == {"uncertain", ""}
    assert whole["doubt"].startswith("no better than guessing: accuracy 0.000 (")
    row = by_name(recordings, folder)["short.wav"]
    assert row["tag_1"] in random_runs.CLASSES
    assert f" s  uncertain ({row['tag_1']} " in printed
    assert (
        (tmp_path / "out/audacity/short.wav.txt")
        .read_text()
        .endswith(f"\tuncertain: {row['tag_1']} {float(row['probability_1']):.2f}\n")
    )


def test_nothing_to_tag(workdir, folder, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(
        UserError, match=r"None of the recordings could be read \(2\).*\n.*empty\.wav +not read: empty file"
    ):
        predict.run(workdir, [str(folder / "empty.wav"), str(folder / "text.wav")], out=out)
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


def test_label_tracks_of_long_names_and_names_with_spaces(workdir, folder, tmp_path):
    long = tmp_path / ("ж" * 120 + ".wav")  # 244 bytes, nearly the most that a file system allows
    spaced = tmp_path / "my  sound.wav"
    for path in (long, spaced):
        shutil.copy(folder / "long.wav", path)
    predict.run(workdir, [str(long), str(spaced)], out=tmp_path / "out", formats=["raven"])
    tracks = {path.name: path.read_text() for path in (tmp_path / "out/raven").iterdir()}
    assert sorted(tracks) == ["my  sound.wav.Table.1.selections.txt", "ж" * 100 + ".Table.1.selections.txt"]
    assert str(spaced) in tracks["my  sound.wav.Table.1.selections.txt"]
