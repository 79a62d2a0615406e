"""Sections of the study's report (`study_report.py`) from predictions beside those of the protocol's main tables."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import scipy.stats

from audiotag_jax.evaluation.intervals import LEVEL
from audiotag_jax.study import store
from audiotag_jax.study.across import CONTRAST, across
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
PRIMARY = "probes"  # the family with a test on the mean over data sets; the others have tests within each
HIRES = ("hires_q1", "hires_q2", "hires_q4", "hires_q8")
HIGH = (*HIRES, "mix_q1_q4_q8", "mix_q1_q8_log")
WINDOWS, STRIDES, ROBUSTNESS, OCCLUSION = "windows", "strides", "robustness", "occlusion"  # folders
MOST = 1000  # data sets
NUM_STRIDES = 6  # comparisons of the protocol
BASELINE, MARGIN = "log_db", 0.01
LEGEND = (
    f"Differences to `{BASELINE}`: intervals over recordings, uncorrected; p values are Holm's over the rows shown."
)


def read(folder: Path) -> dict[str, store.Saved]:
    """Returns the saved predictions by data set."""
    return {path.parent.name: store.read(path.parent) for path in sorted(folder.glob(f"{PREDICTIONS}/*/about.json"))}


def of_common_variants(saved: Mapping[str, store.Saved]) -> dict[str, store.Saved]:
    """Returns the saved predictions of the variants that all data sets have."""
    names = set.intersection(*({v.variant for v in each.results.variants} for each in saved.values()))
    chosen = {name: tuple(v for v in each.results.variants if v.variant in names) for name, each in saved.items()}
    return {
        name: dataclasses.replace(each, results=dataclasses.replace(each.results, variants=chosen[name]))
        for name, each in saved.items()
    }


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
                store.check_same_clips(results, other, f"{study / folder / name}, {dataset}")
                variants += [dataclasses.replace(v, variant=f"{v.variant}, {name}") for v in other.variants]
        if len(variants) > 1 + len(more):
            one = dataclasses.replace(results, variants=tuple(variants))
            saved = {dataset: store.Saved(one, [], None)}
            found[dataset] = across(saved, baseline=BASELINE, margin=MARGIN, pooled=[])["datasets"][dataset]
    return found


def difference_rows(found: Mapping, *, with_mean: bool) -> list[list[str]]:
    """Returns the baseline's accuracies, then for each variant its differences, marked, and that on the mean."""
    pooled = {each["variant"]: each for each in found["pooled"]}
    datasets = found["datasets"].values()
    names = dict.fromkeys(d["variant"] for each in datasets for d in each["differences"])
    accuracies = [interval(each["variants"][BASELINE]) for each in datasets]
    text = [[f"`{BASELINE}`, accuracy", *accuracies, *["–"] * 3 * with_mean]]
    for name in names:
        own = [next((d for d in e["differences"] if d["variant"] == name), None) for e in datasets]
        cells = ["–" if d is None else interval(d, "+") + _mark(d) for d in own]
        if with_mean and name in pooled:
            each = pooled[name]
            cells += [interval(each["fixed"], "+"), p_text(each["fixed"]["p_holm"])]
            cells.append("yes" if is_equivalent(each) else "no")
        elif with_mean:
            cells += ["–"] * 3
        text.append([f"`{name}`", *cells])
    return text


def _mark(each: Mapping) -> str:
    differs = " \\*" if each["p_bootstrap_holm"] < LEVEL else ""
    return differs + (" =" if each["p_equivalence_holm"] < LEVEL else "")


def kinds_table(found: Mapping) -> list[str]:
    """Returns a table of the differences by kind of class, of what `across` found; empty without kinds."""
    kinds = {
        kind: {d["contrast"]: d for d in each["differences"] if d["contrast"] != CONTRAST}
        for kind, each in found["kinds"].items()
    }
    kinds = {kind: each for kind, each in kinds.items() if each}
    if not kinds:
        return []
    datasets = {kind: ", ".join(next(iter(each.values()))["datasets"]) for kind, each in kinds.items()}
    names = dict.fromkeys(name for each in kinds.values() for name in each)
    rows = [[f"`{v}`", *(interval(each[v], "+") if v in each else "–" for each in kinds.values())] for v in names]
    return table(("by kind of class", *(f"{kind}: {of}" for kind, of in datasets.items())), rows)


def kinds_of_family(saved: Mapping[str, store.Saved], probes: Mapping[str, store.Saved]) -> list[str]:
    """Returns the table by kind of class of a family, by the descriptors of the same clips beside the probes."""
    for name, each in saved.items():
        store.check_same_clips(probes[name].results, each.results, name)
    described = {name: dataclasses.replace(each, descriptors=probes[name].descriptors) for name, each in saved.items()}
    return kinds_table(across(described, baseline=BASELINE, margin=MARGIN, pooled=list(described)))


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


def exceeding(of_probes: Mapping, others: Mapping) -> tuple[str, list[str]]:
    """Returns the best high-resolution variant, with its accuracy, and what exceeds it among the figures `others`."""
    best = max(
        (name for name in HIGH if name in of_probes["variants"]), key=lambda n: of_probes["variants"][n]["value"]
    )
    limit = of_probes["variants"][best]["value"]
    names = [d["variant"] for d in others["differences"]]
    return f"{best} ({limit:.3f})", [name for name in names if others["variants"][name]["value"] > limit]


def windows(others: Mapping[str, Mapping]) -> list[str]:
    """Returns the protocol's sensitivity: shorter windows of the usual variants against its baseline."""
    if not others:
        return []
    return [
        "## Sensitivity: the window of the usual variants",
        "",
        f"Probes of images with shorter windows; all others are of 2,048 samples. {LEGEND}",
        "",
        *beside_tables(others),
    ]


def strides(study: Path) -> list[str]:
    """Returns the protocol's experiment on sampling: strides against 1; empty if stride 1 was not run."""
    first, *others = sorted(runs_of(study / STRIDES), key=lambda name: name != "stride-1") or [""]
    if first != "stride-1" or not others:
        return []
    [dataset] = read(study / STRIDES / first)
    rows = compare_strides.compare([study / STRIDES / name for name in (first, *others)], dataset, MARGIN)
    text = (
        "Probes on {} of images computed from one point in so many, minus those from all points (stride 1). {} of the"
    )
    return [
        "## Does sampling matter?",
        "",
        text.format(dataset, len(rows)),
        f"protocol's {NUM_STRIDES} comparisons; p values are Holm's over these, intervals are uncorrected.",
        "",
        *compare_strides.rows_table([row | {"run": row["run"].replace("-", " ")} for row in rows], MARGIN),
    ]


def occluded(study: Path) -> list[str]:
    """Returns a line with the pages of `occlusion.py`; empty if there are none."""
    names = sorted(path.parent.name for path in (study / OCCLUSION).glob("*/maps.svg"))
    if not names:
        return []
    links = ", ".join(f"[{name}]({OCCLUSION}/{name}/report.md)" for name in names)
    return [f"Which cells of the images the probes use, by occlusion: {links}.", ""]


def disturbed(study: Path) -> list[str]:
    """Returns accuracies of the probes on disturbed sounds, by data set, in the order of the probes' variants."""
    lines = []
    for dataset, of_probes in read(study / "probes").items():
        folder = study / ROBUSTNESS / dataset
        there = {path.stem for path in folder.glob("*.npz")}
        variants = [v.variant for v in of_probes.results.variants if v.variant in there]
        if variants:
            found = robustness.read(folder, variants)
            clips = of_probes.results.held_out
            labels = dict(zip(clips.ids.tolist(), clips.labels.tolist(), strict=True))
            ids, answered = (found[variants[0]][name].tolist() for name in ("ids", "labels"))
            if answered != [labels[clip] for clip in ids]:
                raise SystemExit(f"{folder}: other labels than those of the probes")
            lines += [f"Disturbed sounds: probes of {dataset} trained on clean sounds, {len(ids)} held-out clips.", ""]
            lines += robustness.tables(found, of_probes.results.recordings)
    return lines


def take(found: Mapping[str, Mapping]) -> list[str]:
    """Returns how many times the clips would be needed to find a difference of the margin in four of five studies."""
    lines = ["## What is open, and what it would take", ""]
    for family in (name for name in FAMILIES if name in found):
        for where, entries, sizes in _tested(found[family], family):
            open_ones = [each for each in entries if not _settled(each)]
            if open_ones:
                least, most = (extreme(e["detectable"][1] for e in open_ones) for extreme in (min, max))
                factors = [f"{(limit / MARGIN) ** 2:.0f}" for limit in (least, most)]
                span = factors[0] if factors[0] == factors[1] else f"{factors[0]} to {factors[1]}"
                lines.append(
                    f"- {FAMILIES[family]}, {where}: open are {', '.join(e['variant'] for e in open_ones)}. To find a "
                    f"difference of {MARGIN:g} in four of five studies, {span} times the clips ({sizes}) would be "
                    "needed, of as many times the recordings."
                )
    lines += ["", "More clips of these data sets settle the mean over these data sets only."]
    if pooled := found[PRIMARY]["pooled"]:
        needed = [(each["variant"], datasets_needed(each, len(pooled))) for each in pooled if each["variant"] in HIGH]
        lines += [
            "For other data sets (random effects), with differences that vary as these do, a mean such as that seen",
            "would be found in four of five studies, after the correction, of so many data sets of such sizes (–: of",
            f"more than {MOST:,}):",
            ", ".join(f"{name} {number or '–'}" for name, number in needed) + ".",
        ]
    return [*lines, ""]


def datasets_needed(each: Mapping, num_tests: int) -> int | None:
    """Returns how many data sets give the random-effects mean a power of 0.8, by the t test; None above `MOST`."""
    k = len(each["datasets"])
    variance = each["tau2"] + k * each["fixed"]["standard_error"] ** 2  # of one data set's difference
    for number in range(2, MOST + 1):
        quantiles = scipy.stats.t.ppf([1 - LEVEL / (2 * num_tests), 0.8], number - 1)
        if abs(each["random"]["value"]) >= quantiles.sum() * (variance / number) ** 0.5:
            return number
    return None


def _tested(each: Mapping, family: str) -> list[tuple[str, list[Mapping], str]]:
    """Returns where the protocol tests a family, with the differences and sizes: on the mean, or by data set."""
    sizes = {name: f"{name} {one['num_clips']:,}" for name, one in each["datasets"].items()}
    if family == PRIMARY and each["pooled"]:
        names = each["pooled"][0]["datasets"]
        return [("mean", each["pooled"], ", ".join(sizes[name] for name in names))]
    return [(name, one["differences"], sizes[name]) for name, one in each["datasets"].items()]


def _settled(each: Mapping) -> bool:
    if "fixed" in each:
        return differs(each) or is_equivalent(each)
    return each["p_bootstrap_holm"] < LEVEL or each["p_equivalence_holm"] < LEVEL
