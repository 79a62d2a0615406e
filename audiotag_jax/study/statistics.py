"""Scores of a study with intervals, and each variant's paired difference to a baseline, tested in two ways."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats

from audiotag_jax.evaluation.metrics import SCORES
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.study.ensembles import Entry, entries
from audiotag_jax.study.results import Results

RIGHT: dict[str, Callable[[np.ndarray], np.ndarray]] = {  # the scores that call a clip right or wrong, by label ranks
    "top3_error": lambda ranks: ranks < 3,
    "accuracy": lambda ranks: ranks == 0,
}
Z = scipy.stats.norm.ppf(0.975)
COUNTS_AT_ONCE = 4_000_000  # how often each clip is drawn, for as many resamples as fit into this many numbers


class Estimates(NamedTuple):
    """Means of R columns, their 95 % limits and two-sided p values of the mean being 0, each `[R]`."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray


@dataclasses.dataclass(frozen=True)
class _Sample:
    """One block of the table: rows with the ranks of the n chosen clips; masks [n] by fold, None on test clips.

    `recordings` [n] int, from 0: clips of the same recording have the same number.
    """

    part: str
    clips: str
    rows: list[Entry]
    folds: list[np.ndarray] | None
    recordings: np.ndarray


def study_scores(
    results: Results,
    baseline: str,
    usage: Mapping[str, str] | None = None,
    recordings: Mapping[str, str] | None = None,
    *,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> dict:
    """All figures of the study as dicts, lists, numbers and None, the same for the same input.

    `usage` tells Public from Private test clips, by id; clips that it does not name count in the part "test" only.
    `recordings` names what clips were cut from, by id; the bootstrap draws whole recordings. Others stand alone.
    A row's scores are per-clip scores averaged over its networks, their intervals those of `bootstrap_means`, with
    the same resampled clips for all rows. `by_seed` has one value for each of the row's seeds (None where seeds are
    averaged), `by_fold` one a fold, ascending (None on test clips, and for a fold without such clips),
    `spread_over_seeds` the standard deviation of `by_seed` (n - 1; None with one seed).

    Differences are variant minus baseline, paired by clip. `p_bootstrap` is that of `bootstrap_means`, `p_mcnemar`
    that of `mcnemar` on the first seed that both have (on test clips: on the average of its folds; None for a score
    that is not right or wrong, or without such a seed), `discordant` the clips that only the variant, and only the
    baseline, gets right. `_holm`: corrected by `holm` over the variants of one part, choice of clips and score.

    Raises UserError if the baseline is not among the results.
    """
    names = [variant.variant for variant in results.variants]
    if baseline not in names:
        raise UserError(f"There is no finished run of the baseline {baseline!r}; there are: {', '.join(names)}.")
    rows, differences = [], []
    for sample in _samples(results, usage or {}, recordings or {}):
        values = {row.name: _values(row) for row in sample.rows}
        pairs = {name: values[name] - values[baseline] for name in names if name != baseline}
        options = {"groups": sample.recordings, "num_resamples": num_resamples, "seed": seed}
        estimates = _estimates(values, 0.0, options)
        rows += [_row(row, sample, estimates[row.name], values[row.name]) for row in sample.rows]
        differences += _differences(sample, baseline, _estimates(pairs, -1.0, options))
    about = {"baseline": baseline, "classes": list(results.classes), "num_resamples": num_resamples}
    return about | {"rows": rows, "differences": differences}


def _values(row: Entry) -> np.ndarray:
    """Per-clip scores [3, n], averaged over seeds and networks."""
    return np.stack([score(row.ranks).mean((0, 1)) for score in SCORES.values()])


def _samples(results: Results, usage: Mapping[str, str], recordings: Mapping[str, str]) -> Iterator[_Sample]:
    """Every block that has clips; verified clips apart unless all are."""
    for test in (False, True) if results.test is not None else (False,):
        clips, rows = entries(results, test=test)
        parts = {"test" if test else "held out": np.ones(len(clips), bool)}
        names = [("", recordings[clip]) if recordings.get(clip) else (clip, "") for clip in clips.ids.tolist()]
        places = {name: place for place, name in enumerate(dict.fromkeys(names))}
        whole = np.array([places[name] for name in names])
        if test:
            used = [usage.get(clip, "").lower() for clip in clips.ids.tolist()]
            parts |= {part: np.array([use == part for use in used], bool) for part in ("public", "private")}
        for part, chosen in parts.items():
            verified = chosen & clips.verified
            choices = {"all": chosen} if np.array_equal(verified, chosen) else {"all": chosen, "verified": verified}
            for kind, mask in choices.items():
                if mask.any():
                    few = [dataclasses.replace(row, ranks=row.ranks[..., mask]) for row in rows]
                    folds = None if test else [clips.folds[mask] == fold for fold in np.unique(clips.folds)]
                    yield _Sample(part, kind, few, folds, np.unique(whole[mask], return_inverse=True)[1])


def _estimates(
    values: Mapping[str, np.ndarray], lowest: float, options: Mapping[str, object]
) -> dict[str, dict[str, dict[str, float]]]:
    """For each name and score `{"value", "low", "high", "p"}`, from per-clip values [3, n]."""
    if not values:
        return {}
    columns = np.concatenate(list(values.values())).T
    estimates = bootstrap_means(columns, lowest, **options)
    keys = [(name, score) for name in values for score in SCORES]
    found: dict[str, dict] = {name: {} for name in values}
    for (name, score), *numbers in zip(keys, *(each.tolist() for each in estimates), strict=True):
        found[name][score] = dict(zip(Estimates._fields, numbers, strict=True))
    return found


def _row(row: Entry, sample: _Sample, estimates: Mapping[str, Mapping[str, float]], values: np.ndarray) -> dict:
    by_seed = by_fold = None
    if row.kind != "seeds":
        by_seed = {name: score(row.ranks).mean((1, 2)).tolist() for name, score in SCORES.items()}
    if sample.folds is not None:
        means = [[float(each[mask].mean()) if mask.any() else None for mask in sample.folds] for each in values]
        by_fold = dict(zip(SCORES, means, strict=True))
    return {
        "name": row.name,
        "kind": row.kind,
        "variants": list(row.variants),
        "seeds": [int(seed) for seed in row.seeds],
        "part": sample.part,
        "clips": sample.clips,
        "num_clips": values.shape[1],
        "num_recordings": int(sample.recordings.max()) + 1,
        "scores": {name: {key: each[key] for key in ("value", "low", "high")} for name, each in estimates.items()},
        "by_seed": by_seed,
        "by_fold": by_fold,
        "spread_over_seeds": {name: _spread(by_seed[name]) if by_seed else None for name in SCORES},
    }


def _spread(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _differences(sample: _Sample, baseline: str, estimates: Mapping[str, Mapping[str, dict]]) -> list[dict]:
    """The differences of every variant to the baseline, score by score."""
    found = []
    for score in SCORES:
        family = []
        for variant, by_score in estimates.items():
            p_mcnemar, discordant = _mcnemar(sample, variant, baseline, score)
            entry = {"variant": variant, "baseline": baseline, "part": sample.part, "clips": sample.clips}
            entry |= {"score": score} | {key: by_score[score][key] for key in ("value", "low", "high")}
            entry |= {"p_bootstrap": by_score[score]["p"], "p_bootstrap_holm": None}
            entry |= {"p_mcnemar": p_mcnemar, "p_mcnemar_holm": None, "discordant": discordant}
            family.append(entry)
        for key in ("p_bootstrap", "p_mcnemar"):
            tested = [entry for entry in family if entry[key] is not None]
            for entry, p in zip(tested, holm([entry[key] for entry in tested]), strict=True):
                entry[f"{key}_holm"] = p
        found += family
    return found


def _mcnemar(sample: _Sample, variant: str, baseline: str, score: str) -> tuple[float | None, list[int] | None]:
    """McNemar's test on the first common seed, which needs one answer a clip: on test clips its folds' average."""
    of = {(row.variants, row.kind): row for row in sample.rows if row.kind in ("single", "folds")}
    first, second = (of.get(((name,), "folds"), of[(name,), "single"]) for name in (variant, baseline))
    common = sorted(set(first.seeds) & set(second.seeds))
    if score not in RIGHT or not common:
        return None, None
    right = [RIGHT[score](row.ranks[row.seeds.index(common[0]), 0]) for row in (first, second)]
    return mcnemar(*right)


def mcnemar(first: np.ndarray, second: np.ndarray) -> tuple[float, list[int]]:
    """p of McNemar's exact two-sided test that two classifiers are right equally often, and the clips they differ on.

    `first`, `second` [n] bool: right or wrong, clip by clip. The discordant clips `[only first, only second]` are
    binomial with 1/2 under the null (McNemar, 1947); p is 1 where there are none.
    """
    discordant = [int((first & ~second).sum()), int((second & ~first).sum())]
    total = sum(discordant)
    return float(scipy.stats.binomtest(discordant[0], total).pvalue) if total else 1.0, discordant


def holm(p_values: Sequence[float]) -> list[float]:
    """Step-down p values that hold the chance of any false rejection among them (Holm, 1979)."""
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted[np.argsort(order, kind="stable")].tolist()


def bootstrap_means(
    values: np.ndarray,
    lowest: float,
    groups: np.ndarray | None = None,
    *,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> Estimates:
    """Means of columns [n, R] of per-clip values in [lowest, 1], by resampling clips, the same ones for every column.

    `groups` [n] int, every number from 0: clips with the same number, which are alike, are drawn together, as many
    groups as there are; a resample's mean is that over the clips it happens to hold (the cluster bootstrap).

    Limits are the 2.5 and 97.5 percentiles of the resampled means. Where all clips (or groups) have the same
    mean, resampling gives no width: there an unseen share of up to Wilson's limit for 0 of n of them may have any
    other value, which is Wilson's interval where that value is 0 or 1.

    p: (1 + resamples whose mean lies as far from the seen mean as that from 0) / (1 + resamples), the null
    distribution being the recentred one (Efron & Tibshirani, 1993, chapter 16); never below 2^(1 - m) for m clips
    (or groups) that are not 0, the least that swapping signs could give, since few make the bootstrap too sure.
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
    else:
        low = high = p = mean
    unseen = Z**2 / (n + Z**2)
    low = np.where(constant, mean - unseen * (mean - lowest), low)
    high = np.where(constant, mean + unseen * (1 - mean), high)
    fewest = np.exp2(1.0 - np.count_nonzero(np.abs(sums) > 1e-9, axis=0))
    return Estimates(mean, low, high, np.minimum(np.maximum(p, fewest), 1.0))
