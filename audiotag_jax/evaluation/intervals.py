"""Intervals of mean scores and paired tests, aware of clips that come from the same recording."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats

from audiotag_jax.evaluation import metrics
from audiotag_jax.evaluation.predictions import Predictions, select

LEVEL = 0.05  # of tests
Z = scipy.stats.norm.ppf(1 - LEVEL / 2)
COUNTS_AT_ONCE = 4_000_000  # how often each clip is drawn, for as many resamples as fit into this many numbers


class Estimates(NamedTuple):
    """Means of R columns, their 95 % limits, two-sided p values of the mean being 0, standard errors, each `[R]`."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray
    standard_error: np.ndarray

    def limits(self, column: int = 0) -> dict[str, float]:
        """Returns the `value` of a column, its `low` and its `high` limit."""
        return {key: float(getattr(self, key)[column]) for key in ("value", "low", "high")}


def score_table(predictions: Predictions) -> dict:
    """Returns `{"num_clips": n, "num_recordings": …, METRIC: {"value", "low", "high"}, …}`; None without clips.

    Intervals are those of `bootstrap_means` over recordings, with the clips in the order of their ids: the same numbers
    as in a study's report on the same clips.
    """
    saved = select(predictions, np.argsort(predictions["ids"], kind="stable"))
    ranks = metrics.label_ranks(saved["logits"], saved["labels"])
    groups = recording_numbers(saved["ids"].tolist(), dict(zip(saved["ids"], saved["recordings"], strict=True)))
    table: dict = {"num_clips": len(ranks), "num_recordings": len(np.unique(groups))}
    if not len(ranks):
        return table | {each.name: dict.fromkeys(("value", "low", "high")) for each in metrics.METRICS}
    columns = np.stack([each.values(ranks) for each in metrics.METRICS], axis=1)
    found = bootstrap_means(columns, 0.0, groups)
    for index, each in enumerate(metrics.METRICS):
        table[each.name] = found.limits(index)
    return table


def interval_95(values: np.ndarray, groups: np.ndarray | None = None, **options: int) -> tuple[float, float]:
    """Returns the 95 % interval (low, high) of the mean of per-clip values `[n]` in [0, 1], by `bootstrap_means`."""
    found = bootstrap_means(np.asarray(values, np.float64)[:, None], 0.0, groups, **options)
    return float(found.low[0]), float(found.high[0])


def recording_numbers(ids: Sequence[str], recordings: Mapping[str, str]) -> np.ndarray:
    """Returns the number `[n]` of each clip's recording, from 0 in the order of first clips.

    `recordings` names the recordings by clip id; a clip without a name is a recording of its own.
    """
    names = [("", recordings[clip]) if recordings.get(clip) else (clip, "") for clip in ids]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], int)


def detectable_difference(standard_error: float, num_tests: int, power: float = 0.5) -> float:
    """Returns the true difference that a two-sided test finds with probability `power` after Holm's correction.

    For the case that no other of the `num_tests` hypotheses is rejected, where Holm's step is Bonferroni's: a normal
    test at `LEVEL / num_tests` (Holm, 1979).
    """
    quantiles = scipy.stats.norm.ppf([1 - LEVEL / (2 * num_tests), power])
    return float(quantiles.sum() * standard_error)


def equivalence_p(difference: float, standard_error: float, margin: float, degrees: float = np.inf) -> float:
    """Returns p of two one-sided tests that the true difference lies within ±`margin` (Schuirmann, 1987).

    The larger of both p values, by t with so many `degrees` of freedom; infinite ones give the normal distribution.
    Below 0.05 the 90 % interval lies inside the margins. With a standard error of 0 it is 0 or 1.
    """
    room = margin - abs(difference)
    if standard_error == 0:
        return float(room <= 0)
    return float(scipy.stats.t.sf(room / standard_error, degrees))


def mcnemar(first: np.ndarray, second: np.ndarray) -> tuple[float, list[int]]:
    """Returns p of McNemar's exact two-sided test that two classifiers are right equally often, and discordant clips.

    `first`, `second` [n] bool: right or wrong, clip by clip. The discordant clips `[only first, only second]` are
    binomial with 1/2 under the null (McNemar, 1947); p is 1 where there are none.
    """
    discordant = [int((first & ~second).sum()), int((second & ~first).sum())]
    total = sum(discordant)
    return float(scipy.stats.binomtest(discordant[0], total).pvalue) if total else 1.0, discordant


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns step-down p values that control the chance of any false rejection among them (Holm, 1979)."""
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted[np.argsort(order, kind="stable")].tolist()


def correct(tests: Sequence[dict], key: str) -> None:
    """Adds `{key}_holm` to each of a family's tests: `holm` of their p values `key`; None, no test, stays None."""
    made = [each for each in tests if each[key] is not None]
    for each in tests:
        each[f"{key}_holm"] = None
    for each, p in zip(made, holm([each[key] for each in made]), strict=True):
        each[f"{key}_holm"] = p


def bootstrap_means(
    values: np.ndarray,
    lowest: float,
    groups: np.ndarray | None = None,
    *,
    highest: float = 1.0,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> Estimates:
    """Estimates means of columns [n, R] of per-clip values in [lowest, highest], by resampling clips.

    The resamples are the same ones for every column.

    `groups` [n] int, every number from 0: clips with the same number, which are alike, are drawn together, as many
    groups as there are; a resample's mean is that over the clips that it contains (the cluster bootstrap).

    Limits are the 2.5 and 97.5 percentiles of the resampled means. Where all clips (or groups) have the same
    mean, resampling gives no width: there an unseen share of up to Wilson's limit for 0 of n of them may have any
    other value, which is Wilson's interval where that value is 0 or 1.

    p: (1 + resamples whose mean lies as far from the seen mean as that from 0) / (1 + resamples), the null
    distribution being the recentred one (Efron & Tibshirani, 1993, chapter 16); never below 2^(1 - m) for m clips
    (or groups) that are not 0, the least that swapping signs could give, since few make the bootstrap too sure.

    The standard error is the standard deviation of the resampled means; without width, the half limits over 1.96.
    """
    values = np.round(values, 12)  # equal values stay equal, in whatever order seeds were summed
    mean = values.mean(0)
    groups = np.arange(len(values)) if groups is None else groups
    sizes = np.bincount(groups)
    sums = np.stack([np.bincount(groups, column) for column in values.T], axis=1)
    n, constant = len(sizes), np.ptp(sums / sizes[:, None], axis=0) < 1e-9
    if n > 1:
        batch = max(1, COUNTS_AT_ONCE // n)

        def means(indices: np.ndarray, axis: int) -> np.ndarray:  # [b, n] -> [R, b], as a product with counts
            flat = indices + n * np.arange(len(indices))[:, None]
            counts = np.bincount(flat.ravel(), minlength=n * len(indices)).reshape(-1, n)
            return (counts @ sums).T / (counts @ sizes)

        options = {"n_resamples": num_resamples, "batch": batch, "vectorized": True, "method": "percentile"}
        result = scipy.stats.bootstrap((np.arange(n),), means, rng=np.random.default_rng(seed), **options)
        low, high = result.confidence_interval
        far = np.abs(result.bootstrap_distribution - mean[:, None]) >= np.abs(mean)[:, None] - 1e-12
        p = (1 + far.sum(1)) / (1 + num_resamples)
        error = result.standard_error
    else:
        low = high = p = error = mean
    unseen = Z**2 / (n + Z**2)
    low = np.where(constant, mean - unseen * (mean - lowest), low)
    high = np.where(constant, mean + unseen * (highest - mean), high)
    error = np.where(constant, (high - low) / (2 * Z), error)
    fewest = np.exp2(1.0 - np.count_nonzero(np.abs(sums) > 1e-9, axis=0))
    return Estimates(mean, low, high, np.minimum(np.maximum(p, fewest), 1.0), error)
