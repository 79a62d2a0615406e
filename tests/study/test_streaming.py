"""Logits in files: the same figures as from arrays, with those of one variant in memory at a time."""

import dataclasses
import functools
import tracemalloc

import numpy as np
import pytest

from audiotag_jax.study import mistakes, several_page
from audiotag_jax.study.ensembles import entries
from audiotag_jax.study.results import Clips, Results, VariantLogits
from audiotag_jax.study.rows import NO_ROWS, Rows, joined, num_folds, number, only, side_by_side, take

NUM_CLIPS, NUM_CLASSES, NUM_SEEDS = 600, 50, 2
SIZE = NUM_SEEDS * NUM_CLIPS * NUM_CLASSES * 8  # bytes of the probabilities of a variant


def read(variant: int, seed: int) -> np.ndarray:
    return np.random.default_rng((variant, seed)).standard_normal((NUM_CLIPS, NUM_CLASSES), np.float32)


def results_of(num_variants: int, several: bool) -> Results:
    rng = np.random.default_rng(0)
    labels = rng.integers(NUM_CLASSES, size=NUM_CLIPS)
    if several:
        labels = (rng.random((NUM_CLIPS, NUM_CLASSES)) < 0.05).astype(np.int8)
    ids = np.array([f"{n:04d}" for n in range(NUM_CLIPS)])
    clips = Clips(ids, labels, np.ones(NUM_CLIPS, bool), np.arange(NUM_CLIPS) % 2)
    seeds = tuple(range(NUM_SEEDS))
    variants = tuple(
        VariantLogits(f"hires_{k}", seeds, [functools.partial(read, k, seed) for seed in seeds], None)
        for k in range(num_variants)
    )
    return Results(tuple(f"class {k}" for k in range(NUM_CLASSES)), clips, None, variants)


def in_memory(results: Results) -> Results:
    variants = [VariantLogits(each.variant, each.seeds, each.held_out, None) for each in results.variants]
    return dataclasses.replace(results, variants=tuple(variants))


def look(results: Results, several: bool) -> list:
    """What a report computes of all variants, as far as it is a matter of logits."""
    clips, rows = entries(results)
    given = mistakes.scored_predictions(results)
    module = several_page if several else mistakes
    found = [[(row.name, row.seeds) for row in rows], module.disputed_clips(given, 3)]
    found += [module.confident_mistakes(given, name, 3) for name in given.networks]
    given.keep([1, 5])
    found += [given.row(name, 5).tolist() for name in given.networks]
    if several:
        return [*found, *(float(row.logits.sum()) for row in rows), *(row.of(clips.folds == 1).logits for row in rows)]
    return [*found, *(row.ranks for row in rows), *(mistakes.confusion(given, name)[0] for name in given.networks)]


@pytest.mark.parametrize("several", [False, True])
def test_from_files_as_from_memory(several):
    stored = results_of(4, several)
    for ours, theirs in zip(look(stored, several), look(in_memory(stored), several), strict=True):
        np.testing.assert_array_equal(ours, theirs) if isinstance(ours, np.ndarray) else None
        assert isinstance(ours, np.ndarray) or ours == theirs


def peak_bytes(num_variants: int, several: bool) -> int:
    """Of the largest part of a report; what it returns is small."""
    results = results_of(num_variants, several)
    tracemalloc.start()
    try:
        entries(results)
        given = mistakes.scored_predictions(results)
        (several_page if several else mistakes).disputed_clips(given, 3)
        given.keep([1])
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("several", [False, True])
def test_memory_does_not_grow_with_the_number_of_variants(several):
    few, many = (peak_bytes(number_of, several) for number_of in (3, 12))
    assert few > 1.5 * SIZE
    assert many < few + 9 * SIZE / 10  # ranks and the like; all probabilities would be nine times the size more


def test_rows_by_clip():
    values = np.arange(12.0).reshape(4, 3)
    first = Rows(number(["a", "b", "c", "d"]), lambda: values)
    second = {"e": np.ones(3), "f": np.zeros(3)}  # in memory
    np.testing.assert_array_equal(take(first, ["d", "a"]), values[[3, 0]])
    np.testing.assert_array_equal(first["b"], values[1])
    both = joined(first, second)
    assert [*both] == ["a", "b", "c", "d", "e", "f"] and "e" in both and "g" not in both
    np.testing.assert_array_equal(take(both, ["e", "c"]), [np.ones(3), values[2]])
    chosen = only(both, {"c", "f"}.__contains__, as_test=True)
    assert chosen.keys() == {"c", "f"} and num_folds(chosen) == 1
    np.testing.assert_array_equal(take(chosen, ["f", "c"]), [[np.zeros(3)], [values[2]]])
    folds = side_by_side(chosen, Rows({"c": 1, "f": 0}, lambda: np.full((2, 2, 3), 7.0), 2))
    assert num_folds(folds) == 3 and num_folds(NO_ROWS) == num_folds({}) == 0
    np.testing.assert_array_equal(take(folds, ["c"]), [[values[2], [7.0] * 3, [7.0] * 3]])
