"""The page of one run: its scores, curves, classes, calibration and mistakes, and the labels that it doubts."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from audiotag_jax.evaluation import metrics
from audiotag_jax.evaluation.by_class import class_scores, reliability
from audiotag_jax.evaluation.calibration import describe_fitted, expected_calibration_error
from audiotag_jax.evaluation.intervals import recording_numbers
from audiotag_jax.evaluation.task import Task
from audiotag_jax.study import colours, html, mistakes
from audiotag_jax.study.media import Media
from audiotag_jax.study.mistakes import Mistake, ScoredPredictions
from audiotag_jax.study.run_charts import curves_plot, reliability_plot
from audiotag_jax.study.several_page import confident_mistakes

NUM_SUSPECTS = 30  # in the page's table; the file has all
_PART = "Held-out clips"


class Content(NamedTuple):
    """What a page shows whatever its clips' labels are."""

    rows: Sequence[tuple[str, dict]]  # titles and score tables
    sentences: Sequence[str]
    curves: Mapping[str, Mapping[str, np.ndarray]]  # by split and score, [n, 2] of (step, value)
    recordings: Mapping[str, str]
    media: Callable[[Sequence[str]], Media]
    about: Sequence[tuple[str, str]]
    title: str


def run_page(
    given: ScoredPredictions, content: Content, probabilities: np.ndarray, fitted: np.ndarray, suspects: np.ndarray
) -> str:
    """Returns the HTML of the page where clips have one label.

    `given` has one network; `probabilities` [n, K] are its calibrated ones, `fitted` a mask [n] of the clips that they
    were fitted to, and whose calibration is shown, `suspects` indices of clips, the most doubtful first.
    """
    [name] = given.networks
    wrong = mistakes.confident_mistakes(given, name, html.NUM_MISTAKES)
    confusion = html.confusion_of(given, name)
    groups = recording_numbers(given.clips.ids.tolist(), content.recordings)
    labels, before = given.clips.labels, given.mean(name)
    both = {"before": before[fitted], "calibrated": probabilities[fitted]}
    numbers = np.unique(groups[fitted], return_inverse=True)[1]
    kinds = {name: reliability(each, labels[fitted], numbers) for name, each in both.items()}
    return _page(
        "run.html.jinja",
        given,
        content,
        wrong,
        html.MAX_BYTES - len(confusion["drawing"]),
        confusions=[confusion],
        classes=list(zip(given.classes, class_scores(before, labels, groups), strict=True)),
        names=given.classes,
        calibration=reliability_plot(kinds),
        errors=[expected_calibration_error(each, labels[fitted]) for each in both.values()],
        fitted=describe_fitted(fitted),
        parts="each fold" if len(np.unique(given.clips.folds)) > 1 else "each fifth of the one fold's recordings",
        suspects=[_suspect(given, probabilities, index) for index in suspects[:NUM_SUSPECTS].tolist()],
        num_suspects=len(suspects),
    )


def several_page(given: ScoredPredictions, content: Content, context: Mapping[str, Any]) -> str:
    """Returns the HTML of the page where clips have any number of labels; `context` of `several_run.closer_look`."""
    [name] = given.networks
    wrong = confident_mistakes(given, name, html.NUM_MISTAKES)
    return _page("run_several.html.jinja", given, content, wrong, html.MAX_BYTES, **context)


def _page(
    template: str, given: ScoredPredictions, content: Content, wrong: Sequence[Mistake], room: int, **more: Any
) -> str:
    """Fills the template with what all pages show, mistakes in `room` bytes, and what one kind of page has `more`."""
    [name] = given.networks
    seen = content.media([str(given.clips.ids[each.index]) for each in wrong])
    groups, task = recording_numbers(given.clips.ids.tolist(), content.recordings), given.clips.task
    return html.template(template).render(
        theme_css=colours.theme_css(),
        title=content.title,
        sentences=content.sentences,
        rows=content.rows,
        metrics=metrics.metrics_of(task),
        resampled="recordings" if len(np.unique(groups)) < len(groups) else "clips",
        plots=_plots(content.curves, task),
        has_validation=any(len(curve) for curve in content.curves["validation"].values()),
        part=_PART,
        variant=name,
        articles=html.mistake_articles(given, [name], wrong, seen, room),
        missing="" if seen.waveforms or seen.images else html.NO_MEDIA,
        about=content.about,
        **more,
    )


def _plots(curves: Mapping[str, Mapping[str, np.ndarray]], task: Task) -> list:
    """Draws the loss of training and validation in one plot, then each score of validation."""
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
