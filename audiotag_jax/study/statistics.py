"""Scores of a study with intervals, and each variant's paired difference to a baseline, tested in two ways."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from audiotag_jax.evaluation import metrics, multilabel
from audiotag_jax.evaluation.decision import PARTS, decision_scores
from audiotag_jax.evaluation.intervals import bootstrap_means, correct, mcnemar, recording_numbers
from audiotag_jax.evaluation.task import MULTI_LABEL
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.study.ensembles import Entry, common_answers, entries
from audiotag_jax.study.results import Results
from audiotag_jax.study.several import P_VALUES, Block, pair_of


@dataclasses.dataclass(frozen=True)
class _Sample:
    """One block of the table: rows with the ranks of the n chosen clips; masks [n] by fold, None on test clips.

    `recordings` [n] int, from 0: clips of the same recording have the same number. `labels` [n], or [n, K].
    """

    part: str
    clips: str
    rows: list[Entry]
    folds: list[np.ndarray] | None
    recordings: np.ndarray
    labels: np.ndarray


def study_scores(
    results: Results,
    baseline: str,
    usage: Mapping[str, str] | None = None,
    recordings: Mapping[str, str] | None = None,
    *,
    averages: bool = True,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> dict:
    """Computes all figures of the study as dicts, lists, numbers and None, the same for the same input.

    `usage` marks test clips as Public or Private, by id; clips that it does not name count in the part "test" only.
    `recordings` names what clips were cut from, by id; the bootstrap draws whole recordings. Others count as one each.
    Without `averages` there are no rows of averaged variants.
    A row's scores are per-clip scores averaged over its networks, their intervals those of `bootstrap_means`, with
    the same resampled clips for all rows. `by_seed` has one value for each of the row's seeds, None where the score is
    not defined (None as a whole where seeds are averaged), `by_fold` one a fold, ascending (None on test clips, and for
    a fold without such clips), `spread_over_seeds` the standard deviation of `by_seed` (n - 1; None with one seed).

    Differences are variant minus baseline, paired by clip. `p_bootstrap` is that of `bootstrap_means`, `p_mcnemar`
    that of `mcnemar` on the first seed that both have (on test clips: on the average of its folds; None for a score
    that is not right or wrong, or without such a seed), `discordant` the clips that only the variant, and only the
    baseline, gets right. `_holm`: corrected by `holm` over the variants of one part, choice of clips and score.

    Where clips have any number of labels (then `task` is "multi_label"), scores are computed on all clips and on up to
    1,000 resamples of them; in place of McNemar's test predictions are swapped, `p_swap` of `paired.swap_test`, of the
    same networks. `by_class` has the scores of every class, with differences, tested and corrected over the classes;
    `decisions` what `decision.decision_scores` gives of held-out clips.

    Raises UserError if the baseline is not among the results.
    """
    names = [variant.variant for variant in results.variants]
    if baseline not in names:
        raise UserError(f"There is no finished run of the baseline {baseline!r}; there are: {', '.join(names)}.")
    samples = _samples(results, usage or {}, recordings or {}, averages)
    if results.task is MULTI_LABEL:
        return _several(list(samples), results.classes, baseline, num_resamples, seed)
    rows, differences = [], []
    for sample in samples:
        values = {row.name: _values(row) for row in sample.rows}
        pairs = {name: values[name] - values[baseline] for name in names if name != baseline}
        options = {"groups": sample.recordings, "num_resamples": num_resamples, "seed": seed}
        estimates = _estimates(values, 0.0, options)
        rows += [_row(row, sample, estimates[row.name], values[row.name]) for row in sample.rows]
        differences += _differences(sample, baseline, _estimates(pairs, -1.0, options))
    about = {"baseline": baseline, "classes": list(results.classes), "num_resamples": num_resamples}
    return about | {"rows": rows, "differences": differences}


def _several(samples: Sequence[_Sample], classes: Sequence[str], baseline: str, most: int, seed: int) -> dict:
    """Computes `study_scores` of clips with any number of labels."""
    size = max(sample.labels.size for sample in samples)
    number = min(most, multilabel.num_resamples(size))
    rows: list[dict] = []
    differences: list[dict] = []
    by_class: list[dict] = []
    decisions: list[dict] = []
    for sample in samples:
        block = Block(sample.rows, sample.labels == 1, sample.recordings, number, seed)
        common = {"part": sample.part, "clips": sample.clips}
        singles = [row for row in sample.rows if row.kind == "single"]
        named = {(row.variants, row.kind): row for row in sample.rows}
        found = {
            row.name: block.differences(row.name, baseline, pair_of(named, row.name, baseline))
            for row in singles
            if row.name != baseline
        }
        rows += [_several_row(row, sample, block) for row in sample.rows]
        for metric in metrics.MULTI_LABEL_METRICS:
            family = [
                {"variant": name, "baseline": baseline, **common, "score": metric.name, **each[metric.name]}
                | {"discordant": None}
                for name, each in found.items()
                if each[metric.name]["value"] is not None
            ]
            for key in P_VALUES:
                correct(family, key)
            differences += family
        for row in singles if sample.clips == "all" else ():
            table = block.by_class(row.name, classes)
            for score in multilabel.CLASS_METRICS if row.name in found else ():
                of_classes = found[row.name][score]
                for key in P_VALUES:
                    correct(of_classes, key)
                for entry, each in zip(table, of_classes, strict=True):
                    entry[f"{score}_difference"] = each
            by_class.append({"variant": row.name, **common, "classes": table})
            if sample.folds is not None:
                decisions.append({"variant": row.name, **common, **_decisions(row, sample, number, seed)})
    about = {"baseline": baseline, "classes": list(classes), "num_resamples": number, "task": MULTI_LABEL.name}
    about |= {"guessing": multilabel.guesses(samples[0].labels == 1)}
    return about | {"rows": rows, "differences": differences, "by_class": by_class, "decisions": decisions}


def _decisions(row: Entry, sample: _Sample, number: int, seed: int) -> dict:
    """Scores tags of the mean of a row's networks, by thresholds of other clips, as `decision_scores`."""
    folds = sample.folds or []
    parts = np.argmax(folds, axis=0) if len(folds) > 1 else sample.recordings % PARTS
    of_networks = row.logits
    logits = of_networks[0, 0]
    if len(of_networks) > 1:
        logits = MULTI_LABEL.logits(MULTI_LABEL.probabilities(of_networks).mean(axis=(0, 1)))
    return decision_scores(logits, sample.labels, parts, sample.recordings, seed, number)


def _several_row(row: Entry, sample: _Sample, block: Block) -> dict:
    by_seed = None if row.kind == "seeds" else block.by_seed(row.name)
    by_fold = None if sample.folds is None else block.by_part(row.name, sample.folds)
    return _described(row, sample, block.scores(row.name), by_seed, by_fold)


def _values(row: Entry) -> np.ndarray:
    """Returns per-clip scores [M, n] of the M metrics, averaged over seeds and networks."""
    return np.stack([each.values(row.ranks).mean((0, 1)) for each in metrics.METRICS])


def _samples(
    results: Results, usage: Mapping[str, str], recordings: Mapping[str, str], averages: bool
) -> Iterator[_Sample]:
    """Yields every block that has clips; verified clips apart unless all are."""
    for test in (False, True) if results.test is not None else (False,):
        clips, rows = entries(results, test=test, averages=averages)
        parts = {"test" if test else "held out": np.ones(len(clips), bool)}
        whole = recording_numbers(clips.ids.tolist(), recordings)
        if test:
            used = [usage.get(clip, "").lower() for clip in clips.ids.tolist()]
            parts |= {part: np.array([use == part for use in used], bool) for part in ("public", "private")}
        for part, chosen in parts.items():
            verified = chosen & clips.verified
            choices = {"all": chosen} if np.array_equal(verified, chosen) else {"all": chosen, "verified": verified}
            for kind, mask in choices.items():
                if mask.any():
                    few = [row.of(mask) for row in rows]
                    folds = None if test else [clips.folds[mask] == fold for fold in np.unique(clips.folds)]
                    groups = np.unique(whole[mask], return_inverse=True)[1]
                    yield _Sample(part, kind, few, folds, groups, clips.labels[mask])


def _estimates(
    values: Mapping[str, np.ndarray], lowest: float, options: Mapping[str, Any]
) -> dict[str, dict[str, dict[str, float]]]:
    """Returns for each name and metric a dict of the fields of `Estimates`, from per-clip values [M, n]."""
    if not values:
        return {}
    columns = np.concatenate(list(values.values())).T
    estimates = bootstrap_means(columns, lowest, **options)._asdict()
    keys = [(name, each.name) for name in values for each in metrics.METRICS]
    found: dict[str, dict] = {name: {} for name in values}
    for index, (name, metric) in enumerate(keys):
        found[name][metric] = {field: float(numbers[index]) for field, numbers in estimates.items()}
    return found


def _row(row: Entry, sample: _Sample, estimates: Mapping[str, Mapping[str, float]], values: np.ndarray) -> dict:
    by_seed = by_fold = None
    if row.kind != "seeds":
        by_seed = {each.name: each.values(row.ranks).mean((1, 2)).tolist() for each in metrics.METRICS}
    if sample.folds is not None:
        means = [[float(each[mask].mean()) if mask.any() else None for mask in sample.folds] for each in values]
        by_fold = {each.name: by for each, by in zip(metrics.METRICS, means, strict=True)}
    scores = {name: {key: each[key] for key in ("value", "low", "high")} for name, each in estimates.items()}
    return _described(row, sample, scores, by_seed, by_fold)


def _described(row: Entry, sample: _Sample, scores: dict, by_seed: dict | None, by_fold: dict | None) -> dict:
    """Returns the row's entry: what it is, on which clips, and its scores."""
    return {
        "name": row.name,
        "kind": row.kind,
        "variants": list(row.variants),
        "seeds": [int(seed) for seed in row.seeds],
        "part": sample.part,
        "clips": sample.clips,
        "num_clips": len(sample.recordings),
        "num_recordings": int(sample.recordings.max()) + 1,
        "scores": scores,
        "by_seed": by_seed,
        "by_fold": by_fold,
        "spread_over_seeds": {name: _spread(by_seed[name]) if by_seed else None for name in scores},
    }


def _spread(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.std(defined, ddof=1)) if len(defined) > 1 else None


def _differences(sample: _Sample, baseline: str, estimates: Mapping[str, Mapping[str, dict]]) -> list[dict]:
    """Returns the differences of every variant to the baseline, metric by metric, with corrected p values."""
    found = []
    for metric in metrics.METRICS:
        family = []
        for variant, by_metric in estimates.items():
            p_mcnemar, discordant = _mcnemar(sample, variant, baseline, metric)
            entry: dict[str, Any] = {
                "variant": variant,
                "baseline": baseline,
                "part": sample.part,
                "clips": sample.clips,
            }
            found_by = by_metric[metric.name]
            entry |= {"score": metric.name}
            entry |= {key: found_by[key] for key in ("value", "low", "high", "standard_error")}
            entry |= {"p_bootstrap": found_by["p"], "p_bootstrap_holm": None}
            entry |= {"p_mcnemar": p_mcnemar, "p_mcnemar_holm": None, "discordant": discordant}
            family.append(entry)
        for key in ("p_bootstrap", "p_mcnemar"):
            correct(family, key)
        found += family
    return found


def _mcnemar(
    sample: _Sample, variant: str, baseline: str, metric: metrics.Metric
) -> tuple[float | None, list[int] | None]:
    """Returns McNemar's p and the discordant clips of the first common seed, on test clips of its folds' average."""
    found = common_answers({(row.variants, row.kind): row for row in sample.rows}, variant, baseline)
    if metric.is_right is None or found is None:
        return None, None
    right = [metric.is_right(row.ranks[place, 0]) for row, place in found]
    return mcnemar(*right)
