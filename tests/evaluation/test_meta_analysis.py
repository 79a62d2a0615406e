"""Meta-analysis and equivalence against statsmodels and closed form; how often true nulls are rejected."""

import numpy as np
import pytest
import scipy.stats

from audiotag_jax.evaluation.intervals import bootstrap_means, equivalence_p
from audiotag_jax.evaluation.meta_analysis import meta_analysis

DIFFERENT = ([0.02, -0.01, 0.05, 0.00], [0.010, 0.008, 0.012, 0.009])
ALIKE = ([0.010, 0.012, 0.009], [0.010, 0.008, 0.012])


@pytest.mark.parametrize(("values", "errors"), [DIFFERENT, ALIKE])
def test_agrees_with_statsmodels(values, errors):
    combine = pytest.importorskip("statsmodels.stats.meta_analysis").combine_effects
    theirs = combine(np.array(values), np.square(errors), method_re="iterated", atol=1e-14, use_t=True)
    ours = meta_analysis(values, errors, margin=0.01)
    assert ours.tau2 == pytest.approx(theirs.tau2, abs=1e-12)
    assert (ours.q, ours.i2) == pytest.approx((theirs.q, max(0.0, theirs.i2)))
    assert ours.random.value == pytest.approx(theirs.mean_effect_re)
    if ours.tau2 > 0:  # there Paule and Mandel's scale is 1, else it is below 1 and raised to it
        assert ours.random.standard_error == pytest.approx(theirs.sd_eff_w_re_hksj)
        limits = theirs.conf_int(use_t=True)[3]  # of random effects by Hartung and Knapp
        assert (ours.random.low, ours.random.high) == pytest.approx(limits)
    else:
        assert ours.random.standard_error == pytest.approx(theirs.sd_eff_w_fe)
    assert ours.p_q == pytest.approx(theirs.test_homogeneity().pvalue)


def test_equal_data_sets_have_no_heterogeneity():
    found = meta_analysis([0.02, 0.02, 0.02], [0.01, 0.01, 0.01], margin=0.01)
    assert (found.tau2, found.q, found.i2) == pytest.approx((0, 0, 0))
    assert found.random.value == found.fixed.value == pytest.approx(0.02)
    assert found.fixed.standard_error == found.random.standard_error == pytest.approx(0.01 / np.sqrt(3))
    half = scipy.stats.t.ppf(0.975, 2) * 0.01 / np.sqrt(3)
    assert (found.random.low, found.random.high) == pytest.approx((0.02 - half, 0.02 + half))
    half = scipy.stats.t.ppf(0.975, 1) * 0.01 / np.sqrt(3)
    assert found.prediction == pytest.approx((0.02 - half, 0.02 + half))


def test_one_data_set_is_itself():
    found = meta_analysis([0.02], [0.01], margin=0.01)
    assert found.random == found.fixed
    assert found.prediction is None
    assert found.random.p == pytest.approx(2 * scipy.stats.norm.sf(2))
    with pytest.raises(ValueError, match="one data set"):
        meta_analysis([], [], margin=0.01)


def test_random_effects_reject_a_true_null_in_one_study_of_twenty():
    rng = np.random.default_rng(0)
    errors = np.array([0.004, 0.008, 0.006, 0.010])
    true = rng.normal(0, 0.01, (400, 4))  # differences between data sets, around 0
    p = [meta_analysis(each, errors, margin=0.01).random.p for each in rng.normal(true, errors)]
    assert 0.02 < np.mean(np.array(p) < 0.05) < 0.085


def test_two_one_sided_tests_agree_with_statsmodels():
    weightstats = pytest.importorskip("statsmodels.stats.weightstats")
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 2, (2, 500)).astype(float)
    second[100:] = first[100:]
    difference = first - second
    theirs = weightstats.ttost_paired(first, second, -0.05, 0.05)[0]
    error = difference.std(ddof=1) / np.sqrt(500)
    assert equivalence_p(difference.mean(), error, 0.05, degrees=499) == pytest.approx(theirs)
    bootstrap = bootstrap_means(difference[:, None], -1.0)
    assert equivalence_p(bootstrap.value[0], bootstrap.standard_error[0], 0.05) == pytest.approx(theirs, rel=0.15)


def test_equivalence_is_concluded_wrongly_in_one_study_of_twenty():
    rng = np.random.default_rng(0)
    p = [equivalence_p(each, 0.002, 0.01) for each in rng.normal(0.01, 0.002, 2000)]  # at the margin itself
    assert 0.035 < np.mean(np.array(p) < 0.05) < 0.065
    assert equivalence_p(0.0, 0.0, 0.01) == 0.0
    assert equivalence_p(-0.02, 0.0, 0.01) == 1.0
