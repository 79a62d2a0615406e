"""What a report's page shows of clips with any number of labels: tags that are confused, classes, clips, mistakes."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from audiotag_jax.evaluation.decision import cross_fit, fit_decision, left_out_together
from audiotag_jax.evaluation.intervals import LEVEL
from audiotag_jax.evaluation.multilabel import CLASS_METRICS
from audiotag_jax.study.mistakes import Mistake, ScoredPredictions, scored_predictions
from audiotag_jax.study.results import Results

NUM_CONFUSED = 20  # pairs of a variant
LEAST_TAGS = 5  # of a clip, the likeliest ones
_TITLES = {"average_precision": "Average precision", "roc_auc": "ROC AUC"}


class Confusion(NamedTuple):
    """How often clips of a label have another tag that is false.

    `num_clips` have the label and not the tag, `num_false` of them are tagged with it all the same, and `missed` of
    these lack the tag of their label; `rate` is the share of false tags among all clips without that tag.
    """

    label: str
    tag: str
    num_clips: int
    num_false: int
    missed: int
    rate: float


def confusions(given: ScoredPredictions, results: Results) -> list[dict]:
    """Returns for each variant the pairs of a label and a false tag that occur most, and most beyond chance."""
    found = []
    for name in given.networks:
        tags = decided(results, name, test=given.part == "test")
        found.append({"variant": name, "pairs": confused(tags, given.clips.labels == 1, given.classes)})
    return found


def confused(tags: np.ndarray, truth: np.ndarray, classes: tuple[str, ...]) -> list[Confusion]:
    """Returns pairs of label and false tag of tags and truth [n, K] bool, those most above what is expected first.

    Expected is the tag's rate among all clips that do not have it.
    """
    false = (tags & ~truth).astype(np.float64)
    own = truth.astype(np.float64)
    counts, without = own.T @ false, own.T @ (1 - own)  # [label, tag]
    missed = (own * ~tags).T @ false
    rates = false.sum(axis=0) / np.maximum((~truth).sum(axis=0), 1)
    excess = counts - without * rates
    order = np.argsort(-excess, axis=None, kind="stable")[:NUM_CONFUSED]
    pairs = [tuple(map(int, np.unravel_index(place, excess.shape))) for place in order]
    return [
        Confusion(
            classes[i], classes[j], int(without[i, j]), int(counts[i, j]), int(round(missed[i, j])), float(rates[j])
        )
        for i, j in pairs
        if excess[i, j] > 0 and counts[i, j] > 1
    ]


def decided(results: Results, variant: str, *, test: bool) -> np.ndarray:
    """Tags [n, K] bool of the scored clips by thresholds of other clips: of other folds, of test clips all held-out."""
    held_out = scored_predictions(results, test=False)
    logits = held_out.clips.task.logits(held_out.mean(variant))
    if not test:
        parts = left_out_together(held_out.clips.folds, held_out.clips.ids, results.recordings)
        return cross_fit(logits, held_out.clips.labels, parts)[1]
    clips = scored_predictions(results, test=True)
    decision = fit_decision(logits, held_out.clips.labels)
    tags: np.ndarray = decision.probabilities(clips.clips.task.logits(clips.mean(variant))) >= decision.thresholds
    return tags


def class_tables(scores: Mapping, part: str) -> list[dict]:
    """Returns a table a score: a row a class, its number of clips and, by variant, value, limits and difference."""
    of_variant = [each["classes"] for each in scores["by_class"] if each["part"] == part]
    tables = []
    for score in CLASS_METRICS:
        rows = []
        for columns in zip(*of_variant, strict=True):
            cells = [
                column[score] | {"sure": _is_sure(column.get(f"{score}_difference")), "gap": _gap(column[score])}
                for column in columns
            ]
            rows.append((columns[0]["class"], columns[0]["num_positive"], cells))
        tables.append({"title": _TITLES[score], "rows": rows})
    return tables


def _is_sure(difference: Mapping | None) -> bool:
    """Returns whether both tests, corrected over the classes, distinguish the variant from the baseline."""
    if difference is None:
        return False
    p_values = [difference[key] for key in ("p_bootstrap_holm", "p_swap_holm") if difference[key] is not None]
    return bool(p_values) and max(p_values) < LEVEL


def _gap(score: Mapping) -> float:
    return float("nan") if score["value"] is None else 1 - score["value"]


def confident_mistakes(given: ScoredPredictions, variant: str, at_most: int) -> list[Mistake]:
    """Returns the clips with the most probable false tags, by the variant's mean probabilities; ties by clip id."""
    false = np.where(given.clips.labels == 1, -1.0, given.mean(variant)).max(axis=1)
    order = np.lexsort((given.clips.ids, -false))
    wrong = [index for index in order.tolist() if false[index] >= 0][:at_most]
    return [Mistake(variant, index, rank) for rank, index in enumerate(wrong)]


def disputed_clips(given: ScoredPredictions, at_most: int) -> list[int]:
    """Returns indices of the clips with a tag whose probability differs most by variant, one a tag; ties by clip id."""
    spread = _spread(given).round(12)
    tags, chosen = spread.argmax(axis=1), list[int]()
    for index in np.lexsort((given.clips.ids, -spread.max(axis=1))).tolist():
        if len(chosen) < at_most and tags[index] not in tags[chosen]:
            chosen.append(index)
    return chosen


def _spread(given: ScoredPredictions) -> np.ndarray:
    """Computes the standard deviation [n, K] of the variants' probabilities, reading these twice, one by one."""
    mean = sum(given.mean(variant) for variant in given.networks) / len(given.networks)
    squares = sum((given.mean(variant) - mean) ** 2 for variant in given.networks)
    return np.sqrt(squares / len(given.networks))


def prediction(given: ScoredPredictions, variant: str, index: int) -> dict[str, Any]:
    """Returns a clip's likeliest tags (name, probability, if it is a label) and labels (name, probability, place)."""
    probabilities, own = given.row(variant, index), given.clips.labels[index] == 1
    order = np.argsort(-probabilities, kind="stable")
    places = np.empty(len(order), int)
    places[order] = np.arange(1, len(order) + 1)
    shown = order[: max(LEAST_TAGS, int(own.sum()))]
    return {
        "tags": [(given.classes[k], float(probabilities[k]), bool(own[k])) for k in shown],
        "labels": [(given.classes[k], float(probabilities[k]), int(places[k])) for k in np.flatnonzero(own)],
    }
