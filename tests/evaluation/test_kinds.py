"""Descriptors on sounds whose kind is known; the interaction test on known slopes and on none."""

import numpy as np
import pytest
import scipy.signal
import scipy.stats

from audiotag_jax.evaluation.descriptors import Descriptors, describe
from audiotag_jax.evaluation.kinds import class_means, interaction, kind_of

RATE_HZ = 16000


def tone():
    time = np.arange(RATE_HZ) / RATE_HZ
    return sum(np.sin(2 * np.pi * 220 * k * time) / k for k in range(1, 8))


def noise():
    return np.random.default_rng(0).normal(size=RATE_HZ)


def red_noise():
    return scipy.signal.lfilter([1], [1, -0.98], noise())


def clicks():
    x = np.zeros(RATE_HZ)
    x[2000::4000] = 1
    return x


@pytest.mark.parametrize(
    ("sound", "kind"), [(tone, "tonal"), (noise, "noisy"), (red_noise, "noisy"), (clicks, "percussive")]
)
def test_kinds_of_known_sounds(sound, kind):
    assert kind_of(*describe(sound(), RATE_HZ)) == kind


def test_level_and_padding_do_not_count():
    short = tone()[:4000]
    plain, padded = describe(short, RATE_HZ), describe(0.01 * np.pad(short, 6000), RATE_HZ)
    assert padded.harmonic_share == pytest.approx(plain.harmonic_share, abs=0.01)
    assert padded.flatness_db == pytest.approx(plain.flatness_db, abs=1.0)


def test_silence_has_the_lowest_values():
    assert describe(np.zeros(1000), RATE_HZ) == Descriptors(0.0, 0.0)


def test_a_known_slope_is_found():
    rng = np.random.default_rng(0)
    shares = [dict(enumerate(rng.uniform(size=n))) for n in (20, 12)]
    differences = [
        {label: offset - 0.1 * share for label, share in one.items()}
        for one, offset in zip(shares, (0.3, -0.2), strict=True)
    ]  # what differs between data sets does not count
    found = interaction(shares, differences, num_permutations=999)
    assert (found.slope, found.correlation, found.num_classes) == pytest.approx((-0.1, -1.0, 32))
    assert found.p == pytest.approx(1 / 1000)


def test_one_data_set_agrees_with_scipy():
    rng = np.random.default_rng(1)
    x, y = rng.uniform(size=15), rng.normal(size=15)
    y -= 0.8 * x
    found = interaction([dict(enumerate(x))], [dict(enumerate(y))])
    regression = scipy.stats.linregress(x, y)
    assert (found.slope, found.correlation) == pytest.approx((regression.slope, regression.rvalue))
    assert found.p == pytest.approx(regression.pvalue, abs=0.03)


def test_no_interaction_is_rejected_in_one_study_of_twenty():
    rng = np.random.default_rng(2)
    p = []
    for _ in range(400):
        shares, differences = ([dict(enumerate(draw(size=n))) for n in (12, 8)] for draw in (rng.uniform, rng.normal))
        p.append(interaction(shares, differences, num_permutations=199).p)
    assert 0.02 < np.mean(np.array(p) <= 0.05) < 0.085


def test_constant_properties_and_other_classes():
    assert interaction([{0: 1.0, 1: 1.0}], [{0: 0.5, 1: 0.1}]).p == 1.0
    with pytest.raises(ValueError, match="different classes"):
        interaction([{0: 1.0, 1: 2.0}], [{0: 0.5, 2: 0.1}])


def test_class_means():
    assert class_means(np.array([1.0, 0.0, 0.5]), np.array([2, 2, 0])) == {0: 0.5, 2: 0.5}
