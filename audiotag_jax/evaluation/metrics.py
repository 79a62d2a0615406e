"""Metrics of saved logits: one record a metric, with one value a clip, so that every mean has an interval."""

import dataclasses
from collections.abc import Callable

import numpy as np

from audiotag_jax.evaluation.task import MULTI_LABEL, Task


def label_ranks(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns ranks `[B]`, from 0, of each label among logits `[B, K]`; of equal ones the smaller class is first.

    Raises ValueError if a logit is not finite or a label is not one of the K classes.
    """
    if not np.isfinite(logits).all():
        raise ValueError("The logits contain NaN or Inf: the training diverged.")
    if len(labels) and not (labels.min() >= 0 and labels.max() < logits.shape[1]):
        raise ValueError(f"Labels must be 0 to {logits.shape[1] - 1}.")
    order = np.argsort(-logits, axis=1, kind="stable")
    return np.argmax(order == labels[:, None], axis=1)


def top3_errors(ranks: np.ndarray) -> np.ndarray:
    """Returns 1.0 where the label is not among the first three, else 0.0, in the shape of `ranks`."""
    return (ranks >= 3).astype(np.float64)


def hits(ranks: np.ndarray) -> np.ndarray:
    """Returns 1.0 where the label comes first, else 0.0; their mean is the accuracy."""
    return (ranks == 0).astype(np.float64)


def average_precisions_at_3(ranks: np.ndarray) -> np.ndarray:
    """Returns 1, 1/2, 1/3 where the label is first, second, third, else 0; the mean is the challenge's MAP@3.

    With a single true label the average precision at 3 is the precision at the label's own rank
    (Fonseca et al., "General-purpose tagging of Freesound audio", DCASE 2018).
    """
    return np.where(ranks < 3, 1.0 / (ranks + 1), 0.0)


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric: the mean over clips of `values(ranks)`, in [0, 1], of label ranks of any shape.

    `is_right(ranks)` distinguishes right clips from wrong ones, for tests that count; None if some are partly right.
    Those of clips with any number of labels have no `values`, since most are no means over clips: see `multilabel`.
    """

    name: str  # in files
    label: str  # in reports
    values: Callable[[np.ndarray], np.ndarray] = lambda ranks: np.full(np.shape(ranks), np.nan)
    guessing: Callable[[int], float] = lambda num_classes: 0.0  # what guessing gives, by the number of classes
    lower_is_better: bool = False
    is_right: Callable[[np.ndarray], np.ndarray] | None = None

    @property
    def label_in_text(self) -> str:
        """The label inside a sentence: without its capital, unless it is an abbreviation."""
        first = self.label.split()[0]
        return self.label if any(map(str.isupper, first[1:])) else self.label[:1].lower() + self.label[1:]


# Adding a metric here puts it into summary.json, the terminal's tables, validation metrics, and the study's report.
METRICS = (
    Metric(
        name="top3_error",
        label="Top-3 error",
        values=top3_errors,
        guessing=lambda num_classes: max(0.0, 1 - 3 / num_classes),
        lower_is_better=True,
        is_right=lambda ranks: ranks < 3,
    ),
    Metric(
        name="accuracy",
        label="Accuracy",
        values=hits,
        guessing=lambda num_classes: 1 / num_classes,
        is_right=lambda ranks: ranks == 0,
    ),
    Metric(
        name="map_at_3",
        label="MAP@3",
        values=average_precisions_at_3,
        guessing=lambda num_classes: sum(1 / rank for rank in (1, 2, 3)[:num_classes]) / num_classes,
    ),
)

MULTI_LABEL_METRICS = (
    Metric(name="map", label="mAP"),
    Metric(name="lwlrap", label="lwlrap"),
    Metric(name="micro_ap", label="Micro AP"),
    Metric(name="macro_auc", label="Macro ROC AUC"),
)


def metrics_of(task: Task) -> tuple[Metric, ...]:
    """Returns the metrics of a task, the one that reports begin with first."""
    return MULTI_LABEL_METRICS if task is MULTI_LABEL else METRICS
