"""Folds are balanced in every stratum, and a function of ids and seed alone."""

import csv
import os
import random
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from audiotag_jax.datasets.folds import stratified_folds
from audiotag_jax.runtime.errors import UserError

SHARED = Path(os.environ.get("AUDIOTAG_SHARED", Path(__file__).parents[3] / "shared"))


def spread(counts, num_folds):
    return max(counts[fold] for fold in range(num_folds)) - min(counts[fold] for fold in range(num_folds))


def check_balance(ids, labels, verified, num_folds, seed):
    folds = stratified_folds(ids, labels, verified, num_folds, seed)
    assert set(folds) == set(ids)
    assert set(folds.values()) == set(range(num_folds))
    assert spread(Counter(folds.values()), num_folds) <= 1
    strata = defaultdict(Counter)
    for clip_id, label, is_verified in zip(ids, labels, verified, strict=True):
        strata[label, is_verified][folds[clip_id]] += 1
    assert all(spread(counts, num_folds) <= 1 for counts in strata.values())
    return folds


def random_clips(seed):
    rng = random.Random(seed)
    ids = [f"{n:04d}.wav" for n in range(rng.randrange(20, 200))]
    return ids, [rng.choice("abcdefg") for _ in ids], [rng.random() < 0.4 for _ in ids]


@pytest.mark.parametrize("seed", range(10))
def test_balance_on_random_tables(seed):
    check_balance(*random_clips(seed), num_folds=2 + seed % 5, seed=seed)


def test_folds_depend_on_the_seed_but_not_on_the_order():
    ids, labels, verified = random_clips(0)
    folds = stratified_folds(ids, labels, verified, 5, 0)
    order = list(range(len(ids)))
    random.Random(1).shuffle(order)
    pick = [[column[n] for n in order] for column in (ids, labels, verified)]
    assert stratified_folds(*pick, 5, 0) == folds
    assert stratified_folds(ids, labels, verified, 5, 1) != folds


def test_folds_do_not_follow_the_ids():
    """Neighbours in the table (often of one recording, or one label) must not be assigned in table order."""
    ids = [f"{n:04d}.wav" for n in range(1000)]
    folds = stratified_folds(ids, ["a"] * 1000, [True] * 1000, 5, 0)
    steps = Counter((folds[b] - folds[a]) % 5 for a, b in zip(ids, ids[1:], strict=False))
    assert all(140 < steps[step] < 260 for step in range(5))


def test_folds_equal_the_published_ones():
    """Published results depend on them: SHA-256 of seed and id sorts a stratum, on every machine and version."""
    folds = stratified_folds([f"{n}.wav" for n in range(6)], list("aaabbb"), [True] * 6, 3, 0)
    assert folds == {"2.wav": 0, "0.wav": 1, "1.wav": 2, "4.wav": 0, "5.wav": 1, "3.wav": 2}


def test_clips_of_a_recording_get_the_same_fold():
    ids = [f"{n:03d}.wav" for n in range(120)]
    recordings = [f"take {n // 3}" if n < 90 else "" for n in range(120)]
    labels = ["ab"[n // 3 % 2] for n in range(120)]
    folds = stratified_folds(ids, labels, [True] * 120, 5, 0, recordings)
    assert all(folds[ids[n]] == folds[ids[n - n % 3]] for n in range(90))
    counts = Counter((folds[clip_id], label) for clip_id, label in zip(ids, labels, strict=True))
    assert sorted(counts.values()) == [12] * 10  # though recordings have one clip or three
    order = list(reversed(range(120)))
    assert folds == stratified_folds(
        [ids[n] for n in order], [labels[n] for n in order], [True] * 120, 5, 0, [recordings[n] for n in order]
    )
    alone = stratified_folds(ids, labels, [True] * 120, 5, 0)
    assert alone == stratified_folds(ids, labels, [True] * 120, 5, 0, [""] * 120)
    with pytest.raises(UserError, match="Too few recordings, 2, for 3 folds"):
        stratified_folds(["a", "b", "c"], ["x"] * 3, [True] * 3, 3, 0, ["r", "r", ""])


def test_too_few_folds_or_clips_raise():
    with pytest.raises(UserError, match="single fold"):
        stratified_folds(["a", "b"], ["x", "y"], [True, True], 1, 0)
    with pytest.raises(UserError, match="Too few training clips, 2,"):
        stratified_folds(["a", "b"], ["x", "y"], [True, True], 3, 0)


def test_balance_on_fsdkaggle2018():
    table = SHARED / "data" / "fsdkaggle2018" / "train.csv"
    if not table.is_file():
        pytest.skip(f"no {table}; set AUDIOTAG_SHARED")
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    ids, labels = [row["fname"] for row in rows], [row["label"] for row in rows]
    folds = check_balance(ids, labels, [row["manually_verified"] == "1" for row in rows], 5, 0)
    assert sorted(Counter(folds.values()).values()) == [1894, 1894, 1895, 1895, 1895]
