"""Intervals and paired tests, against closed form, SciPy, statsmodels, and by how often they hold."""

import numpy as np
import pytest
import scipy.stats

from audiotag_jax.evaluation import intervals, metrics
from audiotag_jax.evaluation.intervals import (
    bootstrap_means,
    detectable_difference,
    holm,
    interval_95,
    mcnemar,
    recording_numbers,
    score_table,
)


def predictions(num_clips=60, num_classes=6, seed=0, copies=1):
    """Random logits, every clip with its `copies` of one recording."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, num_clips)
    logits = rng.normal(size=(num_clips, num_classes)) + 1.5 * (np.arange(num_classes) == labels[:, None])
    ids = np.array([f"{clip:03}-{copy}" for clip in range(num_clips) for copy in range(copies)])
    recordings = np.repeat([f"r{clip}" if copies > 1 else "" for clip in range(num_clips)], copies)
    verified = np.ones(len(ids), bool)
    arrays = {"labels": np.repeat(labels, copies), "logits": np.repeat(logits, copies, axis=0)}
    return {"ids": ids, "verified": verified, "recordings": recordings, **arrays}


# The table of one run.


def test_table():
    saved = predictions(200)
    table = score_table(saved)
    names = [metric.name for metric in metrics.METRICS]
    assert list(table) == ["num_clips", "num_recordings", *names]
    assert (table["num_clips"], table["num_recordings"]) == (200, 200)
    ranks = metrics.label_ranks(saved["logits"], saved["labels"])
    for metric in metrics.METRICS:
        each = table[metric.name]
        assert each["low"] < each["value"] < each["high"]
        assert each["value"] == pytest.approx(metric.values(ranks).mean())


def test_the_order_of_the_clips_makes_no_difference():
    saved = predictions(50)
    order = np.random.default_rng(1).permutation(50)
    assert score_table({name: values[order] for name, values in saved.items()}) == score_table(saved)


def test_copies_of_a_recording_are_no_more_evidence():
    one, four = score_table(predictions(80)), score_table(predictions(80, copies=4))
    alone = score_table(predictions(80, copies=4) | {"recordings": np.full(320, "")})
    assert (four["num_clips"], four["num_recordings"], alone["num_recordings"]) == (320, 80, 320)
    for metric in metrics.METRICS:
        assert four[metric.name] == pytest.approx(one[metric.name])
        width, narrow = (each[metric.name]["high"] - each[metric.name]["low"] for each in (four, alone))
        assert narrow == pytest.approx(width / 2, rel=0.15)


def test_no_clips_have_no_scores():
    empty = {name: values[:0] for name, values in predictions(5).items()}
    nothing = {"value": None, "low": None, "high": None}
    expected = {metric.name: nothing for metric in metrics.METRICS}
    assert score_table(empty) == {"num_clips": 0, "num_recordings": 0} | expected


def test_recordings_are_numbered_by_their_first_clips():
    numbers = recording_numbers(["a", "b", "c", "d"], {"b": "x", "d": "x", "c": ""})
    np.testing.assert_array_equal(numbers, [0, 1, 2, 1])
    np.testing.assert_array_equal(recording_numbers(["x", "y"], {"y": "x"}), [0, 1])  # an id is no recording's name


# Intervals and tests by themselves.


@pytest.mark.parametrize(("successes", "total"), [(0, 10), (10, 10), (1, 1)])
def test_clips_all_right_or_all_wrong_have_wilson_limits(successes, total):
    values = np.repeat([1.0, 0.0], [successes, total - successes])
    wilson = scipy.stats.binomtest(successes, total).proportion_ci(method="wilson")
    np.testing.assert_allclose(interval_95(values), (wilson.low, wilson.high), atol=1e-9)


def test_means_have_percentile_bootstrap_limits():
    values = np.random.default_rng(0).choice([0, 1 / 3, 1 / 2, 1], 300, p=[0.1, 0.1, 0.2, 0.6])
    low, high = interval_95(values)
    result = scipy.stats.bootstrap((values,), np.mean, n_resamples=9999, method="percentile", rng=1)
    width = result.confidence_interval.high - result.confidence_interval.low
    assert low == pytest.approx(result.confidence_interval.low, abs=0.06 * width)
    assert high == pytest.approx(result.confidence_interval.high, abs=0.06 * width)
    assert interval_95(values) == (low, high)  # seeded
    assert interval_95(values, seed=1) != (low, high)


def test_the_standard_error_is_that_of_a_mean():
    values = np.random.default_rng(0).normal(0.0, 0.3, (400, 1)).clip(-1, 1)
    found = bootstrap_means(values, -1.0, num_resamples=4000)
    assert found.standard_error[0] == pytest.approx(values.std() / np.sqrt(400), rel=0.05)
    constant = bootstrap_means(np.zeros((30, 1)), -1.0, num_resamples=50)
    width = (constant.high - constant.low)[0]
    assert constant.standard_error[0] == pytest.approx(width / (2 * 1.95996), rel=1e-4)


def test_the_detectable_difference_is_found_as_often_as_it_promises():
    """One of 13 variants differs by it, the others do not: how often Holm's method finds that one by both tests.

    Paired scores of 300 clips, of which 30 % differ; three differences are tested beside the same 12 true nulls.
    """
    rng, num_clips, share, num_tests = np.random.default_rng(0), 300, 0.3, 13
    error = np.sqrt(share / num_clips)
    naive = 1.96 * error  # half the width of an interval, uncorrected
    promised = [detectable_difference(error, num_tests, power) for power in (0.5, 0.8)]
    differences = np.array([naive, *promised, *[0.0] * (num_tests - 1)])
    found = []
    for trial in range(150):
        drawn = rng.random((num_clips, len(differences)))
        better = drawn < (share + differences) / 2
        worse = ~better & (drawn < share)
        p_bootstrap = bootstrap_means(better * 1.0 - worse, -1.0, num_resamples=2999, seed=trial).p
        p_mcnemar = np.array([mcnemar(*each)[0] for each in zip(better.T, worse.T, strict=True)])
        families = [[place, *range(3, len(differences))] for place in range(3)]
        corrected = [max(holm(p[family])[0] for p in (p_bootstrap, p_mcnemar)) for family in families]
        found.append(np.array(corrected) < intervals.LEVEL)
    naive_power, half, most = np.mean(found, axis=0)
    assert naive_power < 0.25 and 0.4 < half < 0.6 and 0.7 < most < 0.9, (naive_power, half, most)


@pytest.mark.parametrize(("total", "mean", "least"), [(40, 0.94, 0.85), (150, 0.95, 0.91)])
def test_intervals_of_shares_contain_the_truth_about_95_times_in_100(total, mean, least):
    """Exact coverage: the binomial probability of the counts whose interval contains the true share."""
    limits = [interval_95(np.repeat([1.0, 0.0], [k, total - k]), num_resamples=2000) for k in range(total + 1)]
    low, high = np.transpose(limits)
    truths = np.linspace(0.05, 0.95, 91)[:, None]
    inside = (low <= truths + 1e-12) & (truths <= high + 1e-12)
    coverage = (scipy.stats.binom.pmf(np.arange(total + 1), total, truths) * inside).sum(1)
    assert coverage.mean() == pytest.approx(mean, abs=0.01) and coverage.min() > least


def test_groups_of_different_sizes_have_the_cluster_robust_width():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(150), rng.integers(1, 6, 150))
    values = np.clip(0.5 + 0.2 * rng.standard_normal(150)[groups] + 0.1 * rng.standard_normal(len(groups)), 0, 1)
    found = bootstrap_means(values[:, None], 0.0, groups, num_resamples=4000)
    residuals = np.bincount(groups, values - values.mean())
    error = np.sqrt((residuals**2).sum()) / len(values)  # the cluster-robust standard error of a mean (Liang & Zeger)
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.06)
    alone = bootstrap_means(values[:, None], 0.0, num_resamples=4000)
    assert alone.high - alone.low < 0.75 * (found.high - found.low)


def test_groups_of_equal_means_get_wilson_s_limits_for_as_many_groups():
    """Resampling has no width, however much the clips of each differ; nor where there is one group only."""
    thirds = np.array([1 / 3, 1 / 3, -2 / 3] * 8)[:, None]
    for groups, n in ((np.repeat(np.arange(8), 3), 8), (np.zeros(24, int), 1)):
        found = bootstrap_means(thirds, -1.0, groups, num_resamples=99)
        high = scipy.stats.binomtest(0, n).proportion_ci(method="wilson").high
        assert (found.value[0], found.p[0]) == (pytest.approx(0, abs=1e-9), 1)
        assert (found.low[0], found.high[0]) == (pytest.approx(-high), pytest.approx(high))


def test_alike_clips_are_rejected_at_the_nominal_rate_only_when_grouped():
    rng, groups = np.random.default_rng(0), np.repeat(np.arange(40), 4)
    trials = rng.choice([-1.0, 0.0, 1.0], (40, 300), p=[0.2, 0.6, 0.2])[groups]
    grouped = np.mean(bootstrap_means(trials, -1.0, groups, num_resamples=499).p < 0.05)
    alone = np.mean(bootstrap_means(trials, -1.0, num_resamples=499).p < 0.05)
    assert grouped < 0.085 and alone > 0.2


@pytest.mark.parametrize("at_once", [1000, 10**6])
def test_means_agree_with_scipy_and_the_normal_limit(monkeypatch, at_once):
    monkeypatch.setattr(intervals, "COUNTS_AT_ONCE", at_once)  # several batches, or one
    rng = np.random.default_rng(0)
    values = np.stack([rng.choice([-1, -0.5, 0, 1], 300, p=p) for p in ([0.2, 0.1, 0.5, 0.2], [0.1, 0, 0.7, 0.2])], 1)
    found = bootstrap_means(values, -1.0, num_resamples=4000)
    for k, column in enumerate(values.T):
        expected = scipy.stats.bootstrap((column,), np.mean, n_resamples=4000, method="percentile", rng=1)
        width = expected.confidence_interval.high - expected.confidence_interval.low
        assert found.low[k] == pytest.approx(expected.confidence_interval.low, abs=0.08 * width)
        assert found.high[k] == pytest.approx(expected.confidence_interval.high, abs=0.08 * width)
        z = abs(column.mean()) / (column.std() / np.sqrt(300))
        assert found.p[k] == pytest.approx(2 * scipy.stats.norm.sf(z), abs=0.02)
        assert found.value[k] == pytest.approx(column.mean())


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_scores_of_clips_all_alike_have_wilson_limits(value):
    found = bootstrap_means(np.full((30, 1), value), 0.0, num_resamples=50)
    expected = scipy.stats.binomtest(int(30 * value), 30).proportion_ci(method="wilson")
    assert (found.low[0], found.high[0]) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_mcnemar_agrees_with_statsmodels():
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    rng = np.random.default_rng(0)
    for n in (5, 30, 400):
        first, second = rng.random(n) < 0.8, rng.random(n) < 0.7
        table = [[(first & second).sum(), (first & ~second).sum()], [(~first & second).sum(), (~first & ~second).sum()]]
        p, discordant = mcnemar(first, second)
        assert p == pytest.approx(tables.mcnemar(table, exact=True).pvalue)
        assert discordant == [table[0][1], table[1][0]]


def test_holm_by_hand():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.5, 0.9, 0.02]), [1, 1, 0.06])
    assert holm([0.2]) == [0.2] and holm([]) == []


def test_holm_agrees_with_statsmodels():
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    rng = np.random.default_rng(0)
    for size in (1, 2, 12):
        p = np.round(rng.random(size) ** 3, 2)  # with ties
        np.testing.assert_allclose(holm(p), multitest.multipletests(p, method="holm")[1])
