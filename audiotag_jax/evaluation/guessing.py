"""Whether a network's accuracy is distinguishable from naming the most frequent class every time."""

from collections.abc import Mapping

import numpy as np

from audiotag_jax.evaluation import metrics
from audiotag_jax.evaluation.intervals import interval_95, recording_numbers
from audiotag_jax.evaluation.predictions import Predictions, select


def majority_share(labels: np.ndarray) -> float:
    """Returns the share of the most frequent label, labels `[n]` of 0 or more; NaN without any."""
    return float(np.bincount(labels).max() / len(labels)) if len(labels) else float("nan")


def describe_guessing(accuracy: Mapping[str, float | None], share: float) -> str:
    """Returns a sentence if the accuracy's 95 % interval (`value`, `low`, `high`) reaches down to `share`; else "".

    `share` is that of the most frequent class among the same clips.
    """
    value, low, high = (accuracy[name] for name in ("value", "low", "high"))
    if value is None or low is None or high is None or low > share:
        return ""
    found = f"accuracy {value:.3f} ({low:.3f} to {high:.3f})"
    return f"no better than guessing: {found} on held-out clips, of which the most frequent class has {share:.3f}"


def guessing_of(predictions: Predictions) -> str:
    """Returns `describe_guessing` of labelled predictions, with the interval by recording as in `score_table`."""
    saved = select(predictions, np.argsort(predictions["ids"], kind="stable"))
    if not len(saved["labels"]):
        return ""
    hits = metrics.hits(metrics.label_ranks(saved["logits"], saved["labels"]))
    groups = recording_numbers(saved["ids"].tolist(), dict(zip(saved["ids"], saved["recordings"], strict=True)))
    low, high = interval_95(hits, groups)
    accuracy = {"value": float(hits.mean()), "low": low, "high": high}
    return describe_guessing(accuracy, majority_share(saved["labels"]))
