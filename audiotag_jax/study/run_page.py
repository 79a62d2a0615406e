"""The page of one run: its scores, curves, classes, calibration and mistakes, and the labels that it doubts."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from audiotag_jax.evaluation import metrics
from audiotag_jax.evaluation.by_class import class_scores, reliability
from audiotag_jax.evaluation.calibration import expected_calibration_error
from audiotag_jax.evaluation.intervals import recording_numbers
from audiotag_jax.evaluation.task import SINGLE_LABEL, Task
from audiotag_jax.study import colours, html, mistakes
from audiotag_jax.study.media import Media
from audiotag_jax.study.mistakes import ScoredPredictions
from audiotag_jax.study.run_charts import curves_plot, reliability_plot
from audiotag_jax.study.several_page import confident_mistakes

NUM_SUSPECTS = 30  # in the page's table; the file has all
_PART = "Held-out clips"


def run_page(
    given: ScoredPredictions,
    probabilities: np.ndarray,
    suspects: np.ndarray,
    recordings: Mapping[str, str],
    rows: Sequence[tuple[str, dict]],
    sentences: Sequence[str],
    curves: Mapping[str, Mapping[str, np.ndarray]],
    media: Callable[[Sequence[str]], Media],
    about: Sequence[tuple[str, str]],
    title: str,
) -> str:
    """The text of the page.

    `given` has one network; `probabilities` [n, K] are its calibrated ones, `suspects` indices of clips, the most
    doubtful first. `rows` are titles and score tables; `curves[split][name]` [n, 2] of (step, value).
    """
    [name] = given.networks
    wrong = mistakes.confident_mistakes(given, name, html.NUM_MISTAKES)
    seen = media([str(given.clips.ids[each.index]) for each in wrong])
    confusion = html.confusion_of(given, name)
    room = html.MAX_BYTES - len(confusion["drawing"])
    groups = recording_numbers(given.clips.ids.tolist(), recordings)
    labels, before = given.clips.labels, given.mean(name)
    errors = [expected_calibration_error(each, labels) for each in (before, probabilities)]
    kinds = {"before": reliability(before, labels, groups), "calibrated": reliability(probabilities, labels, groups)}
    return html.template("run.html.jinja").render(
        theme_css=colours.theme_css(),
        title=title,
        sentences=sentences,
        rows=rows,
        metrics=metrics.METRICS,
        resampled="recordings" if len(np.unique(groups)) < len(groups) else "clips",
        plots=_plots(curves),
        has_validation=any(len(curve) for curve in curves["validation"].values()),
        confusions=[confusion],
        classes=list(zip(given.classes, class_scores(before, labels, groups), strict=True)),
        names=given.classes,
        calibration=reliability_plot(kinds),
        errors=errors,
        parts="each fold" if len(np.unique(given.clips.folds)) > 1 else "each fifth of the one fold's clips",
        suspects=[_suspect(given, probabilities, index) for index in suspects[:NUM_SUSPECTS].tolist()],
        num_suspects=len(suspects),
        part=_PART,
        variant=name,
        articles=html.mistake_articles(given, [name], wrong, seen, room),
        missing="" if seen.waveforms or seen.images else html.NO_MEDIA,
        about=about,
    )


def several_page(
    given: ScoredPredictions,
    context: Mapping[str, Any],
    recordings: Mapping[str, str],
    rows: Sequence[tuple[str, dict]],
    sentences: Sequence[str],
    curves: Mapping[str, Mapping[str, np.ndarray]],
    media: Callable[[Sequence[str]], Media],
    about: Sequence[tuple[str, str]],
    title: str,
) -> str:
    """The text of the page where clips have any number of labels; `context` is that of `several_run.closer_look`."""
    [name] = given.networks
    wrong = confident_mistakes(given, name, html.NUM_MISTAKES)
    seen = media([str(given.clips.ids[each.index]) for each in wrong])
    groups = recording_numbers(given.clips.ids.tolist(), recordings)
    return html.template("run_several.html.jinja").render(
        theme_css=colours.theme_css(),
        title=title,
        sentences=sentences,
        rows=rows,
        metrics=metrics.metrics_of(given.clips.task),
        resampled="recordings" if len(np.unique(groups)) < len(groups) else "clips",
        plots=_plots(curves, given.clips.task),
        has_validation=any(len(curve) for curve in curves["validation"].values()),
        part=_PART,
        variant=name,
        articles=html.mistake_articles(given, [name], wrong, seen, html.MAX_BYTES),
        missing="" if seen.waveforms or seen.images else html.NO_MEDIA,
        about=about,
        **context,
    )


def _plots(curves: Mapping[str, Mapping[str, np.ndarray]], task: Task = SINGLE_LABEL) -> list:
    """The loss of training and validation in one plot, then each score of validation."""
    loss = {"training": curves["train"]["loss"], "validation": curves["validation"]["loss"]}
    found = [curves_plot("loss", loss)]
    for metric in metrics.metrics_of(task):
        found.append(curves_plot(metric.label_in_text, {"validation": curves["validation"][metric.name]}))
    return [each for each in found if each is not None]


def _suspect(given: ScoredPredictions, probabilities: np.ndarray, index: int) -> dict:
    label, tag = int(given.clips.labels[index]), int(probabilities[index].argmax())
    return {
        "id": str(given.clips.ids[index]),
        "label": given.classes[label],
        "tag": given.classes[tag],
        "label_probability": float(probabilities[index, label]),
        "tag_probability": float(probabilities[index, tag]),
        "verified": bool(given.clips.verified[index]),
    }
