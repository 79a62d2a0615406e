"""FSDKaggle2019 and FSD50K: counts, classes and splits of tables of their size, made here, and errors in them."""

import csv
from collections import Counter

import numpy as np
import pytest

from audiotag_jax.datasets.fsdkaggle2019 import submission_order
from audiotag_jax.datasets.sources import MULTI_LABEL_SOURCES, open_source
from audiotag_jax.evaluation.submission import check_submission
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.training.evaluate import write_submission

CLASSES_2019 = sorted(f"Class_{k:02d}_(of_eighty)" for k in range(80))
CLASSES_50K = [f"Class_{k:03d}" for k in range(200)]


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def draw_labels(rng, classes, count):
    """Mostly one label, rarely more; every class occurs."""
    first = rng.permutation(np.arange(count) % len(classes))
    more = rng.integers(0, len(classes), count)
    return [
        ",".join(dict.fromkeys([classes[a], classes[b]] if n % 6 == 0 else [classes[a]]))
        for n, (a, b) in enumerate(zip(first, more, strict=True))
    ]


@pytest.fixture(scope="module")
def zenodo(tmp_path_factory):
    """The tables of Zenodo's release of FSDKaggle2019 at their size, with other contents."""
    root, rng = tmp_path_factory.mktemp("2019"), np.random.default_rng(0)
    for name in ("train_curated", "train_noisy", "test"):
        (root / f"FSDKaggle2019.audio_{name}").mkdir()
    meta = root / "FSDKaggle2019.meta"
    labels = draw_labels(rng, CLASSES_2019, 4970)
    rows = [(f"c{n:07d}.wav", own, n, "CC0") for n, own in enumerate(labels)]
    write(meta / "train_curated_post_competition.csv", [("fname", "labels", "freesound_id", "license"), *rows])
    labels = draw_labels(rng, CLASSES_2019, 19815)
    rows = [(f"n{n:07d}.wav", own, f"https://video/{n // 2}", "CC BY") for n, own in enumerate(labels)]
    write(meta / "train_noisy_post_competition.csv", [("fname", "labels", "flickr_video_URL", "license"), *rows])
    labels = draw_labels(rng, CLASSES_2019, 4481)
    rows = [(f"t{n:07d}.wav", own, "Public" if n < 1120 else "Private", n, "CC0") for n, own in enumerate(labels)]
    write(meta / "test_post_competition.csv", [("fname", "labels", "usage", "freesound_id", "license"), *rows])
    return root


def test_fsdkaggle2019_of_zenodo(zenodo):
    source = open_source("fsdkaggle2019", zenodo)
    train, test = source.clips_of("train"), source.clips_of("test")
    assert source.task == "multi_label" and source.classes == tuple(CLASSES_2019)
    assert "fsdkaggle2019" in MULTI_LABEL_SOURCES
    assert Counter(clip.verified for clip in train) == {True: 4970, False: 19815} and len(test) == 4481
    assert all(clip.labels for clip in source.clips)
    assert train[0].path == str(zenodo / "FSDKaggle2019.audio_train_curated" / "c0000000.wav")
    assert test[0].path == str(zenodo / "FSDKaggle2019.audio_test" / "t0000000.wav")
    sizes = Counter(clip.fold for clip in train)
    assert sorted(sizes) == [0, 1, 2, 3, 4] and max(sizes.values()) - min(sizes.values()) < 0.02 * len(train)
    counts = Counter((label, clip.fold) for clip in train for label in clip.labels)
    for label in CLASSES_2019:
        own = [counts[label, fold] for fold in range(5)]
        assert max(own) - min(own) <= 0.05 * sum(own)
    fold_of = {}
    for clip in train:
        if clip.recording:
            assert fold_of.setdefault(clip.recording, clip.fold) == clip.fold
    assert len(fold_of) == 9908


def test_fsdkaggle2019_of_kaggle_and_its_submission(zenodo, tmp_path):
    for name in ("train_curated", "train_noisy"):
        text = (zenodo / "FSDKaggle2019.meta" / f"{name}_post_competition.csv").read_text()
        rows = [row[:2] for row in csv.reader(text.splitlines())]
        wrong = [("7752cc8a.wav", CLASSES_2019[0])] if name == "train_curated" else []  # its label, by the release
        write(tmp_path / f"{name}.csv", [*rows[: 1000 - len(wrong)], *wrong])
    order = [f"t{n:07d}.wav" for n in (5, 3, 4)]
    write(tmp_path / "sample_submission.csv", [("fname", *CLASSES_2019), *((clip, *[0] * 80) for clip in order)])
    source = open_source("fsdkaggle2019", tmp_path)
    assert len(source.clips_of("train")) == 1998 and [clip.labels for clip in source.clips_of("test")] == [None] * 3
    first, second = source.clips_of("train")[:2]
    assert second.path == str(tmp_path / "train_curated" / "c0000000.wav")
    assert (first.id, first.verified, second.verified) == ("7752cc8a.wav", False, True)
    assert submission_order(tmp_path) == tuple(order)
    predictions = {
        "ids": np.array(sorted(order)),
        "labels": np.full((3, 80), -1, np.int8),
        "logits": np.random.default_rng(0).normal(size=(3, 80)),
    }
    write_submission(tmp_path / "submission.csv", predictions, source.classes, order)
    check_submission(tmp_path / "submission.csv", CLASSES_2019, order, has_several_labels=True)
    with (tmp_path / "submission.csv").open(newline="") as file:
        theirs = next(csv.reader((tmp_path / "sample_submission.csv").open(newline="")))
        assert next(csv.reader(file)) == theirs
    write(tmp_path / "sample_submission.csv", [("fname", *CLASSES_2019[1:], "Other"), (order[0], *[0] * 80)])
    with pytest.raises(UserError, match=r"differ in 'Class_00_\(of_eighty\)'"):
        open_source("fsdkaggle2019", tmp_path)


@pytest.fixture(scope="module")
def fsd50k(tmp_path_factory):
    """The tables of FSD50K at their size, with other contents."""
    root, rng = tmp_path_factory.mktemp("50k"), np.random.default_rng(0)
    tables = root / "FSD50K.ground_truth"
    write(tables / "vocabulary.csv", [(k, name, f"/m/{k}") for k, name in enumerate(CLASSES_50K)])
    labels = draw_labels(rng, CLASSES_50K, 40966)
    rows = [(1000 + n, own, "/m/0", "train" if n < 36796 else "val") for n, own in enumerate(labels)]
    write(tables / "dev.csv", [("fname", "labels", "mids", "split"), *rows])
    labels = draw_labels(rng, CLASSES_50K, 10231)
    write(
        tables / "eval.csv", [("fname", "labels", "mids"), *((90000 + n, own, "/m/0") for n, own in enumerate(labels))]
    )
    return root


def test_fsd50k(fsd50k):
    source = open_source("fsd50k", fsd50k)
    train, test = source.clips_of("train"), source.clips_of("test")
    assert source.task == "multi_label" and source.classes == tuple(CLASSES_50K)
    assert "fsd50k" in MULTI_LABEL_SOURCES
    assert Counter(clip.fold for clip in train) == {0: 36796, 1: 4170} and len(test) == 10231
    assert source.fold_names == ("train", "val")
    assert train[0].path == str(fsd50k / "FSD50K.dev_audio" / "1000.wav")
    assert test[0].path == str(fsd50k / "FSD50K.eval_audio" / "100000.wav")  # the first by id


def test_what_is_missing_or_wrong_is_one_error(tmp_path):
    with pytest.raises(UserError, match="FSDKaggle2019 is missing: .*\nGet it from https://doi.org"):
        open_source("fsdkaggle2019", tmp_path)
    with pytest.raises(UserError, match="FSD50K is missing: there is no .*dev.csv.\nGet it from https://doi.org"):
        open_source("fsd50k", tmp_path)
    tables = tmp_path / "FSD50K.ground_truth"
    write(tables / "vocabulary.csv", [(0, "a", "/m/a"), (1, "b", "/m/b")])
    write(tables / "eval.csv", [("fname", "labels"), (3, "a,b")])
    write(tables / "dev.csv", [("fname", "labels", "split"), (1, "a", "train"), (2, "b", "validation")])
    with pytest.raises(UserError, match="clip '2' has split 'validation'; it is train or val"):
        open_source("fsd50k", tmp_path)
    write(tables / "dev.csv", [("fname", "labels", "split"), (1, "a", "train"), (2, "c", "val")])
    with pytest.raises(UserError, match="clip '2' has label 'c', which is not among the 2 classes"):
        open_source("fsd50k", tmp_path)
    write(tables / "vocabulary.csv", [(0, "a", "/m/a"), (1, "a", "/m/b")])
    write(tables / "dev.csv", [("fname", "labels", "split"), (1, "a", "train"), (2, "a", "val")])
    with pytest.raises(UserError, match="class a is listed more than once"):
        open_source("fsd50k", tmp_path)
    write(tables / "vocabulary.csv", [("a", "/m/a")])
    with pytest.raises(UserError, match="rows of three values are needed"):
        open_source("fsd50k", tmp_path)
