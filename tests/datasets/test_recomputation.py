"""What is decoded and computed again: nothing after an upgrade, on another device, or when the table alone changes."""

import dataclasses
import importlib.metadata
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from test_builders import CLIPS, IMAGES, break_recording, data_source, datasets, make_source, write_sound

from audiotag_jax.audio import decode
from audiotag_jax.datasets import builders, images, waveforms
from audiotag_jax.datasets.contents import content_hashes
from audiotag_jax.datasets.folds import stratified_folds
from audiotag_jax.datasets.index import FILE_NAME
from audiotag_jax.datasets.names import _hash, hash_images
from audiotag_jax.datasets.prepare import prepare_clips, prepare_spectrograms
from audiotag_jax.datasets.prepared import read_metadata
from audiotag_jax.datasets.records import Clip, ClipSource
from audiotag_jax.runtime import environment
from audiotag_jax.runtime.files import write_json
from audiotag_jax.spectral.features import CHANNELS, SpectralSettings


@pytest.fixture
def source(tmp_path) -> ClipSource:
    return make_source(tmp_path / "sounds")


@pytest.fixture
def prepared(tmp_path) -> Path:
    return tmp_path / "prepared"


@pytest.fixture
def made(monkeypatch):
    """Counts what is decoded, by clip id, and what is computed, in images of a channel."""
    decoded, computed = [], []
    decode_clip, spectrograms = waveforms.decode_clip, images.compute_images

    def counted_clip(clip, settings):
        decoded.append(clip.id)
        return decode_clip(clip, settings)

    def counted_images(waveforms, settings):
        computed.extend(settings.channels * len(waveforms))
        return spectrograms(waveforms, settings)

    monkeypatch.setattr(waveforms, "decode_clip", counted_clip)
    monkeypatch.setattr(images, "compute_images", counted_images)

    def made() -> tuple[list, list]:
        found = sorted(decoded), sorted(computed)
        decoded.clear()
        computed.clear()
        return found

    return made


def prepare(source: ClipSource, prepared: Path, settings=IMAGES) -> tuple[Path, Path]:
    clips_dir = prepare_clips(source, CLIPS, prepared, 2)
    return clips_dir, prepare_spectrograms(clips_dir, settings, prepared)


def changed(source: ClipSource, **changes) -> ClipSource:
    """The source with other fields of its clip train_03.wav."""
    clips = [dataclasses.replace(c, **changes) if c.id == "train_03.wav" else c for c in source.clips]
    return ClipSource("own", source.classes, tuple(clips))


def refolded(source: ClipSource, seed: int) -> ClipSource:
    train = source.clips_of("train")
    columns = ([getattr(clip, name) for clip in train] for name in ("id", "label", "verified"))
    folds = stratified_folds(*columns, 2, seed)
    clips = [dataclasses.replace(clip, fold=folds.get(clip.id, -1)) for clip in source.clips]
    return ClipSource("own", source.classes, tuple(clips))


def as_bytes(directory: Path) -> dict[tuple[str, str], dict]:
    return {
        (split, record["id"].decode()): {
            name: value.tobytes() if isinstance(value, np.ndarray) else value for name, value in record.items()
        }
        for split in ("train", "test")
        for record in data_source(directory, split)
    }


def without_provenance(directory: Path) -> dict:
    return {name: value for name, value in read_metadata(directory).items() if name != "provenance"}


CHANGES = {
    "label": lambda source: changed(source, label="b"),
    "verified": lambda source: changed(source, verified=False),
    "fold": lambda source: changed(source, fold=0),
    "split": lambda source: changed(source, split="test", fold=-1),
    "name": lambda source: changed(source, id="a_new_name.wav"),
    "fold seed": lambda source: refolded(source, 5),
    "classes": lambda source: ClipSource("own", ("c", "a", "b", "d"), source.clips),
    "removed": lambda source: ClipSource("own", source.classes, source.clips[:4] + source.clips[6:]),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_changed_table_recomputes_nothing(source, prepared, tmp_path, made, what):
    """The copied records are those that a preparation from nothing writes, to the last bit."""
    break_recording(Path(source.clips[5].path), "truncated")  # its note is copied, too
    first = prepare(source, prepared)
    assert len(made()[0]) == 12  # the truncated one twice
    other = CHANGES[what](source)
    second = prepare(other, prepared)
    assert set(second).isdisjoint(first) and made() == ([], [])
    anew = prepare(other, tmp_path / "anew")
    for directory, expected in zip(second, anew, strict=True):
        assert directory.parent.name == expected.parent.name
        assert as_bytes(directory) == as_bytes(expected)
        assert without_provenance(directory) == without_provenance(expected)
        assert (directory / FILE_NAME).read_bytes() == (expected / FILE_NAME).read_bytes()


def test_added_and_changed_sounds_alone_are_made(source, prepared, tmp_path, made, monkeypatch):
    """Old and new clips stand in one shard, in the order of the table."""
    monkeypatch.setattr(images, "SPECTROGRAM_BATCH", 2)
    prepare(source, prepared)
    made()
    new = [Clip(f"train_0{n}b.wav", str(tmp_path / f"sounds/{n}b.wav"), "a", 0, "train", True) for n in (0, 4, 7)]
    for n, clip in enumerate(new):
        write_sound(Path(clip.path), seed=100 + n)
    write_sound(Path(source.clips[-1].path), seed=200)
    other = ClipSource("own", source.classes, (*source.clips, *new))
    second, names = prepare(other, prepared), sorted([*(clip.id for clip in new), source.clips[-1].id])
    assert made() == (names, ["log_db"] * 4)
    for directory, expected in zip(second, prepare(other, tmp_path / "anew"), strict=True):
        assert as_bytes(directory) == as_bytes(expected)


def test_a_moved_folder_recomputes_nothing(source, prepared, tmp_path, made):
    first = prepare(source, prepared)
    made()
    (tmp_path / "sounds").rename(tmp_path / "elsewhere")
    clips = [dataclasses.replace(clip, path=str(tmp_path / "elsewhere" / clip.id)) for clip in source.clips]
    assert prepare(ClipSource("own", source.classes, tuple(clips)), prepared) == first
    assert made() == ([], [])


def upgrade(monkeypatch):
    """Every library has another version, and the device is of another kind."""
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "99.0")
    monkeypatch.setattr(environment, "_device", lambda: "gpu NVIDIA H100")
    monkeypatch.setattr(environment, "_code", lambda: "fedcba9876543210")


def test_an_upgrade_and_another_device_recompute_nothing(source, prepared, made, monkeypatch):
    first = prepare(source, prepared)
    before = read_metadata(first[1])["provenance"]
    made()
    with monkeypatch.context() as patched:
        upgrade(patched)
        assert prepare(source, prepared) == first
        assert made() == ([], [])
        second = prepare(changed(source, label="b"), prepared)
    assert made() == ([], [])
    assert read_metadata(second[1])["provenance"] == before  # of what was copied, not of the copying
    [made_by] = before["images"]
    assert made_by["device"] == "cpu" and made_by["jax"] == importlib.metadata.version("jax") != "99.0"
    assert {"code", "machine", "python", "numpy", "audiotag_jax"} <= made_by.keys()


def test_provenance_names_every_environment(source, prepared, monkeypatch):
    prepare(source, prepared)
    write_sound(Path(source.clips[-1].path), seed=200)
    with monkeypatch.context() as patched:
        upgrade(patched)
        second = prepare(source, prepared)
    assert [each["jax"] == "99.0" for each in read_metadata(second[0])["provenance"]["clips"]] == [True, False]
    assert [each["device"] for each in read_metadata(second[1])["provenance"]["images"]] == ["gpu NVIDIA H100", "cpu"]


@pytest.mark.parametrize("what", ["decoder", "channel", "duration", "range"])
def test_what_was_prepared_otherwise_is_not_copied(source, prepared, made, monkeypatch, what):
    first = prepare(source, prepared)
    made()
    clips, settings = CLIPS, IMAGES
    if what == "decoder":
        monkeypatch.setattr(decode, "VERSION", decode.VERSION + 1)
    elif what == "channel":
        monkeypatch.setitem(CHANNELS, "log_db", CHANNELS["log_db"]._replace(version=CHANNELS["log_db"].version + 1))
    elif what == "duration":
        clips = dataclasses.replace(CLIPS, duration_s=0.11)
    else:
        settings = dataclasses.replace(IMAGES, range_db=70.0)
    clips_dir = prepare_clips(source, clips, prepared, 2)
    assert prepare_spectrograms(clips_dir, settings, prepared) != first[1]
    assert [len(each) for each in made()] == [11 if what in ("decoder", "duration") else 0, 11]


def test_channels_are_copied_from_any_combination(source, prepared, tmp_path, made):
    """After a change of the table as well."""
    prepare(source, prepared, dataclasses.replace(IMAGES, channels=("mel_db", "log_db")))
    made()
    other, settings = changed(source, label="b"), dataclasses.replace(IMAGES, channels=("log_db", "linear_db"))
    second = prepare(other, prepared, settings)
    assert made() == ([], ["linear_db"] * 11)
    assert as_bytes(second[1]) == as_bytes(prepare(other, tmp_path / "anew", settings)[1])


def test_images_of_a_newer_version_are_not_copied_from(source, prepared, made):
    clips, images = prepare(source, prepared)
    metadata = read_metadata(images)
    write_json(images / "metadata.json", metadata | {"spectral": metadata["spectral"] | {"newer_field": 1}})
    made()
    prepare(source, prepared, dataclasses.replace(IMAGES, channels=("mel_db", "log_db")))
    assert made() == ([], ["log_db"] * 11 + ["mel_db"] * 11)


def test_what_could_not_be_read_is_tried_again(source, prepared, made):
    """Whether a file can be read may depend on what is installed."""
    for name in ("train_02.wav", "test_01.wav"):
        break_recording(Path(next(clip.path for clip in source.clips if clip.id == name)), "garbage")
    prepare(source, prepared)
    made()
    second = prepare(changed(source, label="b"), prepared)
    assert made() == (2 * ["test_01.wav"] + 2 * ["train_02.wav"], ["log_db"])  # the test clip is silence
    assert [each["id"] for each in read_metadata(second[0])["problems"]] == ["train_02.wav", "test_01.wav"]


def test_datasets_of_an_earlier_release_are_copied_from_once_they_are_known(source, prepared, made):
    """They have neither index nor versions; preparing them, which makes nothing, gives them an index."""
    for directory in prepare(source, prepared):
        (directory / FILE_NAME).unlink()
    made()
    prepare(source, prepared)
    prepare(changed(source, label="b"), prepared)
    assert made() == ([], [])


def test_names_do_not_depend_on_where_they_are_computed(source, tmp_path, monkeypatch):
    first = prepare(source, tmp_path / "one")
    upgrade(monkeypatch)
    copies = tmp_path / "copies"
    shutil.copytree(tmp_path / "sounds", copies)
    moved = ClipSource(
        "x", source.classes, tuple(dataclasses.replace(c, path=str(copies / c.id)) for c in source.clips)
    )
    monkeypatch.chdir(copies)
    second = prepare(moved, tmp_path / "two")
    assert [each.parent.name for each in first] == [each.parent.name for each in second]
    assert (
        len(datasets(tmp_path / "two")) == 2
        and len(set(content_hashes([c.path for c in moved.clips], copies).values())) == 11
    )


def test_shards_can_be_written_by_any_process(source, prepared, tmp_path, monkeypatch):
    """What writes a shard is a function of its pickled arguments: decoding, copying and computing."""
    monkeypatch.setattr(builders, "SHARD_CLIPS", 3)
    expected = prepare(source, tmp_path / "here")
    for builder in (builders.AudiotagClips, builders.AudiotagSpectrograms):

        def pickled(self, manager, listed=builder._shard_iterators_per_split):
            shards = listed(self, manager)
            return {split: [pickle.loads(pickle.dumps(each)) for each in shards[split]] for split in shards}

        monkeypatch.setattr(builder, "_shard_iterators_per_split", pickled)
    for directory, alike in zip(prepare(source, prepared), expected, strict=True):
        assert as_bytes(directory) == as_bytes(alike)
    other = prepare(changed(source, label="b"), prepared)
    assert as_bytes(other[1]).keys() == as_bytes(expected[1]).keys()


NEWER = {"smoothing_cells": 1.0, "per_hz": True, "upper_q": 1.0, "upper_from_hz": 500.0}


def test_a_newer_field_at_its_default_leaves_the_names_of_images_as_they_were():
    settings = SpectralSettings(("log_db",), sample_rate_hz=16000)
    older = {name: value for name, value in dataclasses.asdict(settings).items() if name not in NEWER}
    assert hash_images("clips", settings, [1]) == _hash(["clips", older, [1]])
    for name, value in NEWER.items():
        other = dataclasses.replace(settings, **{name: value})
        assert hash_images("clips", other, [1]) != hash_images("clips", settings, [1])
