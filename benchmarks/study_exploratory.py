"""Exploratory sections of the study's report (`study_report.py`): other forms of the image, averages of variants."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import scipy.special

from audiotag_jax.evaluation.intervals import bootstrap_means, recording_numbers
from audiotag_jax.study import store
from audiotag_jax.study.across import across
from audiotag_jax.study.datasets import PREDICTIONS
from audiotag_jax.study.markdown import interval, table
from audiotag_jax.study.naming import p_text
from benchmarks import inner_losses
from benchmarks.study_sections import BASELINE, MARGIN, beside, beside_tables, read, runs_of

FORMS = "forms"  # folder of runs
SHARP = ("hires_q2", "hires_q8")
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
    lines = [
        "## Exploratory: other forms of the image",
        "",
        "Probes of images changed by an option of the channel (docs/reassignment.md); not among the protocol's",
        "hypotheses. `smooth-N`: energies filtered with a Gaussian of N frames and bins. `per-hz`: energies per Hz.",
        "`split`: q as named below 1 kHz, 1 above. `cells-112`: 112 frames and bins in place of 224. *Inner*: mean",
        f"cross-entropy on inner splits. Intervals of the differences to `{BASELINE}` are uncorrected, p is Holm's.",
        "",
        *beside_tables(found, losses),
    ]
    for sharp in SHARP:
        of_sharp = {name: loss for name, loss in losses.get(CHOOSING, {}).items() if name.split(", ")[0] == sharp}
        if len(of_sharp) > 1:
            lines += _chosen(study, sharp, min(of_sharp, key=of_sharp.__getitem__))
    return lines


def _losses(study: Path, dataset: str) -> dict[str, float]:
    """Returns the losses on inner splits of the probes and of each form, named as in its table."""
    named = dict(inner_losses.read(study / "probes" / PREDICTIONS / dataset))
    for name in runs_of(study / FORMS):
        of_form = inner_losses.read(study / FORMS / name / PREDICTIONS / dataset)
        named |= {f"{variant}, {name}": loss for variant, loss in of_form.items()}
    return named


def _chosen(study: Path, sharp: str, chosen: str) -> list[str]:
    """Returns a table of what the form that inner splits chose changes, on all data sets where it was run."""
    if chosen == sharp:
        return [f"Of `{sharp}` the inner splits of {CHOOSING} choose no other form.", ""]
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
        [name, interval(d, "+"), p_text(d["p_bootstrap"])]
        for name, each in found["datasets"].items()
        for d in each["differences"]
    ]
    if len(confirming) > 1:
        [pooled] = found["pooled"]
        rows.append([f"mean of {', '.join(confirming)}", interval(pooled["fixed"], "+"), p_text(pooled["fixed"]["p"])])
    rows += [
        [f"{kind} classes of {', '.join(confirming or both)}", interval(d, "+"), ""]
        for kind, each in found["kinds"].items()
        for d in each["differences"]
    ]
    confirmed = f"{', '.join(confirming)} chose nothing" if confirming else "no other data set was run"
    return [
        f"Of `{sharp}` the inner splits of {CHOOSING} choose `{form}`; {confirmed}:",
        "",
        *table((f"`{chosen}` − `{sharp}`", "difference in accuracy", "p"), rows),
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
    """Returns a table of the accuracy of the first average of each pair minus that of the second, by data set."""
    cells: dict[str, list[str]] = {}
    for each in saved.values():
        results = each.results
        numbers = recording_numbers(results.held_out.ids.tolist(), results.recordings)
        answers = {v.variant: scipy.special.softmax(v.held_out[0], axis=-1) for v in results.variants}
        for name, (one, other) in pairs.items():
            if {*one, *other} <= answers.keys():
                right = [
                    np.mean([answers[variant] for variant in names], axis=0).argmax(axis=-1) == results.held_out.labels
                    for names in (one, other)
                ]
                gain = right[0].astype(float) - right[1]
                found = bootstrap_means(gain[:, None], -1.0, numbers)
                limits = {key: float(getattr(found, key)[0]) for key in ("value", "low", "high")}
                cells.setdefault(name, []).append(interval(limits, "+"))
    return table((title, *saved), [[name, *row] for name, row in cells.items()])
