"""The two datasets: bad recordings, atomic preparation, fingerprints, and reading with plain TFDS."""

import dataclasses
import errno
import gc
import os
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiotag_jax.audio import ffmpeg
from audiotag_jax.audio.crop import crop_loudest
from audiotag_jax.audio.decode import AudioError, load_audio
from audiotag_jax.audio.stream import Block
from audiotag_jax.datasets import builders, images, waveforms
from audiotag_jax.datasets.prepare import prepare_clips, prepare_spectrograms
from audiotag_jax.datasets.prepared import read_metadata
from audiotag_jax.datasets.reader import read_split
from audiotag_jax.datasets.records import KEPT, LEFT_OUT, SILENCE, Clip, ClipSource
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.threads import ordered_map
from audiotag_jax.settings.sections import ClipSettings
from audiotag_jax.spectral.features import SpectralSettings, spectrograms

ROOT = Path(__file__).parents[2]
RATE_HZ = 4000
CLIPS = ClipSettings(sample_rate_hz=RATE_HZ, duration_s=0.1)
IMAGES = SpectralSettings(("log_db",), RATE_HZ, num_frames=8, num_bins=8, window_samples=64, fft_samples=64)


def write_sound(path: Path, seed: int = 0) -> None:
    noise = 0.1 * np.random.default_rng(seed).standard_normal(RATE_HZ // 4)
    soundfile.write(path, noise, RATE_HZ)


def list_source(folder: Path, num_train: int = 8, num_test: int = 3) -> ClipSource:
    """Lists `train_00.wav`, … of labels a, b, c in two folds, and `test_00.wav`, …, the first of them unlabelled."""
    clips = []
    for n in range(num_train):
        clips.append(Clip(f"train_{n:02d}.wav", "", "abc"[n % 3], n % 2, "train", n % 4 > 0))
    for n in range(num_test):
        clips.append(Clip(f"test_{n:02d}.wav", "", "abc"[n % 3] if n else None, -1, "test", n > 0))
    return ClipSource("own", ("a", "b", "c"), tuple(dataclasses.replace(c, path=str(folder / c.id)) for c in clips))


def make_source(folder: Path, num_train: int = 8, num_test: int = 3) -> ClipSource:
    """Returns the same source with its recordings written, each a different noise."""
    source = list_source(folder, num_train, num_test)
    folder.mkdir()
    for n, clip in enumerate(source.clips):
        write_sound(Path(clip.path), seed=n)
    return source


@pytest.fixture
def source(tmp_path) -> ClipSource:
    return make_source(tmp_path / "sounds")


@pytest.fixture
def prepared(tmp_path) -> Path:
    return tmp_path / "prepared"


def ids(directory: Path, split: str = "train") -> list[str]:
    return [record["id"].decode() for record in data_source(directory, split)]


def data_source(directory: Path, split: str):
    import tensorflow_datasets as tfds

    return tfds.builder_from_directory(directory).as_data_source(split)


def datasets(prepared: Path) -> list[Path]:
    """Returns the folders of complete datasets."""
    return sorted(path.parent for path in prepared.glob("*/*/*/dataset_info.json"))


def contents(directory: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in directory.iterdir()}


def test_clips_match_the_table_and_the_recordings(source, prepared):
    directory = prepare_clips(source, CLIPS, prepared, 2)
    for split in ("train", "test"):
        clips = sorted((clip for clip in source.clips if clip.split == split), key=lambda clip: clip.id)
        records = list(data_source(directory, split))
        assert len(records) == len(clips)
        for clip, record in zip(clips, records, strict=True):
            samples, _ = load_audio(clip.path, RATE_HZ)
            np.testing.assert_array_equal(record["waveform"], crop_loudest(samples, 400, RATE_HZ // 2))
            assert record["id"].decode() == clip.id
            assert record["label"] == (-1 if clip.label is None else "abc".index(clip.label))
            assert (record["fold"], record["verified"]) == (clip.fold, clip.verified)
    metadata = read_metadata(directory)
    assert (metadata["classes"], metadata["problems"]) == (["a", "b", "c"], [])


def test_spectrograms_contain_every_clip_in_order(source, prepared):
    clips_dir = prepare_clips(source, CLIPS, prepared, 2)
    directory = prepare_spectrograms(clips_dir, IMAGES, prepared)
    for split, number in (("train", 8), ("test", 3)):
        examples = read_split(directory, split).in_memory()
        waveforms = np.stack([record["waveform"] for record in data_source(clips_dir, split)])
        assert examples.ids.tolist() == ids(clips_dir, split)
        assert examples.inputs.shape == (number, 8, 8, 1)
        assert examples.inputs.dtype == np.float16
        np.testing.assert_allclose(examples.inputs, spectrograms(waveforms, IMAGES), atol=1e-3)
        records = list(data_source(clips_dir, split))
        for name, values in (("label", examples.labels), ("fold", examples.folds), ("verified", examples.verified)):
            assert values.tolist() == [record[name] for record in records]


MIX = dataclasses.replace(IMAGES, channels=("mel_db", "hires_q1", "log_db"))


@pytest.mark.parametrize("stored", [("hires_q1",), ("mel_db", "log_db"), MIX.channels])
def test_a_mix_of_stored_channels_equals_a_computed_mix(source, prepared, tmp_path, stored, monkeypatch):
    clips_dir = prepare_clips(source, CLIPS, prepared, 2)
    alone = prepare_spectrograms(clips_dir, MIX, tmp_path / "alone")
    for channel in stored:
        prepare_spectrograms(clips_dir, dataclasses.replace(MIX, channels=(channel,)), prepared)
    computed = []

    def recorded(waveforms, settings):
        computed.append(settings.channels)
        return spectrograms(waveforms, settings)

    monkeypatch.setattr(images, "spectrograms", recorded)
    directory = prepare_spectrograms(clips_dir, MIX, prepared)
    rest = tuple(channel for channel in MIX.channels if channel not in stored)
    assert computed == ([rest, rest] if rest else [])  # the two splits
    for split in ("train", "test"):
        examples, expected = (read_split(each, split).in_memory() for each in (directory, alone))
        assert examples.ids.tolist() == expected.ids.tolist()
        assert len(np.unique(expected.inputs)) > 10
        np.testing.assert_array_equal(examples.inputs, expected.inputs)
    assert read_metadata(directory) == read_metadata(alone)


def test_a_source_without_test_clips_has_no_test_split(tmp_path, prepared):
    source = make_source(tmp_path / "sounds", num_test=0)
    directory = prepare_spectrograms(prepare_clips(source, CLIPS, prepared, 1), IMAGES, prepared)
    assert read_split(directory, "test") is None
    assert len(read_split(directory, "train")) == 8


def break_recording(path: Path, how: str) -> None:
    if how == "missing":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "garbage":
        path.write_bytes(bytes(range(256)) * 4)
    elif how == "no frames":
        soundfile.write(path, np.zeros(0), RATE_HZ)
    elif how == "nan":
        soundfile.write(path, np.full(500, np.nan), RATE_HZ, "FLOAT")
    elif how == "silent":
        soundfile.write(path, np.zeros(500), RATE_HZ)
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[:-600])


@pytest.mark.parametrize("how", ["missing", "empty", "garbage", "no frames", "nan"])
def test_an_unreadable_recording_is_left_out_or_silence(source, prepared, how):
    """A training clip is left out, a test clip is kept as silence, and both are listed."""
    for name in ("train_02.wav", "test_01.wav"):
        break_recording(Path(next(clip.path for clip in source.clips if clip.id == name)), how)
    directory = prepare_clips(source, CLIPS, prepared, 2)
    problems = read_metadata(directory)["problems"]
    assert [(each["split"], each["id"], each["outcome"]) for each in problems] == [
        ("train", "train_02.wav", LEFT_OUT),
        ("test", "test_01.wav", SILENCE),
    ]
    assert all(each["reason"] for each in problems)
    assert ids(directory) == [f"train_{n:02d}.wav" for n in range(8) if n != 2]
    assert ids(directory, "test") == [f"test_{n:02d}.wav" for n in range(3)]
    waveforms = [record["waveform"] for record in data_source(directory, "test")]
    assert [bool(waveform.any()) for waveform in waveforms] == [True, False, True]
    images = prepare_spectrograms(directory, IMAGES, prepared)
    assert read_metadata(images)["problems"] == problems
    assert not read_split(images, "test").in_memory().inputs[1].any()


@pytest.mark.parametrize(("how", "reason"), [("silent", "silent"), ("truncated", "truncated")])
def test_a_silent_or_truncated_recording_is_kept_and_listed(source, prepared, how, reason):
    for name in ("train_02.wav", "test_01.wav"):
        break_recording(Path(next(clip.path for clip in source.clips if clip.id == name)), how)
    directory = prepare_clips(source, CLIPS, prepared, 2)
    problems = read_metadata(directory)["problems"]
    assert [(each["id"], each["outcome"]) for each in problems] == [("train_02.wav", KEPT), ("test_01.wav", KEPT)]
    assert all(reason in each["reason"] for each in problems)
    assert (len(ids(directory)), len(ids(directory, "test"))) == (8, 3)
    examples = read_split(prepare_spectrograms(directory, IMAGES, prepared), "train").in_memory()
    assert np.isfinite(examples.inputs).all()


def test_what_pyav_decodes_is_prepared_once_it_is_installed(source, prepared, tmp_path, monkeypatch):
    """And a dataset that was made with it is used where it is not installed."""
    path = tmp_path / "sounds/train_02.m4a"
    path.write_bytes(b"\0\0\0\x20ftypM4A " + bytes(99))
    clips = [dataclasses.replace(c, path=str(path)) if c.id == "train_02.wav" else c for c in source.clips]
    source = dataclasses.replace(source, clips=tuple(clips))
    samples = 0.1 * np.random.default_rng(5).standard_normal((1000, 1)).astype(np.float32)

    def decode(path):
        yield Block(samples, RATE_HZ, "aac")
        return ""

    monkeypatch.setattr(ffmpeg, "read_with_ffmpeg", decode)
    found = []
    for installed in (False, False, True, True, False):
        monkeypatch.setattr(ffmpeg, "is_installed", lambda installed=installed: installed)
        found.append(prepare_clips(source, CLIPS, prepared, 2))
    assert found[0] == found[1] != found[2] == found[3] == found[4]
    assert prepare_clips(source, CLIPS, prepared, 2, keeps=lambda clips_dir: clips_dir == found[0]) == found[0]
    assert ("train_02.wav" in ids(found[0]), "train_02.wav" in ids(found[2])) == (False, True)
    assert [each["outcome"] for each in read_metadata(found[0])["problems"]] == [LEFT_OUT]
    assert read_metadata(found[2])["problems"] == []


@pytest.mark.parametrize("name", ["train_02.wav", "test_01.wav"])
def test_a_transient_read_error_loses_no_clip(source, prepared, monkeypatch, name):
    load, failed = waveforms.load_clip, []

    def fail_once(path, *arguments):
        if Path(path).name == name and not failed:
            failed.append(path)
            raise AudioError("unreadable (Input/output error)")
        return load(path, *arguments)

    monkeypatch.setattr(waveforms, "load_clip", fail_once)
    directory = prepare_clips(source, CLIPS, prepared, 2)
    assert failed and read_metadata(directory)["problems"] == []
    assert all(record["waveform"].any() for split in ("train", "test") for record in data_source(directory, split))
    assert (len(ids(directory)), len(ids(directory, "test"))) == (8, 3)


@pytest.mark.parametrize("now", ["unreadable", "changed"])
def test_a_recording_that_was_read_before_is_not_left_out(source, prepared, monkeypatch, now):
    load, path = waveforms.load_clip, next(clip.path for clip in source.clips if clip.id == "train_02.wav")

    def change(opened, *arguments):
        if opened != path:
            return load(opened, *arguments)
        Path(path).unlink()
        if now == "changed":
            write_sound(Path(path), seed=99)
        raise AudioError("unreadable (Input/output error)")

    with monkeypatch.context() as patched:
        patched.setattr(waveforms, "load_clip", change)
        with pytest.raises(UserError, match=r"train_02.wav cannot be read any more, or was changed"):
            prepare_clips(source, CLIPS, prepared, 2)
    assert datasets(prepared) == []
    write_sound(Path(path), seed=99)
    assert len(ids(prepare_clips(source, CLIPS, prepared, 2))) == 8


def test_no_readable_training_recording_raises(source, prepared):
    for clip in source.clips:
        if clip.split == "train":
            break_recording(Path(clip.path), "garbage")
    with pytest.raises(UserError, match=r"None of the 8 training .*train_00\.wav.*\n.*config\.dataset\.path"):
        prepare_clips(source, CLIPS, prepared, 2)
    assert datasets(prepared) == []


def test_plain_tfds_reads_both_datasets(source, prepared, tmp_path):
    """In another folder, without this package, TensorFlow, or torch."""
    clips_dir = prepare_clips(source, CLIPS, prepared, 2)
    images_dir = prepare_spectrograms(clips_dir, IMAGES, prepared)
    script = tmp_path / "outsider.py"
    script.write_text(
        "import importlib.util, sys\n"
        "import tensorflow_datasets as tfds\n"
        "for directory in sys.argv[1:]:\n"
        "    record = tfds.builder_from_directory(directory).as_data_source('train')[0]\n"
        "    value = record['waveform'] if 'waveform' in record else record['image']\n"
        "    print(record['id'].decode(), record['label'], record['fold'], value.shape, value.dtype)\n"
        "print(importlib.util.find_spec('audiotag_jax'))\n"
        "print([name for name in ('tensorflow', 'torch', 'jax') if name in sys.modules])\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, str(script), str(clips_dir), str(images_dir)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "train_00.wav 0 0 (400,) float32",
        "train_00.wav 0 0 (8, 8, 1) float16",
        "None",
        "[]",
    ]


def test_an_unchanged_dataset_is_reused(source, prepared, capsys):
    clips_dir = prepare_clips(source, CLIPS, prepared, 2)
    images_dir = prepare_spectrograms(clips_dir, IMAGES, prepared)
    before = contents(clips_dir), contents(images_dir)
    assert "prepared 8 train clips, 3 test clips" in capsys.readouterr().out
    shuffled = ClipSource("own", source.classes, source.clips[::-1])
    assert prepare_clips(shuffled, CLIPS, prepared, 1) == clips_dir
    assert prepare_spectrograms(clips_dir, IMAGES, prepared) == images_dir
    assert (contents(clips_dir), contents(images_dir)) == before
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("what", ["label", "fold", "verified", "split", "classes", "bytes", "samples", "gone"])
def test_a_changed_source_is_another_dataset(source, prepared, what):
    first = prepare_clips(source, CLIPS, prepared, 2)
    clip = next(clip for clip in source.clips if clip.id == "train_03.wav")
    changes = {"label": {"label": "b"}, "fold": {"fold": 0}, "verified": {"verified": not clip.verified}}
    changes["split"] = {"split": "test", "fold": -1}
    path = Path(clip.path)
    if what == "bytes":  # another length, the same time
        times = path.stat().st_atime_ns, path.stat().st_mtime_ns
        soundfile.write(path, np.ones(300), RATE_HZ)
        os.utime(path, ns=times)
    elif what == "samples":  # another sound of the same length
        write_sound(path, seed=99)
        os.utime(path, ns=(0, 10**18))
    elif what == "gone":
        path.unlink()
    changed = dataclasses.replace(clip, **changes.get(what, {}))
    others = [each for each in source.clips if each is not clip]
    classes = ("a", "c", "b") if what == "classes" else source.classes
    second = prepare_clips(ClipSource("own", classes, (*others, changed)), CLIPS, prepared, 2)
    assert second != first
    assert len(datasets(prepared)) == 2
    assert prepare_spectrograms(first, IMAGES, prepared) != prepare_spectrograms(second, IMAGES, prepared)
    records = {record["id"].decode(): record for record in data_source(second, "train")}
    assert ("train_03.wav" in records) == (what not in ("split", "gone"))
    if what == "label":
        assert records["train_03.wav"]["label"] == 1
    if what == "classes":
        assert records["train_01.wav"]["label"] == 2


def test_copied_recordings_are_the_same_dataset(source, prepared, tmp_path):
    first = prepare_clips(source, CLIPS, prepared, 2)
    moved = []
    for clip in source.clips:
        path = tmp_path / "moved" / Path(clip.path).name
        path.parent.mkdir(exist_ok=True)
        if Path(clip.path).exists():
            Path(clip.path).rename(path)
            os.utime(path, ns=(0, 10**18))
        moved.append(dataclasses.replace(clip, path=str(path)))
    assert prepare_clips(ClipSource("own", source.classes, tuple(moved)), CLIPS, prepared, 2) == first
    assert len(datasets(prepared)) == 1


def test_changed_settings_are_another_dataset(source, prepared):
    clips_dir = prepare_clips(source, CLIPS, prepared, 2)
    assert prepare_clips(source, dataclasses.replace(CLIPS, duration_s=0.2), prepared, 2) != clips_dir
    assert prepare_clips(source, dataclasses.replace(CLIPS, sample_rate_hz=8000), prepared, 2) != clips_dir
    changes = [{}, {"range_db": 60.0}, {"num_frames": 9}, {"channels": ("mel_db",)}, {"channels": ("log_linear",)}]
    directories = {prepare_spectrograms(clips_dir, dataclasses.replace(IMAGES, **each), prepared) for each in changes}
    assert len(directories) == len(changes)


def test_an_incomplete_dataset_of_a_killed_run_is_removed(source, prepared):
    directory = prepare_clips(source, CLIPS, prepared, 2)
    whole = {path.name: path.read_bytes() for path in directory.iterdir()}
    abandoned = directory.parent / "incomplete.ABC123_1.0.0"
    directory.rename(abandoned)
    next(abandoned.glob("*train*")).write_bytes(b"half")
    directory.mkdir()  # and an incomplete folder of the right name
    (directory / "features.json").write_text("{}")
    assert prepare_clips(source, CLIPS, prepared, 2) == directory
    assert not abandoned.exists()
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == whole


def test_an_error_during_preparation_leaves_no_dataset(source, prepared, monkeypatch):
    decode = waveforms.decode_clip

    def fail(clip, settings):
        if clip.id == "train_05.wav":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return decode(clip, settings)

    with monkeypatch.context() as patched:
        patched.setattr(waveforms, "decode_clip", fail)
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            prepare_clips(source, CLIPS, prepared, 2)
    assert datasets(prepared) == []
    assert list(prepared.rglob("*.array_record*")) == []
    assert len(ids(prepare_clips(source, CLIPS, prepared, 2))) == 8


@pytest.mark.parametrize("unreadable", [(), (3, 4, 5), (0, 1, 2), (6, 7)], ids=["none", "second", "first", "last"])
def test_shards_keep_the_order_of_clips(source, prepared, monkeypatch, unreadable):
    """Three clips per shard; a shard without a readable clip is empty and no error."""
    monkeypatch.setattr(builders, "SHARD_CLIPS", 3)
    for n in unreadable:
        break_recording(Path(source.clips[3 + n].path), "empty")
    directory = prepare_clips(source, CLIPS, prepared, 2)
    assert len(list(directory.glob("*-train.array_record-0000?-of-00003"))) == 3
    left = [f"train_{n:02d}.wav" for n in range(8) if n not in unreadable]
    assert ids(directory) == left
    assert len(read_metadata(directory)["problems"]) == len(unreadable)
    assert read_split(prepare_spectrograms(directory, IMAGES, prepared), "train").ids.tolist() == left


PREPARING = """
import sys, time
from pathlib import Path

folder, name, *sys.path[:0] = sys.argv[1:]
import test_builders as own
from audiotag_jax.datasets import waveforms

decode = waveforms.decode_clip
waveforms.decode_clip = lambda clip, settings: (time.sleep(0.1), decode(clip, settings))[1]
(Path(folder) / f"ready.{name}").touch()
while len(list(Path(folder).glob("ready.*"))) < 2:
    time.sleep(0.01)
source = own.list_source(Path(folder) / "sounds")
print("clips:", len(own.ids(own.prepare_clips(source, own.CLIPS, Path(folder) / "prepared", 1))))
"""


def test_two_processes_prepare_once(source, prepared, tmp_path):
    """Both start at the same moment: one writes, the other waits and reads."""
    script = tmp_path / "preparing.py"
    script.write_text(PREPARING)
    commands = [[sys.executable, script, tmp_path, name, ROOT, ROOT / "tests" / "datasets"] for name in ("one", "two")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    printed = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert [text.splitlines()[-1] for text in printed] == ["clips: 8", "clips: 8"]
    assert sorted("prepared 8 train clips" in text for text in printed) == [False, True]
    assert len(datasets(prepared)) == 1


def test_memory_does_not_grow_with_the_clips(tmp_path, prepared, monkeypatch):
    """Only a bounded number of waveforms is in memory at once, whatever the number of clips."""
    source, alive, most = make_source(tmp_path / "sounds", num_train=90), set(), 0
    decode = waveforms.decode_clip

    def counted(clip, settings):
        nonlocal most
        waveform, problem = decode(clip, settings)
        alive.add(clip.id)
        weakref.finalize(waveform, alive.discard, clip.id)
        most = max(most, len(alive))
        return waveform, problem

    monkeypatch.setattr(waveforms, "decode_clip", counted)
    prepare_clips(source, CLIPS, prepared, 2)
    gc.collect()
    assert most <= 20
    assert not alive


def test_ordered_map_keeps_the_order_and_limits_pending_items():
    started, lock = [], threading.Lock()

    def work(item):
        with lock:
            started.append(item)
        return item * item

    results = ordered_map(work, range(100), 2)
    for n in range(100):
        assert next(results) == n * n
        assert len(started) <= n + 12
    with pytest.raises(StopIteration):
        next(results)


def test_ordered_map_raises_the_error_of_the_function():
    results = ordered_map(lambda item: 1 // item, [2, 1, 0, 1], 2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


@pytest.mark.parametrize(("version", "threads"), [((0, 11, 2), 1), ((0, 12, 0), 2)])
def test_one_thread_computes_where_two_would_deadlock(source, prepared, monkeypatch, version, threads):
    clips, met = prepare_clips(source, CLIPS, prepared), []
    both = threading.Barrier(2)

    def compute(waveforms, settings):
        try:
            both.wait(20 if threads == 2 else 0.3)
            met.append(True)
        except threading.BrokenBarrierError:
            met.append(False)
        return np.zeros((len(waveforms), 8, 8, 1), np.float16)

    monkeypatch.setattr(images, "compute_images", compute)
    monkeypatch.setattr(images, "SPECTROGRAM_BATCH", 2)
    monkeypatch.setattr("jax.__version_info__", version)
    prepare_spectrograms(clips, IMAGES, prepared)
    assert met == 6 * [threads == 2]
