"""What the studies of several data sets show together: pooled differences, equivalence, and kinds of sound."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from audiotag_jax.evaluation import kinds, metrics
from audiotag_jax.evaluation.descriptors import Descriptors
from audiotag_jax.evaluation.intervals import (
    bootstrap_means,
    correct,
    detectable_difference,
    equivalence_p,
    recording_numbers,
)
from audiotag_jax.evaluation.meta_analysis import meta_analysis
from audiotag_jax.evaluation.task import MULTI_LABEL
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.study.results import Results
from audiotag_jax.study.statistics import study_scores
from audiotag_jax.study.store import Saved

SCORE = "accuracy"
# The contrast of benchmarks/PROTOCOL.md: is a small q better for clicks, a large one for steady sounds?
SMALL_Q, LARGE_Q = ("hires_q1", "hires_q2"), ("hires_q4", "hires_q8")
CONTRAST = "small q − large q"


def across(
    saved: Mapping[str, Saved],
    *,
    baseline: str,
    margin: float,
    pooled: Sequence[str],
    num_resamples: int = 10_000,
    seed: int = 0,
) -> dict:
    """Returns all figures on several data sets as dicts, lists, numbers and None, from the saved predictions of each.

    `datasets`: of each its size, the accuracy of every variant and its differences to the baseline as `study_scores`
    gives them, with `p_equivalence` (see `equivalence_p`) and the differences `detectable` with a probability of 0.5
    and 0.8. `pooled`: of each variant that all data sets in `pooled` have, the fields of `meta_analysis`. `_holm`:
    corrected over the variants, of a data set or of all. `kinds`: differences by kind of sound, over the data sets in
    `pooled`, and `interactions`: whether they depend on the harmonic share of the class; empty without descriptors.

    Raises UserError if a data set lacks the baseline.
    """
    options = {"num_resamples": num_resamples, "seed": seed}
    datasets = {}
    for name, each in saved.items():
        try:
            datasets[name] = _dataset(each.results, baseline, margin, options) | {"pooled": name in pooled}
        except UserError as error:
            raise UserError(f"{name}: {error}") from error
    found: dict[str, Any] = {"baseline": baseline, "margin": margin, "score": SCORE, "datasets": datasets}
    found["num_resamples"] = num_resamples
    found["pooled"] = _pooled({name: datasets[name] for name in pooled}, margin)
    described = {name: saved[name] for name in pooled if saved[name].descriptors is not None}
    found["kinds"] = _kinds(described, baseline, margin, options) if described else {}
    found["interactions"] = _interactions(described, baseline, seed) if described else []
    return found


def finished(saved: Mapping[str, Saved], listed: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns which of the `listed` data sets are pooled, and which are left out, whatever their scores.

    Pooled are those with all the variants that any of them has.
    """
    variants = {name: {v.variant for v in each.results.variants} for name, each in saved.items() if name in listed}
    wanted = set().union(*variants.values())
    chosen = [name for name in variants if variants[name] >= wanted]
    return chosen, [name for name in listed if name not in chosen]


def right(results: Results) -> dict[str, np.ndarray]:
    """Returns by variant the accuracy [n] of each held-out clip, 0 to 1, the mean over seeds."""
    labels = results.held_out.labels
    hits = {}
    for variant in results.variants:
        ranks = [metrics.label_ranks(logits, labels) for logits in variant.held_out]
        hits[variant.variant] = np.mean([metrics.hits(each) for each in ranks], axis=0)
    return hits


def _dataset(results: Results, baseline: str, margin: float, options: Mapping[str, Any]) -> dict:
    if results.task is MULTI_LABEL:
        raise UserError("clips with several labels have no accuracy, on which several data sets are compared.")
    scores = study_scores(results, baseline, recordings=results.recordings, **options)
    rows = [row for row in scores["rows"] if (row["kind"], row["part"], row["clips"]) == ("single", "held out", "all")]
    chosen = [
        each
        for each in scores["differences"]
        if (each["score"], each["part"], each["clips"]) == (SCORE, "held out", "all")
    ]
    for each in chosen:
        each["p_equivalence"] = equivalence_p(each["value"], each["standard_error"], margin)
        each["detectable"] = [detectable_difference(each["standard_error"], len(chosen), power) for power in (0.5, 0.8)]
    correct(chosen, "p_equivalence")
    size = {key: rows[0][key] for key in ("num_clips", "num_recordings")}
    size |= {"num_classes": len(results.classes), "num_folds": len(np.unique(results.held_out.folds))}
    variants = {row["name"]: row["scores"][SCORE] | {"seeds": row["seeds"]} for row in rows}
    return size | {"variants": variants, "differences": chosen}


def _pooled(datasets: Mapping[str, dict], margin: float) -> list[dict]:
    """Returns the meta-analysis of each variant that all data sets have, as a dict."""
    by_variant: dict[str, list[dict]] = {}
    for each in datasets.values():
        for difference in each["differences"]:
            by_variant.setdefault(difference["variant"], []).append(difference)
    found: list[dict[str, Any]] = []
    for variant, of_data in by_variant.items():
        if len(of_data) == len(datasets):
            analysis = meta_analysis([d["value"] for d in of_data], [d["standard_error"] for d in of_data], margin)
            fields: dict[str, Any] = analysis._asdict()
            fields |= {key: getattr(analysis, key)._asdict() for key in ("random", "fixed")}
            found.append({"variant": variant, "datasets": list(datasets)} | fields)
    for key in ("random", "fixed"):
        for name in ("p", "p_equivalence"):
            correct([each[key] for each in found], name)
    for each in found:
        each["detectable"] = [detectable_difference(each["fixed"]["standard_error"], len(found), p) for p in (0.5, 0.8)]
    return found


def _contrasts(hits: Mapping[str, np.ndarray], baseline: str) -> dict[str, np.ndarray]:
    """Returns per-clip differences [n]: every variant's to the baseline, small q's to large q's if all four exist."""
    found = {name: each - hits[baseline] for name, each in hits.items() if name != baseline}
    if hits.keys() >= {*SMALL_Q, *LARGE_Q}:
        small, large = (np.mean([hits[name] for name in names], axis=0) for names in (SMALL_Q, LARGE_Q))
        found[CONTRAST] = small - large
    return found


def class_descriptors(saved: Saved) -> dict[int, Descriptors]:
    """Returns the mean descriptors of each class, by its number."""
    labels, descriptors = saved.results.held_out.labels, saved.descriptors or {}
    columns = [kinds.class_means(descriptors[name], labels) for name in Descriptors._fields]
    return {label: Descriptors(*(column[label] for column in columns)) for label in columns[0]}


def _kinds(saved: Mapping[str, Saved], baseline: str, margin: float, options: Mapping[str, Any]) -> dict:
    """Returns by kind its `classes`, and of each contrast the mean over the data sets that have such classes.

    Data sets have equal weights, as in the primary test; `datasets` of a difference are those of each.
    """
    parts: dict[str, dict[str, dict]] = {kind: {} for kind in kinds.KINDS}
    classes: dict[str, list[str]] = {kind: [] for kind in kinds.KINDS}
    for name, each in saved.items():
        results, of_class = each.results, class_descriptors(each)
        kind_by_class = {label: kinds.kind_of(*values) for label, values in of_class.items()}
        for label, kind in sorted(kind_by_class.items()):
            classes[kind].append(f"{name}: {results.classes[label]}")
        numbers = recording_numbers(results.held_out.ids.tolist(), results.recordings)
        of_clip = np.array([kind_by_class[label] for label in results.held_out.labels.tolist()])
        for contrast, values in _contrasts(right(results), baseline).items():
            for kind in np.unique(of_clip).tolist():
                chosen = of_clip == kind
                parts[kind].setdefault(contrast, {})[name] = _mean(values[chosen], numbers[chosen], options)
    found = {}
    for kind, contrasts in parts.items():
        most = max(map(len, contrasts.values()), default=0)
        differences = [
            {"contrast": contrast} | _equal_weights(pieces, margin) | {"datasets": pieces}
            for contrast, pieces in contrasts.items()
            if len(pieces) == most
        ]
        found[kind] = {"classes": classes[kind], "differences": differences}
    return found


def _mean(values: np.ndarray, numbers: np.ndarray, options: Mapping[str, Any]) -> dict:
    """Returns the mean of per-clip differences [n] with limits by resampling recordings, `numbers` [n]."""
    groups = np.unique(numbers, return_inverse=True)[1]
    found = bootstrap_means(values[:, None], -1.0, groups, **options)
    limits = found.limits() | {"standard_error": float(found.standard_error[0])}
    return limits | {"num_clips": len(values), "num_recordings": int(groups.max()) + 1}


def _equal_weights(pieces: Mapping[str, Mapping[str, float]], margin: float) -> dict:
    """Returns the mean over data sets with limits; of one data set those of its bootstrap."""
    if len(pieces) == 1:
        [only] = pieces.values()
        return {key: only[key] for key in ("value", "low", "high", "standard_error")}
    values, errors = ([each[key] for each in pieces.values()] for key in ("value", "standard_error"))
    mean = meta_analysis(values, errors, margin).fixed
    return {key: getattr(mean, key) for key in ("value", "low", "high", "standard_error")}


def _interactions(saved: Mapping[str, Saved], baseline: str, seed: int) -> list[dict]:
    """Tests for each contrast that all data sets have whether it depends on the harmonic share of the class."""
    shares: list[dict[int, float]] = []
    by_contrast: dict[str, list[dict[int, float]]] = {}
    for each in saved.values():
        of_class = class_descriptors(each)
        shares.append({label: values.harmonic_share for label, values in of_class.items()})
        for name, values in _contrasts(right(each.results), baseline).items():
            by_contrast.setdefault(name, []).append(kinds.class_means(values, each.results.held_out.labels))
    found = []
    for name, differences in by_contrast.items():
        if len(differences) == len(saved):
            found.append({"contrast": name} | kinds.interaction(shares, differences, seed=seed)._asdict())
    correct([each for each in found if each["contrast"] != CONTRAST], "p")
    return found
