"""Section of the study's report (`study_report.py`): every variant at the dynamic range that inner splits choose."""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from audiotag_jax.evaluation.intervals import Estimates, Z, bootstrap_means, recording_numbers
from audiotag_jax.study import store
from audiotag_jax.study.across import across, right
from audiotag_jax.study.datasets import PREDICTIONS
from audiotag_jax.study.markdown import interval, table
from audiotag_jax.study.results import VariantLogits
from benchmarks import inner_losses
from benchmarks.study_exploratory import CHOOSING, FORMS
from benchmarks.study_sections import BASELINE, MARGIN, difference_rows, kinds_table, of_common_variants, read, runs_of

RANGE, DEFAULT = "range-", 80  # runs with other ranges, by the beginning of their names; that of the probes, dB
FEWEST = 3  # ranges that a data set needs
LINEAR = ("linear_linear", "log_linear", "mel_linear")  # without a range in dB


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
    if len(ranges) < FEWEST:
        return []
    saved, counts = {}, {}
    for dataset, by_range in by_dataset.items():
        losses = {r: inner_losses.read_by_fold(runs[r] / PREDICTIONS / dataset) for r in ranges}
        saved[dataset], counts[dataset] = _composed({r: by_range[r] for r in ranges}, losses, dataset)
    pooled = [name for name in saved if name != CHOOSING]
    saved = of_common_variants(saved)
    found = across(saved, baseline=BASELINE, margin=MARGIN, pooled=pooled if len(pooled) > 1 else [])
    defaults = {name: each[DEFAULT] for name, each in by_dataset.items()}
    return [*_section(ranges, found, counts), *_changes(saved, defaults, pooled)]


def _composed(
    by_range: Mapping[int, store.Saved], losses: Mapping[int, Mapping[str, Mapping[str, float]]], dataset: str
) -> tuple[store.Saved, dict[str, Counter]]:
    """Returns predictions, each fold's from the range with the lowest of its `losses`, and what the folds chose.

    Variants of linear amplitude have no range in dB: they are as they were. Others are left out if they lack
    predictions or losses at some range. One seed is assumed.
    """
    default = by_range[DEFAULT]
    folds = default.results.held_out.folds
    for decibels, each in by_range.items():
        store.check_same_clips(default.results, each.results, f"{decibels} dB, {dataset}")
    variants, counts = [], {}
    for each in default.results.variants:
        name = each.variant
        if name in LINEAR:
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
        "cross-entropy (with the best of all penalties) on the fold's inner split, which contains training clips only;",
        "the same rule for the baseline. Linear amplitude has no such range: those variants are as they were.",
        f"{CHOOSING}, where ranges were looked at first, is left out of the mean. Intervals over recordings,",
        "uncorrected and without the choice of the range; \\*: distinguished within the data set; p: of the mean,",
        "Holm's over the variants.",
        "",
        *table(("variant", *found["datasets"], *mean), difference_rows(found, with_mean=bool(mean))),
        *kinds_table(found),
        "Ranges in dB that were chosen, with the number of folds:",
        "",
        *table(("variant", *counts), chosen),
    ]


def _counted(chosen: Counter) -> str:
    return ", ".join(f"{decibels} ({chosen[decibels]})" for decibels in sorted(chosen))


def _changes(chosen: Mapping[str, store.Saved], default: Mapping[str, store.Saved], pooled: list[str]) -> list[str]:
    """Returns what the choice of the range changes: each variant's difference to the baseline, chosen minus default."""
    rows: dict[str, list[str]] = {}
    estimates: dict[str, dict[str, Estimates]] = {}
    for dataset, each in chosen.items():
        clips, after = each.results.held_out, right(each.results)
        before = right(default[dataset].results)
        groups = recording_numbers(clips.ids.tolist(), each.results.recordings)
        for name in (name for name in after if name not in LINEAR):
            values = after[name] - before[name] - (after[BASELINE] - before[BASELINE]) * (name != BASELINE)
            found = bootstrap_means(values[:, None], -2.0, groups, highest=2.0)
            estimates.setdefault(name, {})[dataset] = found
            rows.setdefault(name, []).append(interval(found.limits(), "+") if values.any() else "0, no clip differs")
    for name, of in estimates.items() if len(pooled) > 1 else ():
        value = float(np.mean([of[dataset].value[0] for dataset in pooled]))
        room = Z * float(np.sqrt(sum(of[dataset].standard_error[0] ** 2 for dataset in pooled))) / len(pooled)
        rows[name].append(interval({"value": value, "low": value - room, "high": value + room}, "+"))
    mean = [f"mean of {', '.join(pooled)}"] * (len(pooled) > 1)
    named = {name: f"`{name}`, accuracy" if name == BASELINE else f"`{name}`" for name in rows}
    return [
        f"What the choice changes: the accuracy of `{BASELINE}`, and of the others the difference to it, minus those",
        f"at {DEFAULT} dB, paired by clip, with 95 % intervals over recordings, uncorrected:",
        "",
        *table(("variant", *chosen, *mean), [[named[name], *cells] for name, cells in rows.items()]),
    ]
