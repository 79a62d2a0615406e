"""Scores against plain readings of their definitions, intervals against closed form and SciPy."""

import numpy as np
import pytest
import scipy.stats

from audiotag_jax.evaluation.metrics import (
    SCORES,
    average_precisions_at_3,
    hits,
    interval_95,
    label_ranks,
    score_table,
    top3_errors,
)

Z = 1.959963984540054  # of the normal distribution, at 97.5 %


def random_case(seed, num_clips=60, num_classes=6, tied=False):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(num_clips, num_classes))
    if tied:
        logits = rng.integers(0, 3, logits.shape).astype(np.float64)
    return logits.astype(np.float32), rng.integers(0, num_classes, num_clips)


def map_at_3(logits, labels):
    """The challenge's definition, read plainly: the mean over clips of sum over k <= 3 of P(k) rel(k).

    P(k) is the precision of the first k predictions, rel(k) is 1 where the k-th is right; a clip has one true label.
    Of two classes with the same score the one with the smaller index is predicted first.
    """
    total = 0.0
    for scores, label in zip(logits.tolist(), labels.tolist(), strict=True):
        predictions = sorted(range(len(scores)), key=lambda k: (-scores[k], k))[:3]
        right = 0
        for k, prediction in enumerate(predictions, start=1):
            if prediction == label:
                right += 1
                total += right / k
    return total / len(labels)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("num_classes", [2, 3, 41])
def test_map_at_3_by_its_definition(num_classes, tied):
    for seed in range(5):
        logits, labels = random_case(seed, num_classes=num_classes, tied=tied)
        value = average_precisions_at_3(label_ranks(logits, labels)).mean()
        assert value == pytest.approx(map_at_3(logits, labels), abs=1e-12)


def test_map_at_3_by_hand():
    logits = np.array([[4, 3, 2, 1, 0]] * 5, np.float32)
    np.testing.assert_allclose(average_precisions_at_3(label_ranks(logits, np.arange(5))), [1, 1 / 2, 1 / 3, 0, 0])


def test_accuracy_and_top3_error():
    logits, labels = random_case(0, 500)
    ranks = label_ranks(logits, labels)
    assert hits(ranks).mean() == np.mean(logits.argmax(1) == labels)
    first_three = np.argpartition(-logits, 2, axis=1)[:, :3]
    assert top3_errors(ranks).mean() == 1 - np.mean((first_three == labels[:, None]).any(1))
    assert set(np.unique(top3_errors(ranks))) == {0.0, 1.0}


def test_scores_agree_with_sklearn():
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    logits, labels = random_case(1, 300)
    table = score_table(logits, labels)
    expected = sklearn_metrics.top_k_accuracy_score(labels, logits, k=3, labels=range(6))
    assert table["top3_error"]["value"] == pytest.approx(1 - expected)


def test_ranks_of_equal_logits():
    logits = np.zeros((4, 4), np.float32)
    np.testing.assert_array_equal(label_ranks(logits, np.arange(4)), [0, 1, 2, 3])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_raise(bad):
    logits, labels = random_case(0)
    logits[7, 2] = bad
    with pytest.raises(ValueError, match="diverged"):
        score_table(logits, labels)


@pytest.mark.parametrize("label", [-1, 6])
def test_labels_outside_the_classes_raise(label):
    logits, labels = random_case(0)
    labels[3] = label
    with pytest.raises(ValueError, match="0 to 5"):
        label_ranks(logits, labels)


# Intervals.


@pytest.mark.parametrize(("successes", "total"), [(0, 10), (10, 10), (3, 10), (93, 1000), (1, 1)])
def test_shares_have_wilson_limits(successes, total):
    values = np.repeat([1.0, 0.0], [successes, total - successes])
    p = successes / total
    centre = (p + Z**2 / (2 * total)) / (1 + Z**2 / total)
    half = Z / (1 + Z**2 / total) * np.sqrt(p * (1 - p) / total + Z**2 / (4 * total**2))
    np.testing.assert_allclose(interval_95(values), (centre - half, centre + half), atol=1e-9)


def test_share_intervals_hold_the_truth_95_times_in_100():
    """Exact coverage: the binomial probability of the counts whose interval holds the true share."""
    total = 40
    intervals = [interval_95(np.repeat([1.0, 0.0], [k, total - k])) for k in range(total + 1)]
    truths = np.linspace(0.05, 0.95, 91)
    holds = np.array([[low <= truth <= high for low, high in intervals] for truth in truths])
    coverage = (scipy.stats.binom.pmf(np.arange(total + 1), total, truths[:, None]) * holds).sum(1)
    assert abs(coverage.mean() - 0.95) < 0.01
    assert coverage.min() > 0.9


def test_means_have_percentile_bootstrap_limits():
    values = np.random.default_rng(0).choice([0, 1 / 3, 1 / 2, 1], 300, p=[0.1, 0.1, 0.2, 0.6])
    low, high = interval_95(values)
    result = scipy.stats.bootstrap((values,), np.mean, n_resamples=9999, method="percentile", rng=1)
    expected = result.confidence_interval
    width = expected.high - expected.low
    assert low == pytest.approx(expected.low, abs=0.06 * width)
    assert high == pytest.approx(expected.high, abs=0.06 * width)
    assert interval_95(values) == (low, high)  # seeded
    assert interval_95(values, seed=1) != (low, high)


def test_bootstrap_intervals_hold_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(0)
    choices, shares = np.array([0, 1 / 3, 1 / 2, 1]), np.array([0.15, 0.1, 0.25, 0.5])
    intervals = [interval_95(rng.choice(choices, 80, p=shares), 200, seed) for seed in range(200)]
    coverage = np.mean([low <= choices @ shares <= high for low, high in intervals])
    assert 0.89 < coverage < 0.99


# The table.


def test_table():
    logits, labels = random_case(0, 200)
    table = score_table(logits, labels)
    assert table["num_clips"] == 200
    assert set(table) == {"num_clips", "top3_error", "accuracy", "map_at_3"}
    for name in SCORES:
        assert table[name]["low"] < table[name]["value"] < table[name]["high"]
    assert table["map_at_3"]["value"] == pytest.approx(map_at_3(logits, labels))


def test_no_clips_have_no_scores():
    table = score_table(np.zeros((0, 5), np.float32), np.zeros(0, np.int64))
    nothing = {"value": None, "low": None, "high": None}
    assert table == {"num_clips": 0, "top3_error": nothing, "accuracy": nothing, "map_at_3": nothing}
