"""Scores by class agree with scikit-learn; doubts find wrong labels; calibration leaves out what it is judged on."""

import numpy as np
import pytest
import scipy.special
from sklearn.metrics import precision_score, recall_score

from audiotag_jax.evaluation.by_class import calibrated, class_scores, doubts, reliability
from audiotag_jax.evaluation.calibration import expected_calibration_error, fit_temperature

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 5, 400)
LOGITS = RNG.normal(size=(400, 5)) + 2 * np.eye(5)[LABELS]
PROBABILITIES = scipy.special.softmax(LOGITS, axis=1)
GROUPS = np.arange(400) // 2


def test_recall_and_precision_by_class():
    first = PROBABILITIES.argmax(axis=1)
    found = class_scores(PROBABILITIES, LABELS, GROUPS)
    np.testing.assert_allclose([each.recall.value for each in found], recall_score(LABELS, first, average=None))
    np.testing.assert_allclose([each.precision.value for each in found], precision_score(LABELS, first, average=None))
    for k, each in enumerate(found):
        own = PROBABILITIES[k == LABELS]
        assert each.top3.value == np.mean([k in np.argsort(-row)[:3] for row in own])
        assert each.num_clips == (k == LABELS).sum() and each.recall.low < each.recall.value < each.recall.high
        wrong = first[(k == LABELS) & (first != k)]
        assert np.bincount(wrong, minlength=5)[each.taken_for] == np.bincount(wrong, minlength=5).max()


def test_a_class_without_clips_or_without_mistakes():
    found = class_scores(np.eye(3)[[0, 0, 1]], np.array([0, 0, 1]), np.arange(3))
    assert np.isnan(found[2].recall.value) and np.isnan(found[2].precision.low) and found[2].num_clips == 0
    assert [each.taken_for for each in found] == [-1, -1, -1] and found[0].recall.value == 1.0


def test_wrong_labels_come_first():
    ids = np.array([f"{n:03d}" for n in range(400)])
    certain = scipy.special.softmax(3 * LOGITS, axis=1)
    sure = np.flatnonzero(certain[np.arange(400), LABELS] > 0.99)[:30]
    labels = LABELS.copy()
    labels[sure] = (labels[sure] + 1) % 5
    found = doubts(certain, labels, ids)
    assert np.isin(sure, found).all() and np.isin(found[:40], sure).mean() > 0.7
    assert not np.isin(found, np.flatnonzero(certain.argmax(1) == labels)).any()
    even = np.full((4, 2), [0.2, 0.8])
    assert doubts(even, np.zeros(4, int), np.array(["d", "a", "c", "b"])).tolist() == [1, 3, 2, 0]  # ties by id


def test_the_temperature_of_a_part_is_fitted_to_the_others():
    parts = np.arange(400) % 3
    found = calibrated(4 * LOGITS, LABELS, parts, np.ones(400, bool))
    for part in range(3):
        inside = parts == part
        temperature = fit_temperature(4 * LOGITS[~inside], LABELS[~inside])
        np.testing.assert_allclose(found[inside], scipy.special.softmax(4 * LOGITS[inside] / temperature, axis=1))
    before = expected_calibration_error(scipy.special.softmax(4 * LOGITS, axis=1), LABELS)
    assert expected_calibration_error(found, LABELS) < before / 2
    some = np.arange(400) % 4 > 0
    wrong = np.where(some, LABELS, (LABELS + 1) % 5)  # as labels that nobody has checked may be
    assert (calibrated(4 * LOGITS, wrong, parts, some)[some] == calibrated(4 * LOGITS, LABELS, parts, some)[some]).all()


def test_bins_add_up_to_the_calibration_error():
    bins = reliability(PROBABILITIES, LABELS, GROUPS)
    assert sum(each.num_clips for each in bins) == 400 and all(each.right.low <= each.right.high for each in bins)
    gaps = sum(each.num_clips * abs(each.right.value - each.confidence) for each in bins) / 400
    assert gaps == pytest.approx(expected_calibration_error(PROBABILITIES, LABELS, num_bins=10))
