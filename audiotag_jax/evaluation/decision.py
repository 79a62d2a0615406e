"""From logits to tags where clips have any number of labels: calibration and threshold of each class, and their F1.

Both are chosen on clips other than those they are scored on: `cross_fit` leaves out one part after the other.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
import scipy.special

from audiotag_jax.evaluation import multilabel
from audiotag_jax.evaluation.calibration import expected_calibration_error, fit_temperature
from audiotag_jax.evaluation.intervals import recording_numbers
from audiotag_jax.evaluation.predictions import Predictions, select
from audiotag_jax.evaluation.task import DEFAULT_THRESHOLD, is_scored

FEWEST = 20  # clips with a class, and without it, from which it gets a calibration and a threshold of its own
PARTS = 5  # of one fold alone, to choose thresholds of each on the others
F1 = {"f1_macro": "Macro F1", "f1_micro": "Micro F1"}  # name in files: in reports
_ITERATIONS, _CONVERGED = 50, 1e-8


@dataclasses.dataclass(frozen=True)
class Decision:
    """Of K classes: a tag's probability is sigmoid(logit / temperature + offset), and it is given from its threshold.

    `temperatures`, `offsets`, `thresholds` [K] float64; `is_own` [K] bool: fitted to clips of the class, not shared.
    """

    temperatures: np.ndarray
    offsets: np.ndarray
    thresholds: np.ndarray
    is_own: np.ndarray

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Returns calibrated probabilities [..., K] of logits [..., K]."""
        return np.asarray(scipy.special.expit(np.asarray(logits, np.float64) / self.temperatures + self.offsets))


def fit_decision(logits: np.ndarray, labels: np.ndarray) -> Decision:
    """Fits the calibration and the thresholds for clips with logits [n, K] and labels [n, K] of 0 and 1.

    Each class is calibrated as Platt (1999) does it: logistic regression on the logit, its targets drawn a little
    towards each other. A class with fewer than `FEWEST` clips with or without it, or whose regression falls, has the
    temperature of all classes together (`fit_temperature`) and no offset. A threshold is that of the largest F1, of
    such classes that of the largest micro F1.
    """
    truth, shared = np.asarray(labels) == 1, fit_temperature(logits, labels)
    num_positive = truth.sum(axis=0)
    is_own = np.minimum(num_positive, len(truth) - num_positive) >= FEWEST
    slopes, offsets = np.full(truth.shape[1], 1 / shared), np.zeros(truth.shape[1])
    if is_own.any():
        found = _platt(np.asarray(logits, np.float64)[:, is_own], truth[:, is_own])
        is_own[is_own] = found[0] > 0
        slopes[is_own], offsets[is_own] = (each[found[0] > 0] for each in found)
    decision = Decision(1 / slopes, offsets, np.full(len(slopes), DEFAULT_THRESHOLD), is_own)
    if not truth.any():
        return decision
    probabilities = decision.probabilities(logits)
    of_all = best_threshold(probabilities.ravel(), truth.ravel())
    own = [best_threshold(probabilities[:, k], truth[:, k]) if is_own[k] else of_all for k in range(len(slopes))]
    return dataclasses.replace(decision, thresholds=np.array(own))


def best_threshold(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Returns the threshold of the largest F1 of n decisions, the highest of equal ones; between two probabilities."""
    order = np.argsort(-probabilities, kind="stable")
    ordered = probabilities[order]
    ends = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
    hits = np.cumsum(truth[order])[ends]
    best = int(np.argmax(2 * hits / (ends + 1 + truth.sum())))
    below = ordered[ends[best] + 1] if best + 1 < len(ends) else ordered[ends[best]]
    return float((ordered[ends[best]] + below) / 2)


def left_out_together(
    folds: np.ndarray, ids: np.ndarray, recordings: Mapping[str, str], fitted: np.ndarray | None = None
) -> np.ndarray:
    """Returns the number [n] of each clip's part, whose calibration and thresholds are fitted to the other parts.

    It is the clip's fold; where the clips that are `fitted` (a mask [n], by default all) are of one fold, a fifth of
    the recordings, which are numbered in the order of ids. `recordings` are names by id.
    """
    if len(np.unique(folds if fitted is None else folds[fitted])) > 1:
        return folds
    order = np.argsort(ids, kind="stable")
    parts = np.empty(len(ids), int)
    parts[order] = recording_numbers(ids[order].tolist(), recordings) % PARTS
    return parts


def cross_fit(logits: np.ndarray, labels: np.ndarray, parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns calibrated probabilities and bool tags [n, K] of the clips of each part by `fit_decision` of the others.

    `parts` [n]: clips with the same number are left out together.
    """
    probabilities, tags = np.zeros(logits.shape), np.zeros(logits.shape, bool)
    for part in np.unique(parts):
        inside = parts == part
        decision = fit_decision(logits[~inside], np.asarray(labels)[~inside])
        probabilities[inside] = decision.probabilities(logits[inside])
        tags[inside] = probabilities[inside] >= decision.thresholds
    return probabilities, tags


def class_calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Returns the expected calibration error of each class by itself, the mean over the classes."""
    columns = range(probabilities.shape[1])
    errors = [expected_calibration_error(probabilities[:, [k]], np.asarray(labels)[:, [k]]) for k in columns]
    return float(np.mean(errors))


def f1_scores(tags: np.ndarray, truth: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
    """Computes `f1_macro`, `f1_micro` [R], by class `f1`, `precision`, `recall` [R, K] of tags and truth [n, K] bool.

    Clip i counts `counts[r, i]` times. NaN where not defined: macro F1 leaves out classes without a positive clip.
    """
    hits, given, own = (counts @ each.astype(np.float64) for each in (tags & truth, tags, truth))
    with np.errstate(invalid="ignore", divide="ignore"):
        by_class = np.where(own > 0, 2 * hits / (given + own), np.nan)
        micro = 2 * hits.sum(axis=1) / (given + own).sum(axis=1)
        macro = multilabel.mean_over_classes(by_class)
        return {"f1_macro": macro, "f1_micro": micro, "f1": by_class, "precision": hits / given, "recall": hits / own}


def decision_table(predictions: Predictions, parts: np.ndarray) -> dict:
    """Returns the scores of cross-fitted tags, and of those with the one threshold that `decide` has.

    `{"f1_macro": {"value", "low", "high"}, "f1_micro": …, "at_default_threshold": {…}, "calibration_error": {…}}`; of
    the last, `before`, `shared` and `calibrated` (cross-fitted) are means of the classes' errors. `parts` [n] are as in
    `cross_fit`. Intervals resample recordings, as those of `multilabel.score_table`.
    """
    scored = is_scored(predictions["labels"])
    saved, parts = select(predictions, scored), np.asarray(parts)[scored]
    order = np.argsort(saved["ids"], kind="stable")
    saved, parts = select(saved, order), parts[order]
    groups = recording_numbers(saved["ids"].tolist(), dict(zip(saved["ids"], saved["recordings"], strict=True)))
    return decision_scores(saved["logits"], saved["labels"], parts, groups)


def decision_scores(
    logits: np.ndarray, labels: np.ndarray, parts: np.ndarray, groups: np.ndarray, seed: int = 0, number: int = 0
) -> dict:
    """Computes `decision_table` of scored clips in the order of their ids, of recordings `groups` [n] from 0."""
    logits, truth = np.asarray(logits, np.float64), labels == 1
    probabilities, tags = cross_fit(logits, labels, parts)
    shared = _shared(logits, labels, parts)
    drawn = multilabel.resamples(groups, truth.size, seed, number)
    errors = {"before": scipy.special.expit(logits), "shared": shared, "calibrated": probabilities}
    return {
        **_intervals(tags, truth, drawn, groups),
        "at_default_threshold": _intervals(shared >= DEFAULT_THRESHOLD, truth, drawn, groups),
        "calibration_error": {name: class_calibration_error(each, labels) for name, each in errors.items()},
    }


def _intervals(tags: np.ndarray, truth: np.ndarray, drawn: np.ndarray, groups: np.ndarray) -> dict[str, Mapping]:
    seen, resampled = (f1_scores(tags, truth, counts) for counts in (np.ones((1, len(truth))), drawn))
    number = int(groups.max()) + 1
    return {name: multilabel.interval_entry(float(seen[name][0]), resampled[name], number) for name in F1}


def _shared(logits: np.ndarray, labels: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Returns probabilities [n, K] of each part by the one temperature that is fitted to the others."""
    found = np.zeros(logits.shape)
    for part in np.unique(parts):
        inside = parts == part
        found[inside] = scipy.special.expit(logits[inside] / fit_temperature(logits[~inside], labels[~inside]))
    return found


def _platt(logits: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns slopes and offsets [K] of logistic regressions of truth on logits [n, K], by Newton's method.

    The targets are Platt's: (N + 1) / (N + 2) for N positive clips, 1 / (M + 2) for M negative ones, so that a
    solution exists where the classes are separated.
    """
    num_positive = truth.sum(axis=0)
    targets = np.where(truth, (num_positive + 1) / (num_positive + 2), 1 / (len(truth) - num_positive + 2))
    centre, scale = logits.mean(axis=0), np.maximum(logits.std(axis=0), 1e-12)
    x = (logits - centre) / scale

    def losses(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        z = a * x + b
        return np.asarray((np.logaddexp(0, z) - targets * z).sum(axis=0))

    slopes, offsets = np.zeros(x.shape[1]), scipy.special.logit(targets.mean(axis=0))
    for _ in range(_ITERATIONS):
        p = scipy.special.expit(slopes * x + offsets)
        rest, weight = p - targets, p * (1 - p)
        g, h = (rest * x).sum(axis=0), rest.sum(axis=0)
        if max(np.abs(g).max(), np.abs(h).max()) < _CONVERGED * len(x):
            break
        aa, ab, bb = (weight * x * x).sum(axis=0) + 1e-9, (weight * x).sum(axis=0), weight.sum(axis=0) + 1e-9
        determinant = aa * bb - ab * ab
        step_a, step_b = (bb * g - ab * h) / determinant, (aa * h - ab * g) / determinant
        before, size = losses(slopes, offsets), np.ones(x.shape[1])
        for _ in range(30):  # where a full step leads too far
            worse = losses(slopes - size * step_a, offsets - size * step_b) > before + 1e-12
            if not worse.any():
                break
            size = np.where(worse, size / 2, size)
        slopes, offsets = slopes - size * step_a, offsets - size * step_b
    return slopes / scale, offsets - slopes * centre / scale
