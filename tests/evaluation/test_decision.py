"""Calibration and thresholds of each class, against scikit-learn, and that none is chosen on what it is scored on."""

import numpy as np
import pytest
from sklearn import calibration as reference_calibration
from sklearn import metrics as reference

from audiotag_jax.evaluation.calibration import expected_calibration_error, fit_temperature
from audiotag_jax.evaluation.decision import (
    FEWEST,
    best_threshold,
    class_calibration_error,
    cross_fit,
    decision_table,
    f1_scores,
    fit_decision,
)


def draw(n=300, rates=(0.3, 0.15, 0.02), seed=0):
    """Logits whose scale and offset differ from class to class, and labels; the last class is rare."""
    rng = np.random.default_rng(seed)
    chances = 1 / (1 + np.exp(-rng.normal(np.log(rates), 1.2, (n, len(rates)))))
    labels = (rng.random(chances.shape) < chances).astype(np.int8)
    return (np.log(chances / (1 - chances)) - 1) * (1 + np.arange(len(rates))), labels


def test_each_class_is_calibrated_as_scikit_learn_does_it():
    logits, labels = draw()
    decision = fit_decision(logits, labels)
    assert decision.is_own.tolist() == [True, True, False] and labels[:, 2].sum() < FEWEST
    found = decision.probabilities(logits)
    for k in (0, 1):
        theirs = reference_calibration._SigmoidCalibration().fit(logits[:, k], labels[:, k])
        np.testing.assert_allclose(found[:, k], theirs.predict(logits[:, k]), atol=2e-4)  # where theirs stops
    shared = fit_temperature(logits, labels)
    np.testing.assert_allclose(found[:, 2], 1 / (1 + np.exp(-logits[:, 2] / shared)))


def test_separated_classes_and_those_that_fall():
    labels = np.repeat([[1, 1], [0, 0]], 30, axis=0)
    decision = fit_decision(np.where(labels == 1, [[1e4, -2.0]], [[-1e4, 2.0]]), labels)
    assert np.isfinite(decision.temperatures).all() and (decision.temperatures > 0).all()
    assert decision.is_own.tolist() == [True, False]  # the second would turn its logits around


@pytest.mark.parametrize("decimals", [1, 6])
def test_the_threshold_has_the_largest_f1(decimals):
    logits, labels = draw(80)
    p = np.round(1 / (1 + np.exp(-logits[:, 0])), decimals)
    threshold = best_threshold(p, labels[:, 0] == 1)
    found = reference.f1_score(labels[:, 0], p >= threshold)
    assert found == max(reference.f1_score(labels[:, 0], p >= each) for each in np.unique(p))
    assert best_threshold(np.array([0.9, 0.5, 0.1]), np.array([True, False, False])) == 0.7


def test_scores_of_tags_are_those_of_scikit_learn():
    logits, labels = draw()
    tags, counts = logits > -1, np.random.default_rng(1).integers(0, 3, (2, len(labels))).astype(float)
    found = f1_scores(tags, labels == 1, counts)
    for row, weights in enumerate(counts):
        for average in ("macro", "micro"):
            expected = reference.f1_score(labels, tags, average=average, sample_weight=weights)
            assert found[f"f1_{average}"][row] == pytest.approx(expected)
        precision, recall, f1, _ = reference.precision_recall_fscore_support(
            labels, tags, sample_weight=weights, zero_division=np.nan
        )
        for name, expected in (("precision", precision), ("recall", recall), ("f1", f1)):
            np.testing.assert_allclose(found[name][row], expected)


def test_nothing_of_a_part_enters_its_own_decision():
    logits, labels = draw()
    parts = np.arange(300) % 3
    probabilities, tags = cross_fit(logits, labels, parts)
    inside = parts == 1
    other = labels.copy()
    other[inside] = 1 - other[inside]
    again = cross_fit(logits, other, parts)
    np.testing.assert_array_equal(again[0][inside], probabilities[inside])
    np.testing.assert_array_equal(again[1][inside], tags[inside])
    assert not np.array_equal(again[0][~inside], probabilities[~inside])


def test_on_labels_that_mean_nothing_a_threshold_gains_nothing():
    """Chosen on the clips it is scored on, a threshold would find more than guessing does."""
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(400, 6)), (rng.random((400, 6)) < 0.3).astype(np.int8)
    saved = {"ids": np.arange(400).astype(str), "logits": logits, "labels": labels, "recordings": np.full(400, "")}
    table = decision_table(saved, np.arange(400) % 5)
    decision = fit_decision(logits, labels)
    tags = decision.probabilities(logits) >= decision.thresholds
    optimistic = f1_scores(tags, labels == 1, np.ones((1, 400)))["f1_macro"][0]
    best = 2 * labels.mean() / (1 + labels.mean())  # F1 of tagging everything, the most that guessing gives
    assert table["f1_macro"]["value"] < best < optimistic


def test_calibration_by_class_beats_one_temperature_where_classes_differ():
    logits, labels = draw(2000)
    saved = {"ids": np.arange(2000).astype(str), "logits": logits, "labels": labels, "recordings": np.full(2000, "")}
    table = decision_table(saved, np.arange(2000) % 5)
    errors = table["calibration_error"]
    assert errors["calibrated"] < 0.5 * errors["shared"]
    assert table["f1_macro"]["low"] > table["at_default_threshold"]["f1_macro"]["value"]
    by_class = [expected_calibration_error(logits[:, [k]] * 0 + 0.5, labels[:, [k]]) for k in range(3)]
    assert class_calibration_error(logits * 0 + 0.5, labels) == pytest.approx(np.mean(by_class))
