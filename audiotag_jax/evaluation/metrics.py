"""Scores of saved logits, one value a clip, so that every mean has an interval."""

from collections.abc import Callable

import numpy as np
import scipy.stats


def label_ranks(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Place `[B]`, from 0, of each label among logits `[B, K]`; of equal logits the smaller class comes first.

    Raises ValueError if a logit is not finite or a label is not one of the K classes.
    """
    if not np.isfinite(logits).all():
        raise ValueError("The logits hold NaN or Inf: the training diverged.")
    if len(labels) and not (labels.min() >= 0 and labels.max() < logits.shape[1]):
        raise ValueError(f"Labels must be 0 to {logits.shape[1] - 1}.")
    order = np.argsort(-logits, axis=1, kind="stable")
    return np.argmax(order == labels[:, None], axis=1)


def top3_errors(ranks: np.ndarray) -> np.ndarray:
    """1.0 where the label is not among the first three, else 0.0."""
    return (ranks >= 3).astype(np.float64)


def hits(ranks: np.ndarray) -> np.ndarray:
    """1.0 where the label comes first, else 0.0; their mean is the accuracy."""
    return (ranks == 0).astype(np.float64)


def average_precisions_at_3(ranks: np.ndarray) -> np.ndarray:
    """1, 1/2, 1/3 where the label is first, second, third, else 0; their mean is the challenge's MAP@3.

    With a single true label the average precision at 3 is the precision at the label's own place
    (Fonseca et al., "General-purpose tagging of Freesound audio", DCASE 2018).
    """
    return np.where(ranks < 3, 1.0 / (ranks + 1), 0.0)


SCORES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "top3_error": top3_errors,
    "accuracy": hits,
    "map_at_3": average_precisions_at_3,
}


def interval_95(values: np.ndarray, num_resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean of per-clip values `[B]`.

    Wilson's for values that are all 0 or 1 (it stays honest at 0 and 1, where resampling gives no width), else the
    percentile bootstrap over clips, seeded (Efron & Tibshirani, 1993).
    """
    if np.isin(values, (0.0, 1.0)).all():
        test = scipy.stats.binomtest(int(values.sum()), len(values))
        interval = test.proportion_ci(method="wilson")
        return float(interval.low), float(interval.high)
    rng = np.random.default_rng(seed)
    means = [rng.choice(values, len(values)).mean() for _ in range(num_resamples)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def score_table(logits: np.ndarray, labels: np.ndarray) -> dict:
    """`{"num_clips": B, "top3_error": {"value", "low", "high"}, "accuracy": …, "map_at_3": …}`; None without clips."""
    table: dict = {"num_clips": len(labels)}
    ranks = label_ranks(logits, labels)
    for name, score in SCORES.items():
        values = score(ranks)
        low, high = interval_95(values) if len(values) else (None, None)
        table[name] = {"value": float(values.mean()) if len(values) else None, "low": low, "high": high}
    return table
