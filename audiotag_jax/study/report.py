"""From finished runs to `scores.json`, `report.md`, its plots and `report.html`; scores come from logits alone."""

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import flax
import jax
import numpy as np

from audiotag_jax.datasets import fsdkaggle2018
from audiotag_jax.datasets.index import recordings_of_clips
from audiotag_jax.datasets.prepare import stored_datasets
from audiotag_jax.models.build import FIXED_SIZE
from audiotag_jax.runtime.files import write_atomic, write_json
from audiotag_jax.runtime.progress import log
from audiotag_jax.settings.record import recorded_dataset
from audiotag_jax.settings.sections import ModelSettings
from audiotag_jax.settings.settings import Settings
from audiotag_jax.study.charts import forest_plots
from audiotag_jax.study.figures import standalone
from audiotag_jax.study.html import write_html
from audiotag_jax.study.markdown import report
from audiotag_jax.study.media import Media
from audiotag_jax.study.naming import blocks, metric_named
from audiotag_jax.study.plan import variant_settings
from audiotag_jax.study.results import Results, Run, read_results
from audiotag_jax.study.shown import Shown, open_media
from audiotag_jax.study.statistics import study_scores
from audiotag_jax.study.verdict import check_score, summary_lines
from audiotag_jax.training.initial_weights import pretrained_on
from audiotag_jax.training.inspect_checkpoint import read_metrics


def write(settings: Settings, workdir: Path, runs: Sequence[Run], classes: Sequence[str], budget) -> None:
    """Writes the scores and the report of the runs; `budget` is pairs of a name and what every variant was given."""
    results = read_results(runs, classes)
    check_score(settings.comparison.score, "config.study.score", results.task)
    usage = fsdkaggle2018.test_usage(settings.dataset.path) if settings.dataset.source == "fsdkaggle2018" else {}
    names = [variant.variant for variant in results.variants]
    shown = {name: Shown(variant_settings(settings, name), _dataset(runs, name)) for name in names}
    stored = [stored_datasets(*each)[0] for each in shown.values()]
    known = next((recordings_of_clips(directory) for directory in stored if directory is not None), {})
    scores = study_scores(results, settings.comparison.baseline, usage, known | dict(results.recordings))
    scores |= {"probes": settings.training.probe, "score": settings.comparison.score}
    about = [*describe_data(settings, results), *budget, *describe_machine()]
    curves = {name: mean_curve([run for run in runs if run.variant == name]) for name in names}
    write_report(workdir, results, scores, about, curves, open_media(shown), title="Spectrogram variants compared")


def _dataset(runs: Sequence[Run], variant: str) -> str | None:
    """Returns the name of the dataset that a variant was trained on; None if none is recorded."""
    run = next(run for run in runs if run.variant == variant)
    return recorded_dataset(next(iter(run.workdirs.values())))


def write_report(
    workdir: Path,
    results: Results,
    scores: dict,
    about: Sequence[tuple[str, str]],
    curves: Mapping[str, np.ndarray],
    media: Callable[[Sequence[str]], Media],
    *,
    title: str,
) -> None:
    """Writes `scores.json`, `report.md` with its plots and `report.html`; logs in three lines what they show.

    The arguments are those of `html.write_html`.
    """
    write_json(workdir / "scores.json", scores)
    write_text(workdir / "report.md", report(scores, about, write_plots(workdir, scores), title=title))
    write_html(workdir / "report.html", results, scores, about, curves, media, title=title)
    for line in summary_lines(scores):
        log(line)
    log(f"written: {workdir / 'report.html'}; beside it report.md and scores.json")


def write_plots(workdir: Path, scores: dict) -> dict[str, str]:
    """Writes forest plots of the differences as `report_*.svg`, which `report.md` shows; returns names by title."""
    written = {}
    for part, clips in blocks(scores):
        if clips != "all" or part not in ("held out", "test"):
            continue
        family = [each for each in scores["differences"] if (each["part"], each["clips"]) == (part, clips)]
        for score, drawing in forest_plots(family, baseline=scores["baseline"]).items():
            name = f"report_{part.replace(' ', '_')}_{score}.svg"
            write_text(workdir / name, standalone(drawing))
            written[f"{metric_named(score).label}, {part} clips: differences to {scores['baseline']}"] = name
    return written


def write_text(path: Path, text: str) -> None:
    """Puts the text in place at once, in UTF-8."""
    write_atomic(path, lambda file: file.write(text.encode()))


def describe_data(settings: Settings, results: Results) -> list[tuple[str, str]]:
    """Describes what was tagged, and by which networks: the study's, and those that variants have of their own."""
    clips = f"{len(results.held_out)} clips of {settings.dataset.duration_s:g} s, {len(results.classes)} classes"
    if results.test is not None:
        clips += f"; {len(results.test)} test clips"
    rows = [("preset", settings.preset), ("data", clips), *describe_network(settings.model)]
    for variant in (each.variant for each in results.variants):
        if (model := variant_settings(settings, variant).model) != settings.model:
            rows += describe_network(model, f" of {variant}")
    return rows


def describe_network(model: ModelSettings, whose: str = "") -> list[tuple[str, str]]:
    """Describes the body, its first weights, and what these were trained on; `whose` it is, as " of NAME"."""
    width = f", width {model.width}" if model.name not in FIXED_SIZE else ""
    first = model.pretrained or model.init_from or "random weights"
    first = Path(first).name if Path(first).is_absolute() else first  # a page is shared: no folders of one machine
    rows = [(f"network{whose}", f"{model.name}{width}, from {first}")]
    seen = pretrained_on(model)
    return [*rows, (f"first weights{whose} were trained on", seen)] if seen else rows


def describe_machine() -> list[tuple[str, str]]:
    """Describes the device and the versions of libraries that the report was made with."""
    device = jax.devices()[0]
    kind = f"{platform.machine()} CPU, {os.cpu_count()} cores" if device.platform == "cpu" else device.device_kind
    versions = f"Python {platform.python_version()}, JAX {jax.__version__}, Flax {flax.__version__}"
    return [("device", f"{jax.device_count()} × {kind}"), ("versions", f"{versions}, NumPy {np.__version__}")]


def mean_curve(runs: Sequence[Run], split: str = "train", name: str = "loss") -> np.ndarray:
    """Returns a recorded value by step `[n, 2]`, the mean over the folds and seeds of one variant's runs."""
    losses: dict[int, list[float]] = {}
    for run in runs:
        for fold, workdir in run.workdirs.items():
            for record in read_metrics(workdir / "metrics.jsonl"):
                if record["fold"] == fold and record["split"] == split and name in record:
                    losses.setdefault(record["step"], []).append(record[name])
    return np.array([[step, np.mean(values)] for step, values in sorted(losses.items())]).reshape(-1, 2)
