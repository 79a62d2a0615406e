"""Writes benchmarks/study/report.md and its plots from the committed predictions alone, by the rules of PROTOCOL.md.

    python benchmarks/study_report.py

It needs no sounds and no training: `probes/`, `small/`, `finetuned/`, `trained/` and others under benchmarks/study
contain the held-out predictions of every variant. The summary is chosen by the protocol's rules, not written by hand.
"""

import argparse
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from audiotag_jax.evaluation import metrics  # noqa: E402
from audiotag_jax.runtime.errors import UserError  # noqa: E402
from audiotag_jax.study import across_report, store  # noqa: E402
from audiotag_jax.study.across import across, finished  # noqa: E402
from audiotag_jax.study.datasets import PREDICTIONS  # noqa: E402
from audiotag_jax.study.markdown import interval, table  # noqa: E402
from audiotag_jax.study.report import write_text  # noqa: E402
from benchmarks import inner_losses  # noqa: E402
from benchmarks.study_exploratory import averages, by_speaker, channels, forms, forms_of_all  # noqa: E402
from benchmarks.study_ranges import chosen_ranges  # noqa: E402
from benchmarks.study_sections import (  # noqa: E402
    BASELINE,
    FAMILIES,
    HIGH,
    MARGIN,
    PRIMARY,
    WINDOWS,
    beside,
    difference_rows,
    disturbed,
    kinds_of_family,
    occluded,
    read,
    strides,
    take,
    windows,
)
from benchmarks.study_summary import CONFIRMING, CONTROL, summary  # noqa: E402
from benchmarks.study_trained import against_control, between_seeds, trained  # noqa: E402

HERE = Path(__file__).parent / "study"
YAMNET = "yamnet"
# Of the protocol: the data sets of each family; those of the probes are the pooled ones of datasets.toml.
DATASETS = {"small": ("esc50", "drums"), "finetuned": ("esc50", "drums")}
LIMITS = (
    "The 60 recordings of `digits` are those of six speakers, and one machine has a fifth of the clips of `drums`, so",
    "that its 72 machines count as about 16; `notes` has one player and one room for each instrument.",
)
MARKS = (
    "Differences in accuracy to `{}`; intervals over recordings, not corrected. \\*: distinguished within the data",
    "set, =: equivalent there within {:g}, by Holm's correction over the variants.",
)
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
    "[RESULTS.md](../RESULTS.md#the-study-over-data-sets).",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, default=HERE, help="folder of predictions; the pages are written there")
    options = parser.parse_args()
    try:
        write(options.study)
    except UserError as error:
        advice = "What is committed comes back by: git checkout -- benchmarks/study" * (options.study == HERE)
        sys.exit(f"error: {str(error).splitlines()[0]}\n{advice}".rstrip())


def write(study: Path) -> None:
    """Writes the pages into the folder of predictions; raises UserError on what cannot be read."""
    listed = {PRIMARY: pooled_datasets(HERE / "datasets.toml"), **DATASETS}
    found = {}
    for family in FAMILIES:
        if saved := read(study / family):
            chosen, left_out = finished(saved, listed[family])
            pooled = chosen if family == PRIMARY else []  # the others are tested within data sets
            found[family] = across(saved, baseline=BASELINE, margin=MARGIN, pooled=pooled) | {"left_out": left_out}
            about = {name: each.about for name, each in saved.items()}
            across_report.write(found[family], about, study / family)
            print(f"written to {study / family}: across.md, across.svg")
    if not found.get(PRIMARY, {}).get("pooled"):
        raise UserError(f"{study} has no predictions of probes, which the report begins with")
    if of_yamnet := read(study / YAMNET):
        found[YAMNET] = across(of_yamnet, baseline=YAMNET, margin=MARGIN, pooled=[])
    shorter = beside(study, WINDOWS)
    losses = inner_losses.read(study / PRIMARY / PREDICTIONS / CONFIRMING)
    concluded = conclusions(found, shorter, chosen_for_tuning(losses))
    write_text(study / "report.md", report(found, shorter, study, losses, concluded))
    print(f"written to {study}: report.md", *concluded, sep="\n")


def conclusions(found: Mapping[str, Mapping], shorter: Mapping[str, Mapping], tuned: str | None) -> list[str]:
    """Returns what the protocol's rules conclude, of fine-tuned networks that on `tuned`, and what is lacking."""
    missing = [name for name in FAMILIES if name not in found] + [WINDOWS] * (not shorter)
    lacks = [f"There are no predictions in {', '.join(missing)}: nothing is concluded from them."] if missing else []
    return summary(found, shorter, tuned) + lacks


def pooled_datasets(path: Path) -> list[str]:
    """Returns the names of the data sets that the list at `path` (TOML) pools."""
    return [name for name, each in tomllib.loads(path.read_text(encoding="utf-8")).items() if each.get("pooled", True)]


def report(
    found: Mapping[str, Mapping],
    shorter: Mapping[str, Mapping],
    study: Path,
    losses: Mapping[str, float],
    concluded: Sequence[str],
) -> str:
    """Returns the page of what `across` found by family, and of `shorter` windows by data set; more from `study`.

    `losses` on inner splits choose the variant for fine-tuning; the page begins with what is `concluded`.
    """
    probes = read(study / PRIMARY)
    lines = ["# Do high-resolution spectrograms help, and for which sounds?", ""]
    lines += ["By the rules of [PROTOCOL.md](../PROTOCOL.md), from the predictions beside this page:", ""]
    lines += [*(f"- {sentence}" for sentence in concluded), ""]
    for family in (name for name in FAMILIES if name in found):
        lines += family_section(family, found[family], read(study / family), probes)
    if "finetuned" in found:
        lines += rule_for_tuning(found["finetuned"], losses)
        if tuned := chosen_for_tuning(losses):
            lines += against_control(read(study / "finetuned"), tuned, CONTROL)
    if YAMNET in found:
        cells = {name: interval(each["variants"][YAMNET]) for name, each in found[YAMNET]["datasets"].items()}
        lines += [
            "## YAMNet, an outside reference",
            "",
            "Probes of a network trained on AudioSet, on its own mel spectrograms; they enter no test.",
            "",
            *table(("data set", "accuracy"), [list(each) for each in cells.items()]),
        ]
    lines += ["## Other scores of the probes", "", "MAP@3, and top-3 error in brackets; not tested.", ""]
    lines += other_scores(probes)
    lines += ["## Why", "", *occluded(study), *disturbed(study)]
    lines += strides(study) + windows(shorter)
    lines += take(found)
    lines += by_speaker(probes, found[PRIMARY])
    lines += forms(study) + forms_of_all(study) + chosen_ranges(study) + trained(study)
    lines += ["## Exploratory: averaged answers", ""]
    lines += [
        f"Mean of the variants' probabilities, minus `{BASELINE}` alone; not among the protocol's hypotheses, intervals"
    ]
    lines += ["uncorrected. Does a high-resolution image add to the usual one what another usual image does not?", ""]
    for family in ("probes", "small"):
        lines += [f"{FAMILIES[family]}:", "", *averages(read(study / family))]
    lines += ["## Exploratory: channels of one network, or averaged answers", ""]
    lines += [
        "Probes: accuracy of one network that sees several variants as its channels, minus that of the mean of one"
    ]
    lines += ["network each, whose classifiers have as many times the features; intervals uncorrected.", ""]
    lines += channels(probes)
    lines += ["## How this page is repeated", "", *REPEATED, ""]
    return "\n".join(lines)


def family_section(
    family: str, found: Mapping, saved: Mapping[str, store.Saved], probes: Mapping[str, store.Saved]
) -> list[str]:
    """Returns the section of a family: its plot, its tables and what they do not show."""
    lines = [f"## {FAMILIES[family]}", "", f"![Differences in accuracy to {BASELINE}]({family}/across.svg)", ""]
    of_mean = ["mean", "p", "equivalent"] if family == PRIMARY else []
    lines += table(("variant", *found["datasets"], *of_mean), difference_rows(found, with_mean=bool(of_mean)))
    lines += [MARKS[0].format(BASELINE), MARKS[1].format(MARGIN)]
    if of_mean:
        lines += ["*Mean*: of the data sets, with equal weights; its p and equivalence are Holm's over the variants."]
        lines += LIMITS
    else:
        lines += between_seeds(saved)
    lines += [f"[All figures]({family}/across.md).", ""]
    if not of_mean and (kinds := kinds_of_family(saved, probes)):
        lines += ["By kind of class, means of the data sets that have such classes; described, not tested:", "", *kinds]
    return lines


def chosen_for_tuning(losses: Mapping[str, float]) -> str | None:
    """Returns the variant that the protocol's rule takes for fine-tuning, by `losses` on inner splits; None without."""
    return min((name for name in HIGH if name in losses), key=losses.__getitem__, default=None)


def rule_for_tuning(tuned: Mapping, losses: Mapping[str, float]) -> list[str]:
    """Returns which variant the protocol's rule takes for fine-tuning, and what else was fine-tuned."""
    shown = [each["variant"] for each in tuned["datasets"][CONFIRMING]["differences"]]
    chosen = chosen_for_tuning(losses)
    if chosen is None:
        return [f"The losses that choose the variant are missing: {', '.join(shown)} is exploratory.", ""]
    others = [f"`{name}` ({losses[name]:.3f})" + ", a control" * (name == CONTROL) for name in shown if name != chosen]
    return [
        "The protocol's rule takes, of the six high-resolution variants, the one whose probe has the lowest",
        f"cross-entropy on inner splits of {CONFIRMING}: `{chosen}` ({losses[chosen]:.3f})"
        + ", which was not fine-tuned" * (chosen not in shown)
        + (f". Exploratory: {'; '.join(others)}." if others else "."),
        "",
    ]


def other_scores(saved: Mapping[str, store.Saved]) -> list[str]:
    """Returns a table of MAP@3 and top-3 error of all variants, a column for each data set."""
    cells: dict[str, dict[str, str]] = {}
    for dataset, each in saved.items():
        labels = each.results.held_out.labels
        for variant in each.results.variants:
            ranks = np.stack([metrics.label_ranks(logits, labels) for logits in variant.held_out])
            scores = [values(ranks).mean() for values in (metrics.average_precisions_at_3, metrics.top3_errors)]
            cells.setdefault(variant.variant, {})[dataset] = f"{scores[0]:.3f} ({scores[1]:.3f})"
    return table(("variant", *saved), [[f"`{v}`", *(row.get(d, "–") for d in saved)] for v, row in cells.items()])


if __name__ == "__main__":
    main()
