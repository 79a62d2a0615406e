"""Writes benchmarks/study/report.md and its plots from the committed predictions alone, by the rules of PROTOCOL.md.

    python benchmarks/study_report.py

It needs no sounds and no training: `probes/`, `small/` and `finetuned/` under benchmarks/study contain the held-out
predictions of every variant. The summary is chosen by the protocol's rules, not written by hand.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from audiotag_jax.evaluation.intervals import LEVEL  # noqa: E402
from audiotag_jax.study import across_report  # noqa: E402
from audiotag_jax.study.across import CONTRAST, across  # noqa: E402
from audiotag_jax.study.across_report import differs, is_equivalent  # noqa: E402
from audiotag_jax.study.charts import signed  # noqa: E402
from audiotag_jax.study.datasets import PREDICTIONS  # noqa: E402
from audiotag_jax.study.markdown import interval, table  # noqa: E402
from audiotag_jax.study.naming import p_text  # noqa: E402
from audiotag_jax.study.report import write_text  # noqa: E402
from benchmarks import inner_losses  # noqa: E402
from benchmarks.study_exploratory import averages, channels, forms  # noqa: E402
from benchmarks.study_sections import (  # noqa: E402
    BASELINE,
    FAMILIES,
    HIGH,
    HIRES,
    MARGIN,
    disturbed,
    read,
    strides,
    take,
    windows,
)

YAMNET = "yamnet"
CONTROL, CONFIRMING = "mix_linear_mel_log", "esc50"


WHY = ("Which cells of the images the probes of the drum machines use: [occlusion](occlusion/drums/report.md).",)
REPEATED = (
    "From these predictions by `python benchmarks/study_report.py`, which also writes `across.html` beside each",
    "`across.md`; one data set with the statistics of any comparison, for example, by",
    "",
    "```bash",
    "python main.py --mode=compare --workdir=runs/compared --predictions=benchmarks/study/small/predictions/esc50 "
    f"--baseline={BASELINE} --score=accuracy",
    "```",
    "",
    "From the sounds by [repeat_study.sh](../repeat_study.sh), part by part. Times and machines are in",
    "[RESULTS.md](../RESULTS.md#probes).",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, default=Path(__file__).parent / "study")
    options = parser.parse_args()
    found = {}
    for family in FAMILIES:
        saved = read(options.study / family)
        found[family] = across(saved, baseline=BASELINE, margin=MARGIN, pooled=list(saved))
        across_report.write(found[family], {name: each.about for name, each in saved.items()}, options.study / family)
        print(f"written to {options.study / family}: across.md, across.svg")
    found[YAMNET] = across(read(options.study / YAMNET), baseline=YAMNET, margin=MARGIN, pooled=[])
    write_text(options.study / "report.md", report(found, options.study))
    print(f"written to {options.study}: report.md", *summary(found), sep="\n")


def report(found: Mapping[str, Mapping], study: Path) -> str:
    lines = ["# Do high-resolution spectrograms help, and for which sounds?", ""]
    lines += ["By the rules of [PROTOCOL.md](../PROTOCOL.md), from the predictions beside this page:", ""]
    lines += [*(f"- {sentence}" for sentence in summary(found)), ""]
    for family, title in FAMILIES.items():
        each = found[family]
        lines += [f"## {title}", "", f"![Differences in accuracy to {BASELINE}]({family}/across.svg)", ""]
        mean = ["these data sets"] if len(each["datasets"]) > 1 else []
        lines += table(("variant", *each["datasets"], *mean, "p", "equivalent"), rows(each))
        lines += [
            f"Differences in accuracy to `{BASELINE}`, 95 % intervals over recordings; p values are Holm's over the"
        ]
        lines += [f"variants. [All figures]({family}/across.md).", ""]
    lines += chosen_for_tuning(found["finetuned"], inner_losses.read(study / "probes" / PREDICTIONS / CONFIRMING))
    lines += ["## YAMNet, an outside reference", ""]
    lines += [
        "Probes of a network trained on AudioSet, on its own mel spectrograms; they enter no test.",
        "",
    ]
    cells = {name: interval(each["variants"][YAMNET]) for name, each in found[YAMNET]["datasets"].items()}
    lines += table(("data set", "accuracy"), [list(each) for each in cells.items()])
    lines += ["## Why", "", *WHY, "", *disturbed(study)]
    lines += strides(study) + windows(study, found)
    lines += take(found)
    lines += forms(study)
    lines += ["## Exploratory: averaged answers", ""]
    lines += [
        f"Mean of the variants' probabilities, minus `{BASELINE}` alone; not among the protocol's hypotheses, intervals"
    ]
    lines += ["uncorrected. Does a high-resolution image add to the usual one what another usual image does not?", ""]
    for family in ("probes", "small"):
        lines += [f"{FAMILIES[family]}:", "", *averages(read(study / family))]
    lines += ["## Exploratory: channels of one network, or averaged answers", ""]
    lines += [
        "Accuracy of one network that sees several variants as its channels, minus that of the mean of one network"
    ]
    lines += ["each, intervals uncorrected.", ""]
    lines += channels(read(study / "probes"))
    lines += ["## How this page is repeated", "", *REPEATED, ""]
    return "\n".join(lines)


def rows(found: Mapping) -> list[list[str]]:
    pooled = {each["variant"]: each for each in found["pooled"]}
    datasets = found["datasets"].values()
    names = dict.fromkeys(d["variant"] for each in datasets for d in each["differences"])
    text = []
    for name in names:
        cells = [next((interval(d, "+") for d in e["differences"] if d["variant"] == name), "–") for e in datasets]
        if len(datasets) == 1:
            [only] = (d for e in datasets for d in e["differences"] if d["variant"] == name)
            cells += [p_text(only["p_bootstrap_holm"]), "yes" if only["p_equivalence_holm"] < LEVEL else "no"]
        elif name in pooled:
            each = pooled[name]
            cells += [interval(each["fixed"], "+"), p_text(each["fixed"]["p_holm"])]
            cells.append("yes" if is_equivalent(each) else "no")
        text.append([f"`{name}`", *cells])
    return text


def chosen_for_tuning(tuned: Mapping, losses: Mapping[str, float]) -> list[str]:
    """Returns a note if the variant that was fine-tuned is not the one that the protocol's rule chooses; else []."""
    chosen = min(HIGH, key=lambda name: losses.get(name, float("inf")))
    shown = [d["variant"] for d in tuned["datasets"][CONFIRMING]["differences"]]
    if not losses or chosen in shown:
        return []
    return [
        f"By the protocol the variant with the lowest cross-entropy on inner splits of {CONFIRMING} would have been "
        f"fine-tuned, `{chosen}` ({losses[chosen]:.3f}); what was is exploratory: "
        + ", ".join(f"`{name}` ({losses[name]:.3f})." for name in shown),
        "",
    ]


def summary(found: Mapping[str, Mapping]) -> list[str]:
    """Returns what the protocol's rules conclude ("What would change our mind")."""
    pooled = {each["variant"]: each for each in found["probes"]["pooled"]}
    names = ", ".join(found["probes"]["datasets"])
    small = {d["variant"]: d for d in found["small"]["datasets"][CONFIRMING]["differences"]}
    better = [name for name in HIGH if differs(pooled[name]) and pooled[name]["fixed"]["value"] > 0]
    worse = [name for name in HIGH if differs(pooled[name]) and pooled[name]["fixed"]["value"] < 0]
    helps = [name for name in better if name in small and small[name]["value"] > 0]
    control = differs(pooled[CONTROL]) and pooled[CONTROL]["fixed"]["value"] > 0
    text = []
    if helps and not control:
        text.append(f"High resolution helps: {_named(helps, pooled)}, on the average of {names}.")
    elif better:
        text.append(f"Better with probes, but not confirmed: {_named(better, pooled)}, on the average of {names}.")
    if worse:
        text.append(f"High resolution hurts probes: {_named(worse, pooled)}, on the average of {names}.")
    if all(is_equivalent(pooled[name]) for name in HIRES):
        text.append(f"It does not matter: {', '.join(HIRES)} are equivalent to {BASELINE} within {MARGIN:g}.")
    if not text:
        text.append(f"Open: no high-resolution variant is shown to be better, worse or equivalent, on {names}.")
    usual = [name for name in pooled if name not in HIGH and differs(pooled[name])]
    if usual:
        text.append(f"Of the usual variants, distinguished from {BASELINE}: {_named(usual, pooled)}.")
    real = [d for d in small.values() if d["variant"] in HIGH and d["p_bootstrap_holm"] < LEVEL]
    amounts = ", ".join(f"{d['variant']} ({signed(d['value'], 3)})" for d in real)
    signs = ", ".join(f"{name} ({signed(d['value'], 3)})" for name, d in small.items() if name in HIGH)
    text.append(
        f"The small network from random weights on {CONFIRMING}: {signs}; distinguished from {BASELINE}: "
        f"{amounts or 'none'}."
    )
    [contrast] = [each for each in found["probes"]["interactions"] if each["contrast"] == CONTRAST]
    depends = "depends" if contrast["p"] < LEVEL and contrast["slope"] < 0 else "is not shown to depend"
    refuted = contrast["p"] < LEVEL and contrast["slope"] > 0
    text.append(
        f"The best q {depends} on the kind of sound as expected (small for clicks, large for steady sounds): slope "
        f"{signed(contrast['slope'], 3)}, {contrast['num_classes']} classes, p {p_text(contrast['p'])}"
        + ("; the expectation is refuted." if refuted else ".")
    )
    limit = max(pooled[name]["detectable"][1] for name in pooled)
    text.append(f"A true difference of {limit:.3f} would be found in four of five such studies, after the correction.")
    return text


def _named(names: list[str], pooled: Mapping[str, Mapping]) -> str:
    return ", ".join(f"{name} ({signed(pooled[name]['fixed']['value'], 3)})" for name in names)


if __name__ == "__main__":
    main()
