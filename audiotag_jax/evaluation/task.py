"""What labels are: one of the classes (softmax), or any number of them (sigmoid), as the arrays of labels show.

Labels are `[n]` int, -1 where a clip is not scored, or `[n, K]` with 1 for each class of a clip and 0 for the others,
-1 in the whole row where it is not scored.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy.special

DEFAULT_THRESHOLD = 0.5  # of a calibrated probability, where several labels are possible


@dataclasses.dataclass(frozen=True)
class Task:
    """How logits become probabilities, and probabilities decisions."""

    name: str
    activation: str  # softmax or sigmoid

    def probabilities(self, logits: np.ndarray, temperature: float | np.ndarray = 1.0) -> np.ndarray:
        """Returns float64 probabilities `[..., K]` of logits `[..., K]` / temperature, which is one or one a row."""
        scaled = np.asarray(logits, np.float64) / temperature
        return scipy.special.softmax(scaled, axis=-1) if self.activation == "softmax" else scipy.special.expit(scaled)

    def logits(self, probabilities: np.ndarray) -> np.ndarray:
        """Returns finite logits of which these are the probabilities."""
        tiny = np.finfo(np.float64).tiny
        logs = np.log(np.maximum(probabilities, tiny))
        return logs if self.activation == "softmax" else logs - np.log(np.maximum(1 - probabilities, tiny))

    def losses(self, logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Returns the cross-entropy `[n]` of logits `[n, K]` and scored labels: with several, the mean over classes."""
        logits = np.asarray(logits, np.float64)
        if self.activation == "softmax":
            return -scipy.special.log_softmax(logits, axis=1)[np.arange(len(labels)), labels]
        return np.asarray(np.logaddexp(0, np.where(labels == 1, -logits, logits)).mean(axis=1))

    def decide(self, probabilities: np.ndarray, threshold: float | Sequence[float] | None = None) -> np.ndarray:
        """Returns the predicted classes as a mask of the shape `[..., K]` of the probabilities.

        With one label a clip it is the likeliest class, the first of equal ones, if it reaches `threshold` (default 0);
        else every class that does (default 0.5), or that reaches its own of K thresholds.
        """
        if self is MULTI_LABEL:
            return np.asarray(probabilities >= np.asarray(DEFAULT_THRESHOLD if threshold is None else threshold))
        first = np.arange(probabilities.shape[-1]) == probabilities.argmax(axis=-1)[..., None]
        return np.asarray(first & (probabilities >= np.asarray(threshold or 0.0)))


SINGLE_LABEL, MULTI_LABEL = Task("single_label", "softmax"), Task("multi_label", "sigmoid")
TASKS = {task.name: task for task in (SINGLE_LABEL, MULTI_LABEL)}


def task_of(labels: np.ndarray) -> Task:
    """Returns the task of which these are labels."""
    return MULTI_LABEL if np.ndim(labels) == 2 else SINGLE_LABEL


def is_scored(labels: np.ndarray) -> np.ndarray:
    """Flags `[n]` the clips whose labels are known."""
    known: np.ndarray = np.asarray(labels) >= 0
    return np.asarray(known.all(axis=1)) if known.ndim == 2 else known


def has_label(labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Flags `[n]` the clips that have the class `predicted` `[n]`."""
    if np.ndim(labels) == 1:
        return np.asarray(predicted) == labels
    return np.take_along_axis(np.asarray(labels), np.asarray(predicted)[:, None], axis=1)[:, 0] == 1
