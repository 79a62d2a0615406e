"""Exploratory section of the study's report (`study_report.py`): trained networks again, and at other settings."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from audiotag_jax.evaluation import metrics
from audiotag_jax.evaluation.intervals import bootstrap_means, equivalence_p, recording_numbers
from audiotag_jax.study import store
from audiotag_jax.study.across import across
from audiotag_jax.study.markdown import interval, table
from audiotag_jax.study.naming import p_text
from audiotag_jax.study.results import Results, VariantLogits
from benchmarks.study_sections import BASELINE, MARGIN, read, runs_of

TRAINED = "trained"  # a folder of runs, each named FAMILY-WHAT
NETWORKS = {"small": "The small network", "finetuned": "Fine-tuned EfficientNet-Lite0"}
WHAT = {
    "again": "trained again",
    "range_40": "40 dB in place of 80",
    "bfloat16": "in bfloat16",
}


def trained(study: Path) -> list[str]:
    """Returns tables of the runs below `trained/`, against their own baseline and against those of their family."""
    lines = []
    for name, run in runs_of(study / TRAINED).items():
        family, _, what = name.partition("-")
        for dataset, each in run.items():
            whole = read(study / family)[dataset]
            store.check_same_clips(whole.results, each.results, f"{study / TRAINED / name}, {dataset}")
            lines += [f"### {NETWORKS[family]}, {WHAT[what]}: {dataset}", "", *_table(each, whole.results)]
    if not lines:
        return []
    return [
        "## Exploratory: trained networks, again and at other settings",
        "",
        f"Differences to `{BASELINE}` of the same run, and to the same variant with the same seeds in its family's",
        f"table above, paired by clip; intervals over recordings. p and equivalence within {MARGIN:g} (two one-sided",
        "tests) are uncorrected.",
        "",
        *lines,
    ]


def _table(saved: store.Saved, family: Results) -> list[str]:
    results = saved.results
    found = across({"": saved}, baseline=BASELINE, margin=MARGIN, pooled=[])["datasets"][""]
    to_baseline = {each["variant"]: each for each in found["differences"]}
    rows = []
    for each in results.variants:
        name, accuracy = each.variant, found["variants"][each.variant]
        by_seed = [f"{_hits(results, each, seed).mean():.3f} ({seed})" for seed in each.seeds]
        row = [f"`{name}`", interval(accuracy), ", ".join(by_seed)]
        if name in to_baseline:
            row += [interval(to_baseline[name], "+"), p_text(to_baseline[name]["p_bootstrap"])]
        else:
            row += ["", ""]
        rows.append([*row, *_to_family(results, each, family)])
    to_same = "difference to the same above"
    header = ("variant", "accuracy", "by seed", f"difference to `{BASELINE}`", "p", to_same, "p", "equivalent (p)")
    return table(header, rows)


def _to_family(results: Results, variant: VariantLogits, family: Results) -> list[str]:
    """Returns the difference to the variant's own family, over the seeds that both have, its p and equivalence."""
    other = family[variant.variant]
    seeds = [seed for seed in variant.seeds if seed in other.seeds]
    if not seeds:
        return ["–", "", ""]
    gain = np.mean([_hits(results, variant, s) - _hits(family, other, s) for s in seeds], axis=0)
    which = "" if len(seeds) == len(variant.seeds) else f", seed {', '.join(map(str, seeds))}"
    if not gain.any():
        return [f"0, no clip differs{which}", "", ""]
    numbers = recording_numbers(results.held_out.ids.tolist(), results.recordings)
    found = bootstrap_means(gain[:, None], -1.0, numbers)
    limits = {key: float(getattr(found, key)[0]) for key in ("value", "low", "high")}
    p = equivalence_p(limits["value"], float(found.standard_error[0]), MARGIN)
    return [interval(limits, "+") + which, p_text(float(found.p[0])), f"{'yes' if p < 0.05 else 'no'} ({p_text(p)})"]


def _hits(results: Results, variant: VariantLogits, seed: int) -> np.ndarray:
    logits = variant.of_seed(variant.seeds.index(seed), test=False)
    return metrics.hits(metrics.label_ranks(logits, results.held_out.labels)).astype(float)


def between_seeds(saved: Mapping[str, store.Saved]) -> list[str]:
    """Returns lines on how many trainings a family's table shows, and on how far apart they are."""
    seeds = {v.seeds for each in saved.values() for v in each.results.variants}
    if len(seeds) != 1:
        raise ValueError(f"not all variants were trained with the same seeds: {seeds}")
    [seeds_of_all] = seeds
    if len(seeds_of_all) == 1:
        return [f"One training each (seed {seeds_of_all[0]}): the intervals do not cover the randomness of training."]
    deviations = [
        np.std([_hits(each.results, v, seed).mean() for seed in v.seeds], ddof=1)
        for each in saved.values()
        for v in each.results.variants
    ]
    names, least, most = ", ".join(map(str, seeds_of_all)), min(deviations), max(deviations)
    return [
        f"Means of {len(seeds_of_all)} trainings each (seeds {names}), whose accuracies have standard deviations of",
        f"{least:.3f} to {most:.3f}; the intervals do not cover the choice of seeds.",
    ]
