"""Exploratory section of the study's report (`study_report.py`): trained networks again, and at other settings."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from audiotag_jax.evaluation import metrics
from audiotag_jax.evaluation.intervals import LEVEL, bootstrap_means, equivalence_p, recording_numbers
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.study import store
from audiotag_jax.study.charts import signed
from audiotag_jax.study.markdown import interval, table
from audiotag_jax.study.naming import p_text
from audiotag_jax.study.results import Results, VariantLogits
from benchmarks.study_sections import BASELINE, MARGIN, read, runs_of

TRAINED = "trained"  # a folder of runs, each named FAMILY-CHANGE
NETWORKS = {"small": "The small network", "finetuned": "Fine-tuned EfficientNet-Lite0"}
CHANGES = {"again": "trained again", "range_40": "40 dB in place of 80", "bfloat16": "in bfloat16"}
AGAIN = "again"  # the settings are those of the family: others are compared with these, if there are any
NOTE = "note"  # what `about.json` says of a run beside its settings


def trained(study: Path) -> list[str]:
    """Returns tables of the runs below `trained/`, against their own baseline and against those of their family.

    Raises UserError if a run has another name, or if its family has no predictions of the same clips.
    """
    lines = []
    for name, run in runs_of(study / TRAINED).items():
        family, _, change = name.partition("-")
        if family not in NETWORKS or change not in CHANGES:
            raise UserError(f"{study / TRAINED / name} is not named after a network and a change, such as small-again.")
        again = {} if change == AGAIN else read(study / TRAINED / f"{family}-{AGAIN}")
        of_family = read(study / family) | again
        for dataset, each in run.items():
            if dataset not in of_family:
                raise UserError(f"{study / family} has no predictions of {dataset}, with which {name} is compared.")
            results, others = each.results, of_family[dataset].results
            store.check_same_clips(others, results, f"{study / TRAINED / name}, {dataset}")
            lines += [f"### {NETWORKS[family]}, {CHANGES[change]}: {dataset}", ""]
            lines += _table(results, None if change == AGAIN else others)
            lines += [line for what, how in each.about if what == NOTE for line in (how, "")]
    if not lines:
        return []
    return [
        "## Exploratory: trained networks, again and at other settings",
        "",
        f"*To `{BASELINE}`*: of the same run, with the same seeds. *To the usual*: to the variant with these seeds at",
        "the settings of its family, trained again if it was, else as in the table above (whose means may be of more",
        f"seeds). *Change*: how that moves the difference to `{BASELINE}`. *To the usual `{BASELINE}`*: of the variant",
        "here to the baseline there. All are paired by clip; intervals over recordings, which cover neither the choice",
        f"of seeds nor the device, and p values, uncorrected. *Equivalent*: within {MARGIN:g} of the usual, by two",
        "one-sided tests; the standard error includes that of the seeds where there are several (t test).",
        "",
        *lines,
    ]


def against_control(saved: Mapping[str, store.Saved], variant: str, control: str) -> list[str]:
    """Returns lines on how a variant differs from a control, by data set; empty where one of both is missing."""
    cells = []
    for name, each in saved.items():
        results = each.results
        if {variant, control} <= {v.variant for v in results.variants}:
            gains = [_mean(_of_seeds(results, one, results[variant].seeds)) for one in (variant, control)]
            numbers = recording_numbers(results.held_out.ids.tolist(), results.recordings)
            cells.append(f"{name} {_cell(gains[0] - gains[1], numbers)}")
    return [f"`{variant}` minus `{control}`, uncorrected: {'; '.join(cells)}.", ""] if cells else []


def _table(results: Results, others: Results | None) -> list[str]:
    """Returns a table of all variants, the baseline first, also against `others`, results at the usual settings."""
    variants = sorted(results.variants, key=lambda each: each.variant != BASELINE)
    header = ["variant", "accuracy by seed", f"to `{BASELINE}` by seed", f"to `{BASELINE}`"]
    if others is not None:
        header += ["to the usual", "change", f"to the usual `{BASELINE}`", "equivalent (p)"]
    numbers = recording_numbers(results.held_out.ids.tolist(), results.recordings)
    rows = []
    for each in variants:
        name, seeds = each.variant, each.seeds
        own = {seed: hits(results, each, seed) for seed in seeds}
        row = [f"`{name}`", ", ".join(f"{values.mean():.3f} ({seed})" for seed, values in own.items())]
        base = _of_seeds(results, BASELINE, seeds)
        to_base = ", ".join(f"{signed(float((own[seed] - base[seed]).mean()), 3)} ({seed})" for seed in seeds)
        row += ["", ""] if name == BASELINE else [to_base, _cell(_mean(own) - _mean(base), numbers)]
        if others is not None:
            usual, usual_base = _of_seeds(others, name, seeds), _of_seeds(others, BASELINE, seeds)
            gains = {seed: own[seed] - usual[seed] for seed in seeds}
            row.append(_cell(_mean(gains), numbers))
            changes = (_mean(gains) - _mean(base) + _mean(usual_base), _mean(own) - _mean(usual_base))
            row += ["", ""] if name == BASELINE else [_cell(each_change, numbers) for each_change in changes]
            p = _equivalence(gains, numbers)
            row.append(f"{'yes' if p < LEVEL else 'no'} ({p_text(p)})")
        rows.append(row)
    return table(header, rows)


def hits(results: Results, variant: VariantLogits, seed: int) -> np.ndarray:
    """Returns which held-out clips [n] a variant tags right with a seed, 0 or 1."""
    logits = variant.of_seed(variant.seeds.index(seed), test=False)
    return metrics.hits(metrics.label_ranks(logits, results.held_out.labels)).astype(float)


def _of_seeds(results: Results, name: str, seeds: tuple[int, ...]) -> dict[int, np.ndarray]:
    variant = next((each for each in results.variants if each.variant == name), None)
    if variant is None or not {*seeds} <= {*variant.seeds}:
        wanted = f"{name} with the seeds {', '.join(map(str, seeds))}"
        raise UserError(f"{TRAINED} or its family lacks predictions of {wanted}, with which others are compared.")
    return {seed: hits(results, variant, seed) for seed in seeds}


def _mean(by_seed: Mapping[int, np.ndarray]) -> np.ndarray:
    return np.mean([*by_seed.values()], axis=0)


def _cell(gain: np.ndarray, numbers: np.ndarray) -> str:
    found = bootstrap_means(gain[:, None], -2.0, numbers, highest=2.0)
    return f"{interval(found.limits(), '+')}, p {p_text(float(found.p[0]))}"


def _equivalence(gains: Mapping[int, np.ndarray], numbers: np.ndarray) -> float:
    """Returns p of equivalence within the margin, of gains [n] by seed.

    The variance over recordings counts as known; with that of the seeds, t has Satterthwaite's degrees of freedom.
    """
    error, degrees = float(bootstrap_means(_mean(gains)[:, None], -1.0, numbers).standard_error[0]), np.inf
    if (num_seeds := len(gains)) > 1:
        of_seeds = float(np.std([gain.mean() for gain in gains.values()], ddof=1)) / num_seeds**0.5
        error = float(np.hypot(error, of_seeds))
        degrees = (num_seeds - 1) * (error / of_seeds) ** 4 if of_seeds else np.inf
    return equivalence_p(float(_mean(gains).mean()), error, MARGIN, degrees)


def between_seeds(saved: Mapping[str, store.Saved]) -> list[str]:
    """Returns lines on how many trainings a family's table shows, and on how far apart they are.

    Raises UserError if not all variants were trained with the same seeds.
    """
    seeds = {variant.seeds for each in saved.values() for variant in each.results.variants}
    if len(seeds) != 1:
        raise UserError(f"not all variants of {', '.join(saved)} were trained with the same seeds: {sorted(seeds)}")
    [seeds_of_all] = seeds
    if len(seeds_of_all) == 1:
        return [f"One training each (seed {seeds_of_all[0]}): the intervals do not cover the randomness of training."]
    deviations = [
        np.std([hits(each.results, variant, seed).mean() for seed in variant.seeds], ddof=1)
        for each in saved.values()
        for variant in each.results.variants
    ]
    names, least, most = ", ".join(map(str, seeds_of_all)), min(deviations), max(deviations)
    return [
        f"Means of {len(seeds_of_all)} trainings each (seeds {names}), whose accuracies have standard deviations of",
        f"{least:.3f} to {most:.3f}; the intervals do not cover the choice of seeds.",
    ]
