"""Paired comparisons of scores with several labels, resample by resample and swap by swap against scikit-learn."""

import numpy as np
import pytest
from scipy.stats import binom
from sklearn import metrics as reference

from audiotag_jax.evaluation.multilabel import METRICS, resamples, scores
from audiotag_jax.evaluation.paired import bootstrap_difference, swap_test

NUM_CLIPS, NUM_CLASSES, GROUPS = 60, 4, np.arange(60) // 3


@pytest.fixture
def two():
    """Logits of two classifiers and the truth; three clips a recording."""
    rng = np.random.default_rng(0)
    truth = rng.random((NUM_CLIPS, NUM_CLASSES)) < np.linspace(0.2, 0.5, NUM_CLASSES)
    first, second = (rng.normal(size=truth.shape) + strength * truth for strength in (1.6, 0.8))
    return np.round(first, 1), np.round(second, 1), truth  # with ties


def theirs(logits, truth, weights=None):
    """Scikit-learn's scores; clips without a label count nothing in lwlrap."""
    common = {"average": None, "sample_weight": weights}
    precision = reference.average_precision_score(truth, logits, **common)
    auc = reference.roc_auc_score(truth, logits, **common)
    number = truth.sum(1)
    own = number * (1 if weights is None else weights)
    known = number > 0
    lwlrap = reference.label_ranking_average_precision_score(truth[known], logits[known], sample_weight=own[known])
    micro = reference.average_precision_score(truth, logits, average="micro", sample_weight=weights)
    return {"map": precision.mean(), "lwlrap": lwlrap, "micro_ap": micro, "macro_auc": auc.mean()} | {
        "average_precision": precision,
        "roc_auc": auc,
    }


def test_every_resample_has_the_scores_of_scikit_learn(two):
    first, second, truth = two
    counts = resamples(GROUPS, truth.size, number=8)
    assert (counts.sum(1) == NUM_CLIPS).all() and (counts.reshape(8, -1, 3) == counts[:, ::3, None]).all()
    ours = scores(first, truth, counts), scores(second, truth, counts)
    for row, drawn in enumerate(counts):
        expected = [theirs(logits, truth, drawn) for logits in (first, second)]
        for name, value in expected[0].items():
            found = ours[0][name][row] - ours[1][name][row]
            np.testing.assert_allclose(found, value - expected[1][name], atol=1e-12)


def test_the_bootstrap_counts_recentred_differences():
    drawn, seen = np.array([0.0, 0.1, 0.25, 0.3, -0.2]), np.float64(0.1)
    found = bootstrap_difference(drawn, np.zeros(5), seen)
    assert found.p == pytest.approx((1 + 4) / 6)  # 0.0, 0.25, 0.3, -0.2 lie 0.1 or more from 0.1
    assert found.standard_error == pytest.approx(drawn.std(ddof=1))
    by_class = bootstrap_difference(np.stack([drawn, drawn * np.nan], 1), np.zeros((5, 2)), np.array([0.1, np.nan]))
    assert by_class.p[0] == pytest.approx(5 / 6) and np.isnan(by_class.p[1])


def test_swaps_are_those_of_a_plain_reading(two):
    """Of predictions that are ranks within the class already, each swap is scored by scikit-learn."""
    first, second, truth = (each[:15] for each in two)
    first, second = (np.argsort(np.argsort(each, axis=0), axis=0).astype(float) for each in (first, second))
    groups, number = GROUPS[:15], 14
    found = swap_test(first, second, truth, groups, num_swaps=number)
    draws = np.random.default_rng(0).integers(0, 2, (number, 5))[:, groups]
    seen = {name: value - theirs(second, truth)[name] for name, value in theirs(first, truth).items()}
    null = {name: [] for name in seen}
    for swapped in draws[:, :, None] == 1:
        a, b = np.where(swapped, second, first), np.where(swapped, first, second)
        for name, value in theirs(a, truth).items():
            null[name].append(value - theirs(b, truth)[name])
    for name, values in null.items():
        as_far = (np.abs(values) >= np.abs(seen[name]) - 1e-12).sum(0)
        np.testing.assert_allclose(found[name], (1 + as_far) / (1 + number))


def test_what_differs_is_found_and_scale_is_not(two):
    first, second, truth = two
    found = swap_test(first, second, truth, GROUPS)
    assert found["map"] < 0.05 and found["lwlrap"] < 0.05 and found["micro_ap"] < 0.05
    rescaled = swap_test(first, 3 * first - 1, truth, GROUPS, num_swaps=50)
    assert all(np.all(rescaled[name] == 1) for name in rescaled)
    swapped = swap_test(second, first, truth, GROUPS)
    assert {name: swapped[name] for name in METRICS} == {name: found[name] for name in METRICS}


def test_copies_of_a_recording_are_no_new_evidence(two):
    first, second, truth = (each[:20] for each in two)
    one = swap_test(first, second, truth, np.arange(20))
    copied = [np.repeat(each, 4, axis=0) for each in (first, second, truth)]
    four = swap_test(*copied, np.repeat(np.arange(20), 4))
    alone = swap_test(*copied, np.arange(80))
    assert four["lwlrap"] == pytest.approx(one["lwlrap"], abs=0.02) and alone["lwlrap"] < one["lwlrap"] / 2


def test_a_class_without_clips_has_no_test(two):
    first, second, truth = two
    truth[:, 1] = False
    found = swap_test(first, second, truth, GROUPS, num_swaps=20)
    assert np.isnan(found["average_precision"][1]) and np.isfinite(found["map"])


def test_true_nulls_are_rejected_at_most_at_the_nominal_rate():
    """Of pairs of equally good classifiers on recordings of three clips each, both tests together."""
    rejected = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        truth = np.repeat(rng.random((20, 2)) < 0.4, 3, axis=0)
        noise = [np.repeat(rng.normal(size=(20, 2)), 3, axis=0) for _ in range(3)]
        first, second = (truth + 0.5 * noise[0] + 0.5 * own for own in noise[1:])
        p_swap = swap_test(first, 2 * second, truth, GROUPS, num_swaps=99)
        rejected.append([p_swap[name] < 0.05 for name in METRICS])
    assert binom.sf(np.sum(rejected, axis=0).max() - 1, 60, 0.05) > 0.01
