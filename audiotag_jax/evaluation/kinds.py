"""Kinds of sound: classes grouped by their descriptors, and tests of whether a difference depends on the kind."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

# Fixed in benchmarks/PROTOCOL.md. A class is percussive where less than this share of its energy is harmonic, else
# tonal where its spectrum is less flat than this within an octave, else noisy. White noise has -2.5 dB.
PERCUSSIVE_BELOW, TONAL_BELOW_DB = 0.4, -7.0
KINDS = ("percussive", "noisy", "tonal")


class Interaction(NamedTuple):
    """How a difference grows with a property of the class: its slope, Pearson's correlation, and their p value."""

    slope: float
    correlation: float
    p: float
    num_classes: int


def kind_of(harmonic_share: float, flatness_db: float) -> str:
    """Returns the kind of a class, "percussive", "tonal" or "noisy", from its clips' mean descriptors."""
    if harmonic_share < PERCUSSIVE_BELOW:
        return "percussive"
    return "tonal" if flatness_db < TONAL_BELOW_DB else "noisy"


def class_means(values: np.ndarray, labels: np.ndarray) -> dict[int, float]:
    """Returns the mean over the clips of each class of `values` [n], by class in `labels` [n]."""
    return {int(label): float(values[labels == label].mean()) for label in np.unique(labels)}


def interaction(
    properties: Sequence[Mapping[int, float]],
    differences: Sequence[Mapping[int, float]],
    *,
    num_permutations: int = 10_000,
    seed: int = 0,
) -> Interaction:
    """Tests whether the classes' differences depend on a property of them, in one or more data sets.

    Each data set gives the property and the difference of each of its classes, by class. Both are taken relative to
    their means over the classes of the data set, so that nothing between data sets counts. p, two-sided: (1 +
    permutations of the properties among the classes of each data set with a covariance as far from 0) / (1 + all).
    Classes are exchanged and not clips: the claim is on kinds of sound, of which the classes are the sample.
    """
    x = [_centred([one[label] for label in sorted(one)]) for one in properties]
    y = [_centred([one[label] for label in sorted(one)]) for one in differences]
    if any(sorted(first) != sorted(second) for first, second in zip(properties, differences, strict=True)):
        raise ValueError("properties and differences name different classes")
    squares = sum(float(each @ each) for each in x), sum(float(each @ each) for each in y)
    num = sum(map(len, x))
    if min(squares) < 1e-18:
        return Interaction(0.0, 0.0, 1.0, num)
    seen = sum(float(a @ b) for a, b in zip(x, y, strict=True))
    rng, permuted = np.random.default_rng(seed), np.zeros(num_permutations)
    for a, b in zip(x, y, strict=True):
        permuted += rng.permuted(np.tile(a, (num_permutations, 1)), axis=1) @ b
    p = (1 + np.count_nonzero(np.abs(permuted) >= abs(seen) - 1e-12)) / (1 + num_permutations)
    return Interaction(seen / squares[0], seen / float(np.sqrt(squares[0] * squares[1])), float(p), num)


def _centred(values: Sequence[float]) -> np.ndarray:
    return np.asarray(values, np.float64) - np.mean(values)
