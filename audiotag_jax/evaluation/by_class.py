"""Scores of each class by itself, the clips whose label a network doubts, and how well probabilities are calibrated."""

from typing import NamedTuple

import numpy as np
import scipy.special

from audiotag_jax.evaluation.calibration import fit_temperature
from audiotag_jax.evaluation.intervals import interval_95

NUM_BINS = 10


class Share(NamedTuple):
    """A share of some clips and its 95 % interval; all NaN without clips."""

    value: float
    low: float
    high: float


class ClassScores(NamedTuple):
    """Of the clips of one class: how many there are, and how often its tag is right.

    `recall`: the share of its clips that get it first, `top3`: among the first three tags; `precision`: the share of
    its own among the clips that get it first. `taken_for`: the class that the others of its clips get first most
    often; -1 where all are right.
    """

    num_clips: int
    recall: Share
    top3: Share
    precision: Share
    taken_for: int


class Bin(NamedTuple):
    """Clips whose first tag has a probability within a range: how many, their mean, and the share that are right."""

    num_clips: int
    confidence: float
    right: Share


def class_scores(probabilities: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> list[ClassScores]:
    """Computes scores of each of the K classes from `probabilities` [n, K] and `labels` [n].

    `groups` [n] int are the recordings, of which intervals draw whole ones.
    """
    order = np.argsort(-probabilities, axis=1, kind="stable")
    first, found = order[:, 0], []
    for k in range(probabilities.shape[1]):
        own, given = labels == k, first == k
        others = np.bincount(first[own & ~given], minlength=probabilities.shape[1])
        found.append(
            ClassScores(
                int(own.sum()),
                _share(given[own], groups[own]),
                _share((order[own, :3] == k).any(axis=1), groups[own]),
                _share(own[given], groups[given]),
                int(others.argmax()) if others.any() else -1,
            )
        )
    return found


def doubts(probabilities: np.ndarray, labels: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Returns indices of the clips whose first tag is not their label, the most doubtful first; ties by id.

    A label is the more doubtful the more probable the first tag is beyond it.
    """
    own = probabilities[np.arange(len(labels)), labels]
    margin = probabilities.max(axis=1) - own
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    return wrong[np.lexsort((ids[wrong], -margin[wrong]))]


def calibrated(logits: np.ndarray, labels: np.ndarray, parts: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """Returns probabilities [n, K] of each part's clips under the temperature fitted to those of all other parts.

    `fitted` is a mask [n] of the clips that a temperature is fitted to.
    """
    found = np.empty(logits.shape)
    for part in np.unique(parts):
        inside = parts == part
        temperature = fit_temperature(logits[fitted & ~inside], labels[fitted & ~inside])
        found[inside] = scipy.special.softmax(logits[inside].astype(np.float64) / temperature, axis=1)
    return found


def reliability(probabilities: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> list[Bin]:
    """Returns the bins of equal width that have clips, by the probability of the first tag, upper edges included."""
    return _bins(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels, groups)


def decision_reliability(probabilities: np.ndarray, truth: np.ndarray, groups: np.ndarray) -> list[Bin]:
    """Returns `reliability` of all decisions by probability [n, K]; right are those on classes that the clip has."""
    return _bins(probabilities.ravel(), truth.ravel(), np.repeat(groups, probabilities.shape[1]))


def _bins(confidence: np.ndarray, right: np.ndarray, groups: np.ndarray) -> list[Bin]:
    bins = np.clip(np.ceil(confidence * NUM_BINS).astype(int) - 1, 0, NUM_BINS - 1)
    chosen = [bins == number for number in np.unique(bins)]
    return [Bin(int(each.sum()), float(confidence[each].mean()), _share(right[each], groups[each])) for each in chosen]


def _share(right: np.ndarray, groups: np.ndarray) -> Share:
    if not len(right):
        return Share(np.nan, np.nan, np.nan)
    numbers = np.unique(groups, return_inverse=True)[1]
    return Share(float(right.mean()), *interval_95(right.astype(np.float64), numbers))
