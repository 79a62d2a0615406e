"""The page of one run on clips with any number of labels, and the labels that it doubts or misses."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from audiotag_jax.evaluation import metrics
from audiotag_jax.evaluation.by_class import decision_reliability
from audiotag_jax.evaluation.calibration import describe_fitted, fitted_clips
from audiotag_jax.evaluation.decision import F1, Decision, cross_fit, decision_scores, f1_scores, fit_decision
from audiotag_jax.evaluation.intervals import recording_numbers
from audiotag_jax.study import several_page
from audiotag_jax.study.mistakes import ScoredPredictions
from audiotag_jax.study.run_charts import reliability_plot

COLUMNS = ("id", "label", "doubt", "tag", "tag_probability", "finding", "verified", "fold", "recording")
DOUBTFUL, MISSING = "label doubtful", "label missing"
LEAST_DOUBT = 0.5
NUM_SUSPECTS = 30  # in the page's table; the file has all


class Suspect(NamedTuple):
    """A tag that contradicts the labels: numbers of the clip and of the class, its probability, doubt and finding.

    A label is doubtful that is less than half as probable as in a clip at random: `doubt` is 1 less the ratio of its
    probability to the share of clips with that label. A label may be missing where another tag has a probability of
    0.5 or more, which is then the doubt.
    """

    clip: int
    number: int
    probability: float
    doubt: float
    finding: str


def find_suspects(probabilities: np.ndarray, truth: np.ndarray, ids: np.ndarray) -> list[Suspect]:
    """Returns the suspects by calibrated probabilities and truth [n, K], the most doubtful first, then by id, class."""
    shares = np.maximum(truth.mean(axis=0), 1e-12)
    doubt = np.where(truth, 1 - probabilities / shares, probabilities)
    clips, numbers = np.nonzero(doubt >= LEAST_DOUBT)
    order = np.lexsort((numbers, ids[clips], -doubt[clips, numbers]))
    return [
        Suspect(i, k, float(probabilities[i, k]), float(doubt[i, k]), DOUBTFUL if truth[i, k] else MISSING)
        for i, k in zip(clips[order].tolist(), numbers[order].tolist(), strict=True)
    ]


def suspect_rows(
    suspects: Sequence[Suspect], given: ScoredPredictions, recordings: Mapping[str, str]
) -> list[list[str | int]]:
    """Returns the cells of `COLUMNS` for each suspect."""
    clips, rows = given.clips, []
    for each in suspects:
        clip, tag = str(clips.ids[each.clip]), given.classes[each.number]
        cells: list[str | int] = [clip, given.label_text(each.clip), f"{each.doubt:.4f}", tag]
        cells += [f"{each.probability:.4f}", each.finding, int(clips.verified[each.clip])]
        rows.append([*cells, int(clips.folds[each.clip]), recordings.get(clip, "")])
    return rows


class Look(NamedTuple):
    """What the page of a run shows of its classes and tags, and sentences on both."""

    suspects: list[Suspect]
    sentences: list[str]
    context: dict  # of the template


def closer_look(
    given: ScoredPredictions,
    logits: np.ndarray,
    parts: np.ndarray,
    table: Mapping,
    recordings: Mapping[str, str],
) -> Look:
    """Looks at held-out clips with `logits` [n, K] of one network each; `parts` as `decision.cross_fit` has them.

    `table` is what `multilabel.score_table` gives of all of them, with classes.
    """
    labels, classes = given.clips.labels, given.classes
    truth = labels == 1
    groups = recording_numbers(given.clips.ids.tolist(), recordings)
    fitted = fitted_clips(labels, given.clips.verified, len(classes))
    calibrated, tags = cross_fit(logits, labels, parts)
    suspects = find_suspects(calibrated, truth, given.clips.ids)
    decisions = decision_scores(logits, labels, parts, groups)
    [name] = given.networks
    before = given.mean(name)
    kinds = {
        "before": decision_reliability(before, truth, groups),
        "calibrated": decision_reliability(calibrated, truth, groups),
    }
    context = {
        "classes": _class_rows(table["classes"], fit_decision(logits[fitted], labels[fitted]), labels, tags),
        "fitted": describe_fitted(fitted),
        "confusions": [{"variant": name, "pairs": several_page.confused(tags, truth, classes)}],
        "decisions": [{"variant": name, **decisions}],
        "calibration": reliability_plot(kinds, "tag", "share of clips with it"),
        "suspects": [_suspect(given, each) for each in suspects[:NUM_SUSPECTS]],
        "num_suspects": len(suspects),
    }
    return Look(suspects, [*_sentences(table, decisions), _about_suspects(suspects)], context)


def _class_rows(
    table: Mapping[str, dict], decision: Decision, labels: np.ndarray, tags: np.ndarray
) -> list[tuple[str, dict]]:
    """Returns by class its scores, those of its tags, the threshold of mode predict and whether that is its own."""
    by_class = f1_scores(tags, labels == 1, np.ones((1, len(labels))))
    return [
        (
            name,
            table[name]
            | {key: float(by_class[key][0, k]) for key in ("f1", "precision", "recall")}
            | {"threshold": float(decision.thresholds[k]), "is_own": bool(decision.is_own[k])},
        )
        for k, name in enumerate(table)
    ]


def _sentences(table: Mapping, decisions: Mapping) -> list[str]:
    """Describes the scores of all held-out clips, F1 by thresholds, and a macro ROC AUC no better than guessing."""
    values = [_value(each.label_in_text, table[each.name]) for each in metrics.MULTI_LABEL_METRICS]
    of_tags = [_value(label[0].lower() + label[1:], decisions[name]) for name, label in F1.items()]
    text = [
        f"On {table['num_clips']:,} held-out clips: {', '.join(values)}.",
        f"Tags by thresholds of other clips: {', '.join(of_tags)}.",
    ]
    low = table["macro_auc"]["low"]
    if low is not None and low <= 0.5:
        text.append(f"No better than guessing: {_value('macro ROC AUC', table['macro_auc'])}.")
    return text


def _value(name: str, score: Mapping) -> str:
    if score["value"] is None:
        return f"{name} not defined"
    return f"{name} {score['value']:.3f} ({score['low']:.3f} to {score['high']:.3f})"


def _about_suspects(suspects: Sequence[Suspect]) -> str:
    missing = sum(each.finding == MISSING for each in suspects)
    return (
        f"suspects.csv lists {len(suspects) - missing:,} labels that are doubtful and {missing:,} tags that may be "
        "missing among the labels."
    )


def _suspect(given: ScoredPredictions, each: Suspect) -> dict:
    verified, shared = bool(given.clips.verified[each.clip]), each._asdict()
    names = {"id": str(given.clips.ids[each.clip]), "label": given.label_text(each.clip)}
    return shared | names | {"tag": given.classes[each.number], "verified": verified}
