"""Temperatures that are known, and calibration errors by hand."""

import numpy as np
import pytest
import scipy.special

from audiotag_jax.evaluation.calibration import TEMPERATURES, expected_calibration_error, fit_temperature

SHARES = np.array([[5, 3, 2], [1, 1, 8], [4, 6, 0]])  # of ten clips with equal logits, how many are of each class


def clips(temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose softmax at `temperature` is exactly the labels' distribution, where the loss is least (Gibbs)."""
    logits = np.log(np.maximum(SHARES, 1e-6) / SHARES.sum(axis=1, keepdims=True))
    labels = [np.repeat(np.arange(3), shares) for shares in SHARES]
    return temperature * np.repeat(logits, 10, axis=0) + 7.0, np.concatenate(labels)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5, 8.0])
def test_temperature_comes_back(temperature):
    logits, labels = clips(temperature)
    assert fit_temperature(logits.astype(np.float32), labels) == pytest.approx(temperature, rel=1e-4)


def test_temperature_stays_in_its_range():
    """All clips right, or all wrong; and where they are so right that no temperature is better than 1."""
    right = 10.0 * np.eye(4, dtype=np.float32)
    low, high = (pytest.approx(end) for end in TEMPERATURES)
    for logits, labels, expected in [
        (right, np.arange(4), low),
        (right, (np.arange(4) + 1) % 4, high),
        (right[:1], np.array([0]), low),
        (right[:1], np.array([2]), high),
        (1e6 * right, np.arange(4), 1.0),
        (1e6 * right, (np.arange(4) + 1) % 4, high),
    ]:
        assert fit_temperature(logits, labels) == expected


def test_temperature_of_nothing():
    assert fit_temperature(np.zeros((0, 3)), np.zeros(0, int)) == 1.0
    assert fit_temperature(np.full((5, 3), 2.0), np.zeros(5, int)) == 1.0


@pytest.mark.parametrize(
    ("logits", "labels"),
    [(np.zeros((2, 3)), np.array([0, 3])), (np.full((1, 3), np.nan), np.array([0])), (np.zeros((2, 3)), np.zeros(3))],
    ids=["label", "nan", "shape"],
)
def test_bad_arguments(logits, labels):
    with pytest.raises(ValueError):
        fit_temperature(logits, labels)


def test_calibration_error_by_hand():
    """Two clips at 0.9, one right: a gap of 0.4; one at 0.55, right: 0.45; one at 1.0, wrong: 1.0."""
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.45, 0.55], [1.0, 0.0]])
    labels = np.array([0, 1, 1, 1])
    assert expected_calibration_error(probabilities, labels, 10) == pytest.approx((2 * 0.4 + 0.45 + 1.0) / 4)
    # In a single bin: one mean confidence, one accuracy.
    assert expected_calibration_error(probabilities, labels, 1) == pytest.approx(abs(2 / 4 - 3.35 / 4))


def test_calibrated_probabilities_have_no_error():
    logits, labels = clips(1.0)
    shares = np.exp(logits - 7.0)
    assert expected_calibration_error(shares, labels) == pytest.approx(0.0, abs=1e-5)
    assert np.isnan(expected_calibration_error(np.zeros((0, 2)), np.zeros(0, int)))


def test_several_labels_a_clip_have_one_temperature_and_an_error_over_all_decisions():
    """Labels drawn from known probabilities, whose logits were doubled; the loss by scikit-learn is no less nearby."""
    from sklearn.metrics import log_loss

    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (4000, 5))
    labels = (rng.random((4000, 5)) < scipy.special.expit(logits)).astype(np.int8)
    found = fit_temperature(2 * logits, labels)
    assert found == pytest.approx(2, rel=0.05)

    def loss(temperature):
        return log_loss(labels.ravel(), scipy.special.expit(2 * logits / temperature).ravel())

    assert loss(found) <= min(loss(0.99 * found), loss(1.01 * found))
    assert expected_calibration_error(scipy.special.expit(logits), labels) < 0.02
    assert expected_calibration_error(scipy.special.expit(2 * logits), labels) > 0.05
    half = np.full((10, 2), 0.5)
    assert expected_calibration_error(half, np.ones((10, 2), int)) == pytest.approx(0.5)
    assert fit_temperature(np.zeros((0, 5)), np.zeros((0, 5), int)) == 1.0
    with pytest.raises(ValueError, match="0 to 1"):
        fit_temperature(logits, labels + 1)
