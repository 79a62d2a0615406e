"""Scores of clips with any number of labels: average precision, ROC AUC and lwlrap, with intervals by recording.

Every score is a function of how often each clip counts: once, or as often as a bootstrap resample draws it.
"""

from collections.abc import Sequence

import numpy as np
import scipy.sparse

from audiotag_jax.evaluation.intervals import Z, recording_numbers
from audiotag_jax.evaluation.metrics import MULTI_LABEL_METRICS
from audiotag_jax.evaluation.predictions import Predictions, select
from audiotag_jax.evaluation.task import is_scored

METRICS = {each.name: each.label for each in MULTI_LABEL_METRICS}  # name in files: in reports
CLASS_METRICS = ("average_precision", "roc_auc")
NUM_RESAMPLES, FEWEST_RESAMPLES = 1000, 500
_BUDGET = 5_000_000_000  # resamples times clips times classes; beyond it there are fewer resamples, not under 500
_AT_ONCE = 8_000_000  # numbers in memory


def score_table(predictions: Predictions, classes: Sequence[str] = ()) -> dict:
    """Returns `{"num_clips", "num_recordings", METRIC: {"value", "low", "high"}, …}`; None where one is not defined.

    With `classes`, "classes" has by name `num_positive`, `average_precision` and `roc_auc`. Limits are the 2.5 and 97.5
    percentiles of up to 1,000 resamples of recordings; where all of these are equal, Wilson's for none of n recordings.
    """
    saved = select(predictions, np.flatnonzero(is_scored(predictions["labels"])))
    saved = select(saved, np.argsort(saved["ids"], kind="stable"))
    logits, truth = saved["logits"], saved["labels"] == 1
    groups = recording_numbers(saved["ids"].tolist(), dict(zip(saved["ids"], saved["recordings"], strict=True)))
    num_groups = len(np.unique(groups))
    table: dict = {"num_clips": len(truth), "num_recordings": num_groups}
    if not len(truth):
        return table | {name: dict.fromkeys(("value", "low", "high")) for name in METRICS}
    values = scores(logits, truth, np.ones((1, len(truth))))
    resampled = scores(logits, truth, resamples(groups, truth.size))

    def entry(value: np.ndarray, drawn: np.ndarray) -> dict:
        return interval_entry(float(value), drawn, num_groups)

    table |= {name: entry(values[name][0], resampled[name]) for name in METRICS}
    if classes:
        table["classes"] = {
            name: {
                "num_positive": int(truth[:, k].sum()),
                **{each: entry(values[each][0, k], resampled[each][:, k]) for each in CLASS_METRICS},
            }
            for k, name in enumerate(classes)
        }
    return table


def interval_entry(value: float, drawn: np.ndarray, num_groups: int, lowest: float = 0.0) -> dict[str, float | None]:
    """Returns `{"value", "low", "high"}` of a value in [lowest, 1] and its resamples; None where it is not defined."""
    limits = _limits(value, drawn, num_groups, lowest)
    named = zip(("value", "low", "high"), limits, strict=True)
    return {name: None if np.isnan(each) else each for name, each in named}


def scores(logits: np.ndarray, truth: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
    """Computes scores of n clips, clip i counted `counts[r, i]` times: `[R]` by names of METRICS, by class `[R, K]`.

    `logits` `[n, K]`, `truth` `[n, K]` bool, `counts` whole numbers. NaN where a score is not defined: without a
    positive clip, or, of ROC AUC, without a negative one. Means over classes leave those out. Raises ValueError if a
    logit is not finite.
    """
    if not np.isfinite(logits).all():
        raise ValueError("The logits contain NaN or Inf: the training diverged.")
    columns = by_columns(counts)
    by_class = [ranking_scores(logits[:, k], truth[:, k], columns) for k in range(logits.shape[1])]
    precision, auc = (np.stack([each[i] for each in by_class], axis=1) for i in (0, 1))
    clips = np.repeat(np.arange(len(logits)), logits.shape[1])
    micro, _ = ranking_scores(logits.ravel(), truth.ravel(), columns, clips)
    precisions, numbers = label_precisions(logits, truth).sum(axis=1), truth.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        lwlrap = (counts @ precisions) / (counts @ numbers)
    return {
        "map": mean_over_classes(precision),
        "lwlrap": lwlrap,
        "micro_ap": micro,
        "macro_auc": mean_over_classes(auc),
        "average_precision": precision,
        "roc_auc": auc,
    }


def guesses(truth: np.ndarray) -> dict[str, float]:
    """Returns what ranking at random gives on average, by the names of METRICS, of `truth` `[n, K]` bool.

    An average precision is then about the share of positive clips; a label's precision is the mean over its rank r of
    1 / r, of itself, plus (r - 1) / r times the share of labels among the other classes.
    """
    num_classes, numbers = truth.shape[1], truth.sum(axis=1)
    harmonic = float(np.sum(1 / np.arange(1, num_classes + 1)))
    others = (numbers - 1) / max(1, num_classes - 1)
    precision = (harmonic + others * (num_classes - harmonic)) / num_classes
    shares = truth.mean(axis=0)
    return {
        "map": float(shares[shares > 0].mean()) if truth.any() else 0.0,
        "lwlrap": float((precision * numbers).sum() / max(1, numbers.sum())),
        "micro_ap": float(truth.mean()),
        "macro_auc": 0.5,
    }


def label_precisions(logits: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Returns `[n, K]`: at labels of a clip, the share of labels among classes ranked as high or higher; 0 elsewhere.

    Their mean over all labels of all clips is lwlrap, label-weighted label-ranking average precision (Howard and Ellis,
    for FSDKaggle2019). Equal logits share the worse rank, as in scikit-learn.
    """
    order = np.argsort(-logits, axis=1, kind="stable")
    ordered = np.take_along_axis(logits, order, axis=1)
    hits = np.cumsum(np.take_along_axis(truth, order, axis=1), axis=1)
    last = np.empty(order.shape, int)  # of the classes with an equal logit
    place = np.full(len(logits), logits.shape[1] - 1)
    for k in reversed(range(logits.shape[1])):
        if k + 1 < logits.shape[1]:
            place = np.where(ordered[:, k] == ordered[:, k + 1], place, k)
        last[:, k] = place
    precisions = np.empty(order.shape)
    np.put_along_axis(precisions, order, np.take_along_axis(hits, last, axis=1) / (last + 1), axis=1)
    return np.where(truth, precisions, 0.0)


def by_columns(counts: np.ndarray) -> np.ndarray:
    """Returns counts `[R, n]` as `ranking_scores` takes them: `[n, R]` int32, a row a clip."""
    return np.ascontiguousarray(np.asarray(counts).T, dtype=np.int32)


def ranking_scores(
    values: np.ndarray, truth: np.ndarray, counts: np.ndarray, clips: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns average precision `[R]` (sum of precision times the step of recall) and ROC AUC `[R]` of n decisions.

    `counts` `[n, R]` int32, or `[m, R]` and the clip of each decision in `clips` `[n]`. Equal values are one threshold.
    """
    order = np.argsort(-values, kind="stable")
    ordered, rows = values[order], order if clips is None else clips[order]
    positive = np.flatnonzero(truth[order])
    precision, auc = np.full((2, counts.shape[1]), np.nan)
    if not len(positive):
        return precision, auc
    # Only thresholds with a positive decision count: what lies between two of them is summed at once.
    limits = np.flatnonzero(np.diff(ordered)) + 1
    limits = np.concatenate([[0], limits, [len(ordered)]])  # of thresholds
    of_threshold = np.unique(np.searchsorted(limits, positive, side="right") - 1)
    starts, ends = limits[of_threshold], limits[of_threshold + 1]
    edges = np.unique(np.concatenate([[0], starts, ends]))
    segment = np.searchsorted(edges, starts)
    places = np.searchsorted(edges, np.arange(len(ordered)), side="right") - 1
    totals = _sums(places, rows, len(counts))
    owns = _sums(np.searchsorted(starts, positive, "right") - 1, rows[positive], len(counts))
    batch = max(1, _AT_ONCE // (totals.shape[0] + len(starts)))
    for begin in range(0, counts.shape[1], batch):
        part = slice(begin, begin + batch)
        drawn = np.ascontiguousarray(counts[:, part])
        total, own = totals @ drawn, owns @ drawn
        hits, up_to = np.cumsum(own, axis=0, dtype=np.int64), np.cumsum(total, axis=0, dtype=np.int64)
        misses = up_to[segment] - hits
        before = misses - (total[segment] - own)
        num_hits, num_misses = hits[-1], up_to[-1] - hits[-1]
        with np.errstate(invalid="ignore", divide="ignore"):
            precision[part] = (own * (hits / np.maximum(up_to[segment], 1))).sum(axis=0) / num_hits
            auc[part] = 1 - (own * ((misses + before) / 2)).sum(axis=0) / num_hits / num_misses
    return precision, auc


def _sums(places: np.ndarray, clips: np.ndarray, num_clips: int) -> scipy.sparse.csr_matrix:
    """Returns the matrix that sums counts of clips by place; of each decision `[n]` its place, ascending, and clip."""
    ends = np.cumsum(np.bincount(places))
    ones = np.ones(len(places), np.int32)
    return scipy.sparse.csr_matrix((ones, clips, np.append(0, ends)), shape=(len(ends), num_clips))


def num_resamples(num_decisions: int) -> int:
    """Returns how many resamples scores of so many decisions (clips times classes) get."""
    return int(np.clip(_BUDGET // max(1, num_decisions), FEWEST_RESAMPLES, NUM_RESAMPLES))


def resamples(groups: np.ndarray, num_decisions: int, seed: int = 0, number: int = 0) -> np.ndarray:
    """Draws how often each clip counts `[R, n]`: as many recordings as there are, with replacement, all clips of each.

    `number` replaces that of `num_resamples`.
    """
    size = groups.max() + 1
    number = number or num_resamples(num_decisions)
    drawn = np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), size=number)
    return drawn[:, groups].astype(np.float64)


def _limits(value: float, drawn: np.ndarray, num_groups: int, lowest: float) -> tuple[float, float, float]:
    drawn = drawn[np.isfinite(drawn)]
    if np.isnan(value) or not len(drawn):
        return value, np.nan, np.nan
    if np.ptp(drawn) < 1e-9:
        unseen = Z**2 / (num_groups + Z**2)
        return value, value - unseen * (value - lowest), value + unseen * (1 - value)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return value, float(low), float(high)


def mean_over_classes(values: np.ndarray) -> np.ndarray:
    """Returns the mean `[R]` of `[R, K]` over what is defined; NaN where nothing is."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0.0).sum(axis=1) / known.sum(axis=1)
