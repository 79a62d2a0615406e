"""The index beside the records: what it contains, when it is made again, and that labels are read from nowhere else."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from test_builders import CLIPS, IMAGES, break_recording, data_source, make_source

from audiotag_jax.datasets import index as indexes
from audiotag_jax.datasets import prepared as prepared_datasets
from audiotag_jax.datasets import reader
from audiotag_jax.datasets.contents import content_hashes
from audiotag_jax.datasets.index import (
    FILE_NAME,
    SCHEMA,
    copies_across_folds,
    read_index,
    recordings_of_clips,
    test_order,
)
from audiotag_jax.datasets.prepare import prepare_clips, prepare_spectrograms, warn_of_copies
from audiotag_jax.datasets.reader import read_split
from audiotag_jax.datasets.records import ClipSource

in_test_order = test_order  # which pytest would take for a test
del test_order
FIELDS = ("label", "fold", "verified")


@pytest.fixture
def source(tmp_path):
    source = make_source(tmp_path / "sounds")
    clips = [
        dataclasses.replace(clip, recording=f"walk {n % 3}" if n % 2 else "") for n, clip in enumerate(source.clips)
    ]
    return ClipSource(source.name, source.classes, tuple(clips))


@pytest.fixture
def prepared(tmp_path):
    return tmp_path / "prepared"


@pytest.fixture
def both(source, prepared):
    clips_dir = prepare_clips(source, CLIPS, prepared, 2)
    return clips_dir, prepare_spectrograms(clips_dir, IMAGES, prepared)


def rows_by_id(directory):
    return {row["id"]: row for row in read_index(directory).to_pylist()}


def as_of_an_earlier_release(*directories):
    for directory in directories:
        (directory / FILE_NAME).unlink()


def test_the_index_equals_the_table_the_records_and_the_files(source, both, prepared):
    by_id, hashes = {clip.id: clip for clip in source.clips}, content_hashes([c.path for c in source.clips], prepared)
    for directory in both:
        assert pq.read_schema(directory / FILE_NAME).equals(SCHEMA)
        rows = rows_by_id(directory)
        assert rows.keys() == by_id.keys()
        for clip_id, row in rows.items():
            clip = by_id[clip_id]
            assert (row["split"], row["recording"], row["place"]) == (clip.split, clip.recording, -1)
            assert row["sound"] == hashes[clip.path] != ""
        for split in ("train", "test"):
            records = list(data_source(directory, split))
            own = [row for row in read_index(directory).to_pylist() if row["split"] == split]
            assert [row["id"] for row in own] == [record["id"].decode() for record in records]
            for name in FIELDS:
                assert [row[name] for row in own] == [record[name] for record in records]
    assert recordings_of_clips(both[1]) == {clip.id: clip.recording for clip in source.clips if clip.recording}


def test_recordings_that_could_not_be_read_are_not_in_it(source, prepared):
    break_recording(Path(next(clip.path for clip in source.clips if clip.id == "train_02.wav")), "missing")
    break_recording(Path(next(clip.path for clip in source.clips if clip.id == "test_01.wav")), "missing")
    directory = prepare_clips(source, CLIPS, prepared, 2)
    assert read_split(directory, "train").ids.tolist() == [f"train_{n:02d}.wav" for n in range(8) if n != 2]
    assert rows_by_id(directory)["test_01.wav"]["sound"] == ""  # it is silence


def test_labels_are_read_without_records(both, monkeypatch):
    for module in (indexes, prepared_datasets, reader):
        monkeypatch.setattr(module, "record_source", None)
    for directory in both:
        examples = read_split(directory, "train")
        assert examples.labels.tolist() == [n % 3 for n in range(8)]
        assert (examples.labels.dtype, examples.folds.dtype, examples.verified.dtype) == (np.int64, np.int64, bool)
        assert in_test_order(directory) == ("test_00.wav", "test_01.wav", "test_02.wav")


@pytest.mark.parametrize("damage", ["absent", "empty", "cut", "another dataset's", "another kind"])
def test_datasets_without_a_usable_index_get_one_from_their_records(both, capsys, damage):
    directory, whole = both[1], {}
    for split in ("train", "test"):
        whole[split] = read_split(directory, split)
    path = directory / FILE_NAME
    data = path.read_bytes()
    if damage == "absent":
        path.unlink()
    elif damage == "another dataset's":
        indexes.write_index(directory, read_index(directory).slice(1))
    elif damage == "another kind":
        indexes.write_index(directory, read_index(directory).drop_columns(["sound"]))
    else:
        path.write_bytes(data[:-30] if damage == "cut" else b"")
    capsys.readouterr()
    for split, expected in whole.items():
        examples = read_split(directory, split)
        for name in ("ids", "labels", "folds", "verified"):
            np.testing.assert_array_equal(getattr(examples, name), getattr(expected, name))
        np.testing.assert_array_equal(examples.in_memory().inputs, expected.in_memory().inputs)
    assert capsys.readouterr().out.count("has no index") == 1
    assert len(pq.read_table(path)) == 11


def test_an_index_that_cannot_be_saved_is_kept_in_the_process(both, monkeypatch, capsys):
    as_of_an_earlier_release(both[1])

    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(indexes, "write_index", refuse)
    monkeypatch.setattr(indexes, "_process_cache", {})
    assert read_index(both[1]) is read_index(both[1])
    assert not (both[1] / FILE_NAME).exists() and capsys.readouterr().out.count("has no index") == 1


def test_preparing_again_completes_the_index_of_an_earlier_release(source, both, prepared, monkeypatch, capsys):
    """From the table and the cached hashes: neither records nor recordings are read."""
    expected = [read_index(directory) for directory in both]
    as_of_an_earlier_release(*both)
    monkeypatch.setattr(indexes, "record_source", None)
    capsys.readouterr()
    assert prepare_clips(source, CLIPS, prepared, 2) == both[0]
    assert prepare_spectrograms(both[0], IMAGES, prepared) == both[1]
    assert [read_index(directory).equals(index) for directory, index in zip(both, expected, strict=True)] == [
        True,
        True,
    ]
    assert capsys.readouterr().out == ""


def test_recordings_and_submission_of_a_changed_table_are_taken_over(source, both, prepared):
    """They are not part of the dataset's name."""
    clips = [dataclasses.replace(clip, recording="all one") for clip in source.clips]
    changed, order = ClipSource("own", source.classes, tuple(clips)), ("test_02.wav", "test_00.wav", "test_01.wav")
    assert prepare_clips(changed, CLIPS, prepared, 2, submission=order) == both[0]
    assert prepare_spectrograms(both[0], IMAGES, prepared) == both[1]
    for directory in both:
        assert set(recordings_of_clips(directory).values()) == {"all one"}
        assert in_test_order(directory) == order
    before = [(directory / FILE_NAME).stat().st_mtime_ns for directory in both]
    prepare_clips(changed, CLIPS, prepared, 2, submission=order)
    prepare_spectrograms(both[0], IMAGES, prepared)
    assert [(directory / FILE_NAME).stat().st_mtime_ns for directory in both] == before


def test_odd_folder_names_are_no_columns(source, tmp_path):
    """PyArrow takes `fold=3` in a path for a column."""
    directory = prepare_clips(source, CLIPS, tmp_path / "fold=3" / "a [b]", 2)
    assert set(read_index(directory)["fold"].to_pylist()) == {-1, 0, 1}
    moved = shutil.copytree(directory, tmp_path / "label=x" / "1.0.0")
    assert read_index(moved).equals(read_index(directory))


def test_identical_files_in_different_folds_are_named(source, prepared, capsys):
    train = [clip for clip in source.clips if clip.split == "train"]
    first = train[0]
    other = next(clip for clip in train if clip.fold != first.fold)
    same = next(clip for clip in train[1:] if clip.fold == first.fold)
    assert copies_across_folds(prepare_clips(source, CLIPS, prepared)) == []
    Path(same.path).write_bytes(Path(first.path).read_bytes())  # in one fold: harmless
    assert copies_across_folds(prepare_clips(source, CLIPS, prepared)) == []
    Path(other.path).write_bytes(Path(first.path).read_bytes())
    directory = prepare_clips(source, CLIPS, prepared)
    assert [set(group) for group in copies_across_folds(directory)] == [{first.id, same.id, other.id}]
    capsys.readouterr()
    warn_of_copies(directory)
    warn_of_copies(directory)
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith("warning: identical sounds in different folds or splits, 1 in all, such as ")
