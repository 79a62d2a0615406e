"""Sections of the study's report (`study_report.py`) from predictions beside those of the protocol's main tables."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from audiotag_jax.evaluation.intervals import LEVEL
from audiotag_jax.study import store
from audiotag_jax.study.across import across
from audiotag_jax.study.across_report import differs, is_equivalent
from audiotag_jax.study.datasets import PREDICTIONS
from audiotag_jax.study.markdown import interval, table
from audiotag_jax.study.naming import p_text
from benchmarks import compare_strides, robustness

FAMILIES = {
    "probes": "Probes: linear classifiers of frozen EfficientNet-Lite0, ImageNet weights",
    "small": "The small network from random weights, 24 epochs",
    "finetuned": "EfficientNet-Lite0 fine-tuned from ImageNet weights, 5 + 10 epochs",
}
HIRES = ("hires_q1", "hires_q2", "hires_q4", "hires_q8")
HIGH = (*HIRES, "mix_q1_q4_q8", "mix_q1_q8_log")
WINDOWS, STRIDES, ROBUSTNESS = "windows", "strides", "robustness"  # folders of runs
BASELINE, MARGIN = "log_db", 0.01


def read(folder: Path) -> dict[str, store.Saved]:
    """Returns the saved predictions by data set."""
    return {path.parent.name: store.read(path.parent) for path in sorted(folder.glob(f"{PREDICTIONS}/*/about.json"))}


def runs_of(folder: Path) -> dict[str, dict[str, store.Saved]]:
    """Returns the saved predictions by data set of each run below a folder, by name."""
    names = sorted({path.parents[2].name for path in folder.glob(f"*/{PREDICTIONS}/*/about.json")}, key=_natural)
    return {name: read(folder / name) for name in names}


def _natural(name: str) -> tuple[str, int]:
    head, _, number = name.rpartition("-")
    return (head, int(number)) if number.isdecimal() else (name, 0)


def beside(study: Path, folder: str, more: tuple[str, ...] = ()) -> dict[str, Mapping]:
    """Returns, by data set, figures of the runs below a folder, each variant named after its run, against the baseline.

    The baseline, and `more` variants, are those of the committed probes.
    """
    found = {}
    for dataset, of_probes in read(study / "probes").items():
        results = of_probes.results
        variants = [results[name] for name in (BASELINE, *more)]
        for name, run in runs_of(study / folder).items():
            if dataset in run:
                other = run[dataset].results
                if other.held_out.ids.tolist() != results.held_out.ids.tolist():
                    raise SystemExit(f"{study / folder / name}: other clips of {dataset} than the probes")
                variants += [dataclasses.replace(v, variant=f"{v.variant}, {name}") for v in other.variants]
        if len(variants) > 1 + len(more):
            one = dataclasses.replace(results, variants=tuple(variants))
            saved = {dataset: store.Saved(one, [], None)}
            found[dataset] = across(saved, baseline=BASELINE, margin=MARGIN, pooled=[])["datasets"][dataset]
    return found


def beside_tables(found: Mapping[str, Mapping], inner: Mapping[str, Mapping[str, float]] | None = None) -> list[str]:
    """Returns a table for each data set, with the losses on `inner` splits by data set and name if they are given."""
    lines = []
    for dataset, each in found.items():
        accuracy = each["variants"]
        rows = [[BASELINE, "", ""]]
        rows += [[d["variant"], interval(d, "+"), p_text(d["p_bootstrap_holm"])] for d in each["differences"]]
        cells = [[f"`{name}`", interval(accuracy[name]), *rest] for name, *rest in rows]
        header = [dataset, "accuracy", f"difference to `{BASELINE}`", "p"]
        if inner is not None:
            header.append("inner")
            losses = (inner[dataset].get(name) for name, *_ in rows)
            cells = [[*row, "–" if loss is None else f"{loss:.3f}"] for row, loss in zip(cells, losses, strict=True)]
        lines += table(header, cells)
    return lines


def windows(study: Path, found: Mapping[str, Mapping]) -> list[str]:
    """Returns the section on sensitivity: shorter windows of the usual variants, and which exceed the best other."""
    others = beside(study, WINDOWS)
    if not others:
        return []
    lines = ["## Sensitivity: the window of the usual variants", ""]
    for dataset, each in others.items():
        of_probes = found["probes"]["datasets"][dataset]["variants"]
        best = max(HIGH, key=lambda name: of_probes[name]["value"])
        above = [name for name, score in each["variants"].items() if score["value"] > of_probes[best]["value"]]
        lines += [
            f"On {dataset} the best high-resolution variant is {best} ({of_probes[best]['value']:.3f}); above it: "
            f"{', '.join(f'`{name}`' for name in above) or 'none'}. All windows but those named are of 2,048 samples.",
            "",
        ]
    return lines + beside_tables(others)


def strides(study: Path) -> list[str]:
    """Returns the section on the protocol's experiment on sampling: strides against 1."""
    folders = [study / STRIDES / name for name in runs_of(study / STRIDES)]
    if not folders:
        return []
    [dataset] = read(folders[0])
    rows = compare_strides.compare(folders, dataset, MARGIN)
    cells = []
    for row in rows:
        p, p_equivalent = (p_text(row[f"{key}_holm"]) for key in ("p_bootstrap", "p_equivalence"))
        equivalent = f"{'yes' if row['p_equivalence_holm'] < LEVEL else 'no'} ({p_equivalent})"
        cells.append([f"`{row['variant']}`", row["run"].removeprefix("stride-"), interval(row, "+"), p, equivalent])
    return [
        "## Does sampling matter?",
        "",
        f"Probes on {dataset} of images computed from one point in so many, minus those from all points (stride 1).",
        "",
        *table(("variant", "stride", "difference in accuracy", "p", f"equivalent within {MARGIN:g} (p)"), cells),
    ]


def disturbed(study: Path) -> list[str]:
    """Returns accuracies of the probes on disturbed sounds, by data set, in the order of the probes' variants."""
    lines = []
    for dataset, of_probes in read(study / "probes").items():
        folder = study / ROBUSTNESS / dataset
        there = {path.stem for path in folder.glob("*.npz")}
        variants = [v.variant for v in of_probes.results.variants if v.variant in there]
        if variants:
            recordings = {clip: of_probes.results.recordings.get(clip, "") for clip in of_probes.results.held_out.ids}
            found = robustness.read(folder, variants)
            clips = len(found[variants[0]]["labels"])
            lines += [f"Disturbed sounds: probes of {dataset} trained on clean sounds, {clips} held-out clips.", ""]
            lines += robustness.tables(found, recordings)
    return lines


def take(found: Mapping[str, Mapping]) -> list[str]:
    """Returns how many times the clips would be needed to find a difference of the margin in four of five studies."""
    lines = ["## What is open, and what it would take", ""]
    for family in FAMILIES:
        each = found[family]
        sizes = ", ".join(f"{name} {one['num_clips']:,}" for name, one in each["datasets"].items())
        entries = each["pooled"] or next(iter(each["datasets"].values()))["differences"]
        open_ones = [e for e in entries if not _settled(e)]
        if not open_ones:
            continue
        least, most = (extreme(e["detectable"][1] for e in open_ones) for extreme in (min, max))
        factors = [f"{(limit / MARGIN) ** 2:.0f}" for limit in (least, most)]
        span = factors[0] if factors[0] == factors[1] else f"{factors[0]} to {factors[1]}"
        names = ", ".join(e["variant"] for e in open_ones)
        lines.append(
            f"- {FAMILIES[family]}: open are {names}. To find a difference of {MARGIN:g} in four of five studies, "
            f"{span} times the clips ({sizes}) would be needed, of as many times the recordings."
        )
    return [*lines, ""]


def _settled(each: Mapping) -> bool:
    if "fixed" in each:
        return differs(each) or is_equivalent(each)
    return each["p_bootstrap_holm"] < LEVEL or each["p_equivalence_holm"] < LEVEL
