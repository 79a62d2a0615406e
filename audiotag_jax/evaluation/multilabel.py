"""Scores of clips with any number of labels: average precision, ROC AUC and lwlrap, with intervals by recording.

Every score is a function of how often each clip counts: once, or as often as a bootstrap resample draws it.
"""

from collections.abc import Sequence

import numpy as np

from audiotag_jax.evaluation.intervals import Z, recording_numbers
from audiotag_jax.evaluation.predictions import Predictions, select
from audiotag_jax.evaluation.task import is_scored

METRICS = {  # name in files: in reports
    "map": "mAP",
    "micro_ap": "Micro AP",
    "lwlrap": "lwlrap",
    "macro_auc": "Macro ROC AUC",
}
NUM_RESAMPLES, FEWEST_RESAMPLES = 1000, 200
_BUDGET = 2_000_000_000  # resamples times clips times classes; beyond it there are fewer resamples, not under 200
_AT_ONCE = 4_000_000  # numbers in memory
_CLASS_METRICS = ("average_precision", "roc_auc")


def score_table(predictions: Predictions, classes: Sequence[str] = ()) -> dict:
    """`{"num_clips", "num_recordings", METRIC: {"value", "low", "high"}, …}`; None where a score is not defined.

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
    resampled = scores(logits, truth, _resamples(groups, truth.size))

    def entry(value: np.ndarray, drawn: np.ndarray) -> dict:
        limits = _limits(float(value), drawn, num_groups)
        named = zip(("value", "low", "high"), limits, strict=True)
        return {name: None if np.isnan(each) else each for name, each in named}

    table |= {name: entry(values[name][0], resampled[name]) for name in METRICS}
    if classes:
        table["classes"] = {
            name: {
                "num_positive": int(truth[:, k].sum()),
                **{each: entry(values[each][0, k], resampled[each][:, k]) for each in _CLASS_METRICS},
            }
            for k, name in enumerate(classes)
        }
    return table


def scores(logits: np.ndarray, truth: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
    """The scores of n clips, clip i counted `counts[r, i]` times: `[R]` by the names of METRICS, and by class `[R, K]`.

    `logits` `[n, K]`, `truth` `[n, K]` bool. NaN where a score is not defined: without a positive clip, or, of ROC AUC,
    without a negative one. Means over classes leave those out. Raises ValueError if a logit is not finite.
    """
    if not np.isfinite(logits).all():
        raise ValueError("The logits contain NaN or Inf: the training diverged.")
    by_class = [_precision_and_auc(logits[:, k], truth[:, k], counts) for k in range(logits.shape[1])]
    precision, auc = (np.stack([each[i] for each in by_class], axis=1) for i in (0, 1))
    clips = np.repeat(np.arange(len(logits)), logits.shape[1])
    micro, _ = _precision_and_auc(logits.ravel(), truth.ravel(), counts, clips)
    precisions, numbers = label_precisions(logits, truth).sum(axis=1), truth.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        lwlrap = (counts @ precisions) / (counts @ numbers)
    return {
        "map": _mean(precision),
        "micro_ap": micro,
        "lwlrap": lwlrap,
        "macro_auc": _mean(auc),
        "average_precision": precision,
        "roc_auc": auc,
    }


def label_precisions(logits: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """`[n, K]`: at each label of a clip, the share of labels among the classes ranked as high or higher; 0 elsewhere.

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


def _precision_and_auc(
    values: np.ndarray, truth: np.ndarray, counts: np.ndarray, clips: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Average precision `[R]` (the sum of precision times the step of recall) and ROC AUC `[R]` of n decisions.

    `counts` `[R, n]`, or `[R, m]` and the clip of each decision in `clips` `[n]`. Equal values are one threshold.
    """
    order = np.argsort(-values, kind="stable")
    ordered, positive = values[order], np.flatnonzero(truth[order])
    columns = order if clips is None else clips[order]
    ends = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
    place = np.searchsorted(ends, positive)  # of the threshold that each positive decision belongs to
    end, start = ends[place], np.append(-1, ends)[place]  # `start` is the end of the threshold before
    precision, auc = np.empty(len(counts)), np.empty(len(counts))
    batch = max(1, _AT_ONCE // len(values))
    for first in range(0, len(counts), batch):
        rows = counts[first : first + batch][:, columns]
        total = np.concatenate([np.zeros((len(rows), 1)), np.cumsum(rows, axis=1)], axis=1)
        hits = np.concatenate([np.zeros((len(rows), 1)), np.cumsum(rows * truth[order], axis=1)], axis=1)
        own, misses = rows[:, positive], total - hits
        num_hits, num_misses = hits[:, -1], misses[:, -1]
        with np.errstate(invalid="ignore", divide="ignore"):
            at_end = hits[:, end + 1] / np.maximum(total[:, end + 1], 1)
            precision[first : first + batch] = (own * at_end).sum(axis=1) / num_hits
            before = (misses[:, end + 1] + misses[:, start + 1]) / 2  # half of those with an equal value
            auc[first : first + batch] = 1 - (own * before).sum(axis=1) / num_hits / num_misses
    return precision, auc


def _resamples(groups: np.ndarray, num_decisions: int, seed: int = 0) -> np.ndarray:
    """How often each clip is drawn `[R, n]`: as many recordings as there are, with replacement, all clips of each."""
    number = int(np.clip(_BUDGET // num_decisions, FEWEST_RESAMPLES, NUM_RESAMPLES))
    size = groups.max() + 1
    drawn = np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), size=number)
    return drawn[:, groups].astype(np.float64)


def _limits(value: float, drawn: np.ndarray, num_groups: int) -> tuple[float, float, float]:
    drawn = drawn[np.isfinite(drawn)]
    if np.isnan(value) or not len(drawn):
        return value, np.nan, np.nan
    if np.ptp(drawn) < 1e-9:
        unseen = Z**2 / (num_groups + Z**2)
        return value, value - unseen * value, value + unseen * (1 - value)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return value, float(low), float(high)


def _mean(values: np.ndarray) -> np.ndarray:
    """The mean `[R]` of `[R, K]` over what is defined; NaN where nothing is."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0.0).sum(axis=1) / known.sum(axis=1)
