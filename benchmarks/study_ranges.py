"""Section of the study's report (`study_report.py`): every variant at the dynamic range that inner splits choose."""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from audiotag_jax.study import store
from audiotag_jax.study.across import across
from audiotag_jax.study.datasets import PREDICTIONS
from audiotag_jax.study.markdown import table
from audiotag_jax.study.results import VariantLogits
from benchmarks import inner_losses
from benchmarks.study_exploratory import CHOOSING, FORMS
from benchmarks.study_sections import BASELINE, MARGIN, difference_rows, kinds_table, of_common_variants, read, runs_of

RANGE, DEFAULT = "range-", 80  # runs with other ranges, by the beginning of their names; that of the probes, dB
FEWEST = 3  # ranges that a data set needs


def chosen_ranges(study: Path) -> list[str]:
    """Returns the section; empty unless a data set has probes of at least `FEWEST` ranges with their inner losses."""
    runs = {DEFAULT: study / "probes"}
    runs |= {int(n.removeprefix(RANGE)): study / FORMS / n for n in runs_of(study / FORMS) if n.startswith(RANGE)}
    by_dataset: dict[str, dict[int, store.Saved]] = {}
    for decibels, folder in sorted(runs.items()):
        for dataset, each in read(folder).items():
            by_dataset.setdefault(dataset, {})[decibels] = each
    by_dataset = {name: each for name, each in by_dataset.items() if DEFAULT in each and len(each) >= FEWEST}
    if not by_dataset:
        return []
    ranges = sorted(set.intersection(*(set(each) for each in by_dataset.values())))
    saved, counts = {}, {}
    for dataset, by_range in by_dataset.items():
        losses = {r: inner_losses.read_by_fold(runs[r] / PREDICTIONS / dataset) for r in ranges}
        saved[dataset], counts[dataset] = _composed({r: by_range[r] for r in ranges}, losses, dataset)
    pooled = [name for name in saved if name != CHOOSING]
    found = across(
        of_common_variants(saved), baseline=BASELINE, margin=MARGIN, pooled=pooled if len(pooled) > 1 else []
    )
    return _section(ranges, found, counts)


def _composed(
    by_range: Mapping[int, store.Saved], losses: Mapping[int, Mapping[str, Mapping[str, float]]], dataset: str
) -> tuple[store.Saved, dict[str, Counter]]:
    """Returns predictions, each fold's from the range with the lowest of its `losses`, and what the folds chose.

    Variants of linear amplitude have no range in dB: they are as they were.
    """
    default = by_range[DEFAULT]
    folds = default.results.held_out.folds
    for decibels, each in by_range.items():
        store.check_same_clips(default.results, each.results, f"{decibels} dB, {dataset}")
    variants, counts = [], {}
    for each in default.results.variants:
        name = each.variant
        if name.endswith("_linear"):
            variants.append(each)
        elif all(name in {o.variant for o in by_range[r].results.variants} and name in losses[r] for r in by_range):
            logits = {r: other.results[name].held_out for r, other in by_range.items()}
            chosen = {
                fold: min(by_range, key=lambda r: losses[r][name][str(fold)]) for fold in np.unique(folds).tolist()
            }
            which = np.array([chosen[fold] for fold in folds.tolist()])[:, None]
            composed = sum(np.where(which == r, values, 0) for r, values in logits.items())
            variants.append(VariantLogits(name, (0,), np.asarray(composed, np.float32), None))
            counts[name] = Counter(chosen.values())
    return dataclasses.replace(default, results=dataclasses.replace(default.results, variants=tuple(variants))), counts


def _section(ranges: list[int], found: Mapping, counts: Mapping[str, Mapping[str, Counter]]) -> list[str]:
    pooled = [name for name, each in found["datasets"].items() if each["pooled"]]
    mean = [f"mean of {', '.join(pooled)}", "p", "equivalent"] if pooled else []
    names = dict.fromkeys(name for each in counts.values() for name in each)
    chosen = [
        [f"`{name}`", *(_counted(each[name]) if name in each else "–" for each in counts.values())] for name in names
    ]
    listed = ", ".join(map(str, ranges[:-1])) + f" and {ranges[-1]}"
    return [
        "## Exploratory: every variant at the range that its inner splits choose",
        "",
        f"Of {listed} dB below the clip's maximum, for each variant and fold the one with the lowest",
        "cross-entropy on the fold's inner split, which contains training clips only; the same rule for the baseline.",
        "Linear amplitude has no such range: those variants are as they were.",
        f"{CHOOSING}, where ranges were looked at first, is left out of the mean. Intervals over recordings,",
        "uncorrected; \\*: distinguished within the data set; p: of the mean, Holm's over the variants.",
        "",
        *table(("variant", *found["datasets"], *mean), difference_rows(found, with_mean=bool(mean))),
        *kinds_table(found),
        "Ranges in dB that were chosen, with the number of folds:",
        "",
        *table(("variant", *counts), chosen),
    ]


def _counted(chosen: Counter) -> str:
    return ", ".join(f"{decibels} ({chosen[decibels]})" for decibels in sorted(chosen))
