"""Paired comparisons of two classifiers on clips with any number of labels: a bootstrap and a test by swapping.

Mean average precision is no mean over clips, so that nothing can be paired clip by clip: the score itself is computed
again for every resample, and for every exchange of predictions, of whole recordings.
"""

from typing import NamedTuple

import numpy as np
import scipy.stats

from audiotag_jax.evaluation.multilabel import by_columns, label_precisions, mean_over_classes, ranking_scores, scores

NUM_SWAPS, FEWEST_SWAPS = 1000, 500
_BUDGET = 2_500_000_000  # swaps times clips times classes; beyond it there are fewer swaps, not under 500


class Comparison(NamedTuple):
    """A difference, p of the bootstrap that it is 0, and the standard error: numbers, or `[K]` of scores by class."""

    value: np.ndarray
    p: np.ndarray
    standard_error: np.ndarray


def bootstrap_difference(first: np.ndarray, second: np.ndarray, value: np.ndarray) -> Comparison:
    """Compares scores `[R]` or `[R, K]` of the same resamples; `value` is the difference, first - second, of all clips.

    p: (1 + resamples whose difference lies as far from the one seen as that from 0) / (1 + resamples), as in
    `intervals.bootstrap_means`. Resamples in which a score is not defined count as far.
    """
    drawn = first - second
    near = np.abs(drawn - value) < np.abs(value) - 1e-12
    p = (1 + np.sum(~near, axis=0)) / (1 + len(drawn))
    known = np.isfinite(drawn)
    centred = np.where(known, drawn, 0.0) - np.where(known, drawn, 0.0).sum(0) / np.maximum(known.sum(0), 1)
    error = np.sqrt(np.where(known, centred**2, 0.0).sum(0) / np.maximum(known.sum(0) - 1, 1))
    return Comparison(value, np.where(np.isfinite(value), p, np.nan), error)


def swap_test(
    first: np.ndarray, second: np.ndarray, truth: np.ndarray, groups: np.ndarray, *, seed: int = 0, num_swaps: int = 0
) -> dict[str, np.ndarray]:
    """Returns two-sided p of "the predictions are exchangeable", by the names of `scores`: numbers, of classes `[K]`.

    `first`, `second` are logits `[n, K]`, `truth` `[n, K]` bool, `groups` `[n]` the recordings, from 0. Of random
    recordings the predictions are swapped; p is (1 + swaps with a difference as large as the one seen) / (1 + swaps).
    Logits are compared by their ranks within the class (over all classes for micro AP), so that two classifiers that
    only differ in the scale of their logits are equal. NaN where a score is not defined.
    """
    seen_first, seen_second = (scores(each, truth, np.ones((1, len(truth)))) for each in (first, second))
    seen = {name: seen_first[name][0] - seen_second[name][0] for name in seen_first}
    number = num_swaps or int(np.clip(_BUDGET // max(1, truth.size), FEWEST_SWAPS, NUM_SWAPS))
    swapped = np.random.default_rng(seed).integers(0, 2, (number, groups.max() + 1))[:, groups]
    counts = by_columns(np.concatenate([np.hstack([1 - swapped, swapped]), np.hstack([swapped, 1 - swapped])]))

    def differences(ranks: np.ndarray, labels: np.ndarray, clips: np.ndarray | None = None) -> list[np.ndarray]:
        """Returns average precision and ROC AUC `[swaps]`, first less second, of ranks of both in turn."""
        return [each[:number] - each[number:] for each in ranking_scores(ranks, labels, counts, clips)]

    ranks, labels = _ranks_by_class(first, second), np.concatenate([truth, truth])
    by_class = [differences(ranks[:, k], labels[:, k]) for k in range(truth.shape[1])]
    precision, auc = (np.stack([each[i] for each in by_class], axis=1) for i in (0, 1))
    ranks = np.concatenate([scipy.stats.rankdata(first), scipy.stats.rankdata(second)])
    micro, _ = differences(ranks, labels.ravel(), np.repeat(np.arange(len(labels)), truth.shape[1]))
    own = (label_precisions(first, truth) - label_precisions(second, truth)).sum(axis=1)
    sums = (1 - 2 * swapped) @ own / max(1, truth.sum())
    null = {
        "map": mean_over_classes(precision),
        "lwlrap": sums,
        "micro_ap": micro,
        "macro_auc": mean_over_classes(auc),
        "average_precision": precision,
        "roc_auc": auc,
    }
    return {name: _share_as_far(null[name], seen[name]) for name in seen}


def _ranks_by_class(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.concatenate([scipy.stats.rankdata(first, axis=0), scipy.stats.rankdata(second, axis=0)])


def _share_as_far(null: np.ndarray, seen: np.ndarray) -> np.ndarray:
    as_far = np.sum(np.abs(null) >= np.abs(seen) - 1e-12, axis=0)
    return np.where(np.isfinite(seen), (1 + as_far) / (1 + len(null)), np.nan)
