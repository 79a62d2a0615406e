"""Exploratory sections of the study's report (`study_report.py`): other forms of the image, averages of variants."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import scipy.special
import scipy.stats

from audiotag_jax.evaluation.intervals import LEVEL, bootstrap_means, correct, recording_numbers
from audiotag_jax.study import store
from audiotag_jax.study.across import across, right
from audiotag_jax.study.datasets import PREDICTIONS
from audiotag_jax.study.markdown import interval, table
from audiotag_jax.study.naming import p_text
from benchmarks import inner_losses
from benchmarks.study_sections import (
    BASELINE,
    LEGEND,
    MARGIN,
    beside,
    beside_tables,
    difference_rows,
    kinds_table,
    of_common_variants,
    read,
    runs_of,
)

FORMS, SPOKEN = "forms", "digits"  # a folder of runs, and a data set whose folds are speakers
SHARP = ("hires_q2", "hires_q8")
KINDS_OF_FORMS = {  # by the beginning of a run's name
    "smooth-": "`smooth-N`: energies filtered with a Gaussian of N frames and bins",
    "per-hz": "`per-hz`: energies per Hz",
    "split": "`split`: q as named below 1 kHz, 1 above",
    "cells-": "`cells-N`: N frames and bins in place of 224",
    "range-": "`range-N`: N dB in place of 80",
}
CHOOSING = "drums"  # the data set on whose inner splits a form is chosen
AVERAGES = tuple(
    ("log_db", *more.split())
    for more in (
        "mel_db",
        "linear_db",
        "linear_linear",
        "hires_q2",
        "hires_q8",
        "mel_db linear_db",
        "hires_q1 hires_q8",
    )
)
CHANNELS = {
    "mix_linear_mel_log": ("linear_db", "mel_db", "log_db"),
    "mix_q1_q4_q8": ("hires_q1", "hires_q4", "hires_q8"),
    "mix_q1_q8_log": ("hires_q1", "hires_q8", "log_db"),
}


def forms(study: Path) -> list[str]:
    """Returns tables of all forms by data set; the one that inner splits choose, on the others and by kind of sound."""
    found = beside(study, FORMS, SHARP)
    if not found:
        return []
    losses = {dataset: _losses(study, dataset) for dataset in found}
    kinds = [
        text for name, text in KINDS_OF_FORMS.items() if any(run.startswith(name) for run in runs_of(study / FORMS))
    ]
    lines = [
        "## Exploratory: other forms of the image",
        "",
        "Probes of images changed by an option of the channel (docs/reassignment.md); not among the protocol's",
        f"hypotheses. {'; '.join(kinds)}. *Inner*: mean cross-entropy on inner splits, which together contain all",
        f"clips of the data set. {LEGEND}",
        "",
        *beside_tables(found, losses),
    ]
    for sharp in SHARP:
        of_sharp = {name: loss for name, loss in losses.get(CHOOSING, {}).items() if name.split(", ")[0] == sharp}
        if len(of_sharp) > 1:
            lines += _chosen(study, sharp, min(of_sharp, key=of_sharp.__getitem__), len(of_sharp) - 1)
    return lines


def _losses(study: Path, dataset: str) -> dict[str, float]:
    """Returns the losses on inner splits of the probes and of each form, named as in its table."""
    named = dict(inner_losses.read(study / "probes" / PREDICTIONS / dataset))
    for name in runs_of(study / FORMS):
        of_form = inner_losses.read(study / FORMS / name / PREDICTIONS / dataset)
        named |= {f"{variant}, {name}": loss for variant, loss in of_form.items()}
    return named


def _chosen(study: Path, sharp: str, chosen: str, num_forms: int) -> list[str]:
    """Returns what the form that inner splits chose changes, on all data sets where it was run."""
    among = f"Of `{sharp}` and its {num_forms} other form{'s' * (num_forms > 1)} the inner splits of {CHOOSING} choose"
    if chosen == sharp:
        return [f"{among} `{sharp}` itself.", ""]
    variant, _, form = chosen.partition(", ")
    changed = read(study / FORMS / form)
    both = {}
    for dataset, of_probes in read(study / "probes").items():
        if dataset in changed:
            results = of_probes.results
            other = dataclasses.replace(changed[dataset].results[variant], variant=chosen)
            pair = dataclasses.replace(results, variants=(results[sharp], other))
            both[dataset] = dataclasses.replace(of_probes, results=pair)
    confirming = [name for name in both if name != CHOOSING]
    found = across(both, baseline=sharp, margin=MARGIN, pooled=confirming or list(both))
    rows = [
        [name, interval(d, "+"), "chose the form" if name == CHOOSING else p_text(d["p_bootstrap"])]
        for name, each in found["datasets"].items()
        for d in each["differences"]
    ]
    if len(confirming) > 1:
        [pooled] = found["pooled"]
        rows.append([f"mean of {', '.join(confirming)}", interval(pooled["fixed"], "+"), p_text(pooled["fixed"]["p"])])
    rows += [
        [f"{kind} classes of {', '.join(d['datasets'])}", interval(d, "+"), ""]
        for kind, each in found["kinds"].items()
        for d in each["differences"]
    ]
    confirmed = f"{', '.join(confirming)} chose nothing" if confirming else "no other data set was run"
    return [
        f"{among} `{form}`; {confirmed}. p values and intervals are uncorrected.",
        "",
        *table((f"`{chosen}` − `{sharp}`", "difference in accuracy", "p"), rows),
    ]


def forms_of_all(study: Path) -> list[str]:
    """Returns tables of the forms in which the baseline was run too: high resolution against it, both so changed."""
    lines = []
    probes = read(study / "probes")
    for name, run in runs_of(study / FORMS).items():
        saved = {
            dataset: dataclasses.replace(probes[dataset], results=each.results)
            for dataset, each in run.items()
            if BASELINE in {v.variant for v in each.results.variants} and dataset in probes
        }
        if not saved:
            continue
        for dataset, each in saved.items():  # descriptors are those of the probes' clips
            store.check_same_clips(probes[dataset].results, each.results, f"{study / FORMS / name}, {dataset}")
        others = [dataset for dataset in saved if dataset != CHOOSING]
        pooled = others if len(others) > 1 else []
        found = across(of_common_variants(saved), baseline=BASELINE, margin=MARGIN, pooled=pooled)
        mean = [f"mean of {', '.join(pooled)}", "p", "equivalent"] if pooled else []
        lines += [f"### `{name}`", ""]
        lines += table(("variant", *found["datasets"], *mean), difference_rows(found, with_mean=bool(mean)))
        lines += kinds_table(found)
    if not lines:
        return []
    return [
        "## Exploratory: forms of all variants",
        "",
        f"Differences to `{BASELINE}` of the same form; {CHOOSING}, on whose inner splits forms are chosen, is left",
        "out of means. Intervals over recordings, uncorrected; \\*: distinguished within the data set; p: of the mean,",
        "Holm's over the variants.",
        "",
        *lines,
    ]


def by_speaker(saved: Mapping[str, store.Saved], found: Mapping) -> list[str]:
    """Returns the primary test again with the speakers of `digits`, its folds, drawn in place of their recordings.

    Of few speakers the t distribution is used, with Satterthwaite's degrees of freedom.
    """
    names = found["pooled"][0]["datasets"]
    if SPOKEN not in names:
        return []
    folds = saved[SPOKEN].results.held_out.folds
    hits = right(saved[SPOKEN].results)
    tests = []
    for each in found["pooled"]:
        name = each["variant"]
        means = [(hits[name] - hits[BASELINE])[folds == fold].mean() for fold in np.unique(folds)]
        errors = {
            dataset: next(
                d["standard_error"] for d in found["datasets"][dataset]["differences"] if d["variant"] == name
            )
            for dataset in names
        }
        errors[SPOKEN] = np.std(means, ddof=1) / np.sqrt(len(means))
        variance = sum(error**2 for error in errors.values())
        degrees = variance**2 / (errors[SPOKEN] ** 4 / (len(means) - 1))
        error = np.sqrt(variance) / len(names)
        half = scipy.stats.t.ppf(1 - LEVEL / 2, degrees) * error
        value = each["fixed"]["value"]
        p = 2 * scipy.stats.t.sf(abs(value) / error, degrees)
        tests.append({"variant": name, "value": value, "low": value - half, "high": value + half, "p": float(p)})
    correct(tests, "p")
    before = {each["variant"]: each["fixed"]["p_holm"] for each in found["pooled"]}
    cells = [[f"`{t['variant']}`", interval(t, "+"), p_text(t["p_holm"]), p_text(before[t["variant"]])] for t in tests]
    return [
        "## Exploratory: speakers in place of recordings",
        "",
        f"Mean of {', '.join(names)} as above, but of {SPOKEN} {len(np.unique(folds))} speakers are drawn (t test with",
        "Satterthwaite's degrees of freedom; speakers have equal numbers of clips; the other terms count as known).",
        "p values are Holm's.",
        "",
        *table(("variant", f"difference to `{BASELINE}`", "p by speaker", "p by recording"), cells),
    ]


def averages(saved: Mapping[str, store.Saved]) -> list[str]:
    """Returns a table of the accuracy of averaged probabilities minus that of the baseline, paired by clip."""
    pairs = {" + ".join(f"`{name}`" for name in names): (names, (BASELINE,)) for names in AVERAGES}
    return _paired("average", saved, pairs)


def channels(saved: Mapping[str, store.Saved]) -> list[str]:
    """Returns a table of the accuracy of one network with several channels minus that of averaged networks of one."""
    pairs = {f"`{mix}`": ((mix,), parts) for mix, parts in CHANNELS.items()}
    return _paired("channels of one network", saved, pairs)


def _paired(title: str, saved: Mapping[str, store.Saved], pairs: Mapping[str, tuple]) -> list[str]:
    """Returns the accuracy of the first average of each pair minus that of the second, by data set."""
    cells: dict[str, dict[str, str]] = {}
    for dataset, each in saved.items():
        results = each.results
        numbers = recording_numbers(results.held_out.ids.tolist(), results.recordings)
        answers = {v.variant: scipy.special.softmax(v.held_out[0], axis=-1) for v in results.variants}
        for name, (one, other) in pairs.items():
            if {*one, *other} <= answers.keys():
                hits = [
                    np.mean([answers[variant] for variant in names], axis=0).argmax(axis=-1) == results.held_out.labels
                    for names in (one, other)
                ]
                gain = hits[0].astype(float) - hits[1]
                found = bootstrap_means(gain[:, None], -1.0, numbers)
                cells.setdefault(name, {})[dataset] = interval(found.limits(), "+")
    return table((title, *saved), [[name, *(row.get(d, "–") for d in saved)] for name, row in cells.items()])
