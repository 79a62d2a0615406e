"""Any number of labels a clip: from the table through folds, fingerprint, records and index to the examples."""

import csv
import dataclasses
import shutil
from collections import Counter

import numpy as np
import pytest
import soundfile
import tensorflow_datasets as tfds

from audiotag_jax.datasets import index as indexes
from audiotag_jax.datasets.folds import multi_label_folds
from audiotag_jax.datasets.prepare import prepare_clips, prepare_spectrograms
from audiotag_jax.datasets.prepared import read_metadata
from audiotag_jax.datasets.reader import read_split
from audiotag_jax.datasets.sources import open_source
from audiotag_jax.datasets.without_recordings import has_clips
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.settings.sections import ClipSettings
from audiotag_jax.settings.settings import parse_settings
from audiotag_jax.spectral.features import SpectralSettings
from configs import log_db

RATE_HZ = 4000
CLIPS = ClipSettings(sample_rate_hz=RATE_HZ, duration_s=0.1)
IMAGES = SpectralSettings(("log_db",), RATE_HZ, num_frames=8, num_bins=8, window_samples=64, fft_samples=64)
ROWS = [
    ("a.wav", "dog; rain", 0, "train"),
    ("b.wav", "rain;cat;rain", 1, "train"),
    ("c.wav", "", 0, "train"),
    ("d.wav", "cat", 1, "train"),
    ("e.wav", " ; ", "", "test"),
    ("f.wav", "dog;cat", "", "test"),
]
LABELS = {"a.wav": [0, 1, 1], "b.wav": [1, 0, 1], "c.wav": [0, 0, 0], "d.wav": [1, 0, 0]}
TEST_LABELS = {"e.wav": [-1, -1, -1], "f.wav": [1, 1, 0]}


def write_table(folder, rows=ROWS, columns=("path", "label", "fold", "split")):
    folder.mkdir(exist_ok=True)
    with (folder / "clips.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def open_table(folder, **options):
    return open_source("folder", folder, table="clips.csv", label_separator=";", **options)


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "sounds"
    write_table(folder)
    for seed, (name, *_) in enumerate(ROWS):
        soundfile.write(folder / name, 0.1 * np.random.default_rng(seed).standard_normal(800), RATE_HZ)
    return open_table(folder)


def test_a_table_is_divided_at_the_separator(source):
    assert source.task == "multi_label" and source.classes == ("cat", "dog", "rain")
    assert [clip.labels for clip in source.clips_of("train")] == [("dog", "rain"), ("cat", "rain"), (), ("cat",)]
    assert [clip.labels for clip in source.clips_of("test")] == [None, ("cat", "dog")]
    assert source.notes == ("1 training clip has no label, such as 'c.wav': it counts as none of the classes",)


def test_without_a_separator_a_list_is_a_label(tmp_path):
    write_table(tmp_path / "sounds", [("a", "dog;rain", 0), ("b", "cat", 1)], ("path", "label", "fold"))
    source = open_source("folder", tmp_path / "sounds", table="clips.csv")
    assert source.task == "single_label" and source.classes == ("cat", "dog;rain")


def test_unknown_labels_and_unicode_forms(tmp_path):
    rows = [("a", "dog;caf\u00e9", 0, "train"), ("b", "cafe\u0301;dog", 1, "train"), ("c", "cow", "", "test")]
    write_table(tmp_path / "sounds", rows[:2])
    source = open_table(tmp_path / "sounds")
    assert source.classes == ("caf\u00e9", "dog") and "2 Unicode forms" in source.notes[0]
    write_table(tmp_path / "sounds", rows)
    with pytest.raises(UserError, match="'c' has label 'cow', which is not among the 2 classes"):
        open_table(tmp_path / "sounds")


def test_the_separator_needs_a_table():
    config = log_db.get_config("folder")
    config.dataset.label_separator = ","
    with pytest.raises(UserError, match="set config.dataset.table"):
        parse_settings(config)
    config.dataset.table, config.dataset.label_separator = "clips.csv", "and"
    with pytest.raises(UserError, match="config.dataset.label_separator is and; it must be such as , ; or"):
        parse_settings(config)


def test_labels_reach_the_examples_through_records_and_index(source, tmp_path):
    clips = prepare_clips(source, CLIPS, tmp_path / "prepared")
    images = prepare_spectrograms(clips, IMAGES, tmp_path / "prepared")
    for directory in (clips, images):
        assert read_metadata(directory)["task"] == "multi_label"
        for split, expected in (("train", LABELS), ("test", TEST_LABELS)):
            examples = read_split(directory, split)
            assert dict(zip(examples.ids.tolist(), examples.labels.tolist(), strict=True)) == expected
            records = tfds.builder_from_directory(directory).as_data_source(split)
            assert {each["id"].decode(): each["labels"].tolist() for each in records} == expected
        before = indexes.read_index(directory)
        assert before.schema.equals(indexes.MULTI_LABEL_SCHEMA)
        (directory / indexes.FILE_NAME).unlink()
        assert indexes.read_index(directory)["labels"].equals(before["labels"])  # from the records
    assert has_clips(clips, source)
    changed = dataclasses.replace(source.clips[0], labels=("dog",))
    assert not has_clips(clips, dataclasses.replace(source, clips=(changed, *source.clips[1:])))


def test_another_label_is_another_dataset_whose_sounds_are_copied(source, tmp_path, capsys):
    first = prepare_clips(source, CLIPS, tmp_path / "prepared")
    write_table(tmp_path / "sounds", [(*ROWS[0][:1], "dog", *ROWS[0][2:]), *ROWS[1:]])
    second = prepare_clips(open_table(tmp_path / "sounds"), CLIPS, tmp_path / "prepared")
    assert first != second and "copying 6 of 6 clips" in capsys.readouterr().out
    single = tmp_path / "sounds" / "single"
    single.mkdir()
    for name, *_ in ROWS[:4]:
        shutil.copy(tmp_path / "sounds" / name, single)
    write_table(
        single, [(name, "x" if fold else "y", fold) for name, _, fold, _ in ROWS[:4]], ("path", "label", "fold")
    )
    third = prepare_clips(open_source("folder", single, table="clips.csv"), CLIPS, tmp_path / "prepared")
    assert read_split(third, "train").labels.tolist() == [1, 0, 1, 0] and "task" not in read_metadata(third)


def test_folds_spread_every_label():
    rng = np.random.default_rng(0)
    names = [f"l{k}" for k in range(12)]
    rates = np.geomspace(0.01, 0.4, 12)
    labels = [[name for name, rate in zip(names, rates, strict=True) if rng.random() < rate] for _ in range(1500)]
    ids = [f"clip{i}" for i in range(1500)]
    folds = multi_label_folds(ids, labels, 5, seed=0)
    sizes = Counter(folds.values())
    assert max(sizes.values()) - min(sizes.values()) <= 0.05 * 300
    counts = Counter((label, folds[clip]) for clip, own in zip(ids, labels, strict=True) for label in own)
    for name in names:
        own = [counts[name, fold] for fold in range(5)]
        assert max(own) - min(own) <= max(2, 0.1 * np.mean(own))
    order = rng.permutation(1500)
    assert folds == multi_label_folds([ids[i] for i in order], [labels[i] for i in order], 5, seed=0)
    assert folds != multi_label_folds(ids, labels, 5, seed=1)


def test_folds_keep_recordings_together():
    rng = np.random.default_rng(1)
    labels = [["a"] if rng.random() < 0.3 else ["a", "b"] for _ in range(90)]
    ids, recordings = [f"c{i}" for i in range(90)], [f"r{i // 3}" for i in range(90)]
    folds = multi_label_folds(ids, labels, 3, 0, recordings)
    assert all(len({folds[f"c{3 * r + j}"] for j in range(3)}) == 1 for r in range(30))
    assert sorted(Counter(folds.values()).values()) == [30, 30, 30]
    with pytest.raises(UserError, match="Too few recordings, 30, for 31 folds"):
        multi_label_folds(ids, labels, 31, 0, recordings)
