"""Random-effects meta-analysis of one difference over several data sets, and what the data sets have in common."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.optimize
import scipy.stats

from audiotag_jax.evaluation.intervals import LEVEL, equivalence_p


class Pooled(NamedTuple):
    """A mean over data sets, its 95 % limits and p values of it being 0 and of it lying outside the margin."""

    value: float
    low: float
    high: float
    standard_error: float
    p: float
    p_equivalence: float


class MetaAnalysis(NamedTuple):
    """Both means over k data sets, and how much these differ among each other.

    `random`: of the data sets that there might be. `fixed`: of these data sets, with equal weights. `tau2`: variance of
    true differences between data sets; `q`, `p_q`: Cochran's test that it is 0; `i2`: its share of the scatter, 0 to 1.
    `prediction`: 95 % limits of the true difference in another data set, None for fewer than three.
    """

    random: Pooled
    fixed: Pooled
    tau2: float
    q: float
    p_q: float
    i2: float
    prediction: tuple[float, float] | None


def meta_analysis(values: Sequence[float], standard_errors: Sequence[float], margin: float) -> MetaAnalysis:
    """Pools the differences [k] of k data sets with their standard errors [k], all above 0.

    tau2 is Paule and Mandel's (1982), I2 Higgins and Thompson's (2002) from Q, the interval Hartung and Knapp's with
    k - 1 degrees of freedom, never narrower than with the variance that the weights give (Knapp and Hartung, 2003): a
    few data sets that agree by chance would otherwise seem certain. The prediction interval has k - 2 degrees of
    freedom (Higgins, Thompson and Spiegelhalter, 2009). One data set is both means, by the normal distribution.
    Raises ValueError without data sets, and for a standard error that is not above 0.
    """
    y, variances = np.asarray(values, np.float64), np.square(np.asarray(standard_errors, np.float64))
    if not len(y) or not (variances > 0).all():
        raise ValueError("a meta-analysis needs one data set or more, each with a standard error above 0")
    k = len(y)
    fixed = _pooled(y.mean(), np.sqrt(variances.sum()) / k, np.inf, margin)
    weights = 1 / variances
    q = float(weights @ np.square(y - np.average(y, weights=weights)))
    if k == 1:
        return MetaAnalysis(fixed, fixed, 0.0, 0.0, 1.0, 0.0, None)
    tau2 = _paule_mandel(y, variances)
    weights = 1 / (variances + tau2)
    mean = np.average(y, weights=weights)
    scale = max(1.0, weights @ np.square(y - mean) / (k - 1))
    error = np.sqrt(scale / weights.sum())
    prediction = None
    if k > 2:
        half = scipy.stats.t.ppf(1 - LEVEL / 2, k - 2) * np.sqrt(tau2 + error**2)
        prediction = (float(mean - half), float(mean + half))
    p_q, i2 = float(scipy.stats.chi2.sf(q, k - 1)), max(0.0, 1 - (k - 1) / q) if q else 0.0
    return MetaAnalysis(_pooled(mean, error, k - 1, margin), fixed, tau2, q, p_q, i2, prediction)


def _paule_mandel(y: np.ndarray, variances: np.ndarray) -> float:
    """Returns the tau2 for which the weighted sum of squares is its expectation, k - 1; 0 where it is already less."""

    def excess(tau2: float) -> float:
        weights = 1 / (variances + tau2)
        return float(weights @ np.square(y - np.average(y, weights=weights))) - (len(y) - 1)

    if excess(0.0) <= 0:
        return 0.0
    upper = float(np.square(y - y.mean()).sum())  # each weight is below 1 / tau2, so there excess is below 2 - k
    return float(scipy.optimize.brentq(excess, 0.0, upper, xtol=1e-18, rtol=1e-12))


def _pooled(value: float, error: float, degrees: float, margin: float) -> Pooled:
    half = scipy.stats.t.ppf(1 - LEVEL / 2, degrees) * error  # of infinite degrees: the normal distribution
    p = 2 * float(scipy.stats.t.sf(abs(value) / error, degrees))
    equivalent = equivalence_p(value, error, margin, degrees)
    return Pooled(float(value), float(value - half), float(value + half), float(error), p, equivalent)
