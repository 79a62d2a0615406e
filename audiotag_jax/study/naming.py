"""Names of the parts of a report: its blocks of clips, its metrics, its p values."""

import dataclasses
from collections.abc import Mapping, Sequence

from audiotag_jax.evaluation import metrics
from audiotag_jax.evaluation.intervals import LEVEL
from audiotag_jax.evaluation.task import MULTI_LABEL, SINGLE_LABEL, TASKS, Task


def blocks(scores: dict) -> list[tuple[str, str]]:
    """Returns the parts and choices of clips that the rows cover, in their order."""
    return list(dict.fromkeys((row["part"], row["clips"]) for row in scores["rows"]))


def single_rows(scores: dict) -> list[dict]:
    """Returns the rows of the variants by themselves."""
    return [row for row in scores["rows"] if row["kind"] == "single"]


def block_name(part: str, clips: str, num_clips: int) -> str:
    """Returns a title such as "Held-out clips, all 400" or "Test clips, the 301 Public ones"."""
    whose = "Held-out clips" if part == "held out" else "Test clips"
    words = [part.title()] if part in ("public", "private") else []
    words += ["verified"] if clips == "verified" else []
    return f"{whose}, the {num_clips:,} {' '.join(words)} ones" if words else f"{whose}, all {num_clips:,}"


def resampled(scores: dict) -> str:
    """Returns what the bootstrap draws: "recordings" where any gave several clips, else "clips"."""
    several = any(row["num_recordings"] < row["num_clips"] for row in scores["rows"])
    return "recordings" if several else "clips"


def metric_named(name: str) -> metrics.Metric:
    """Returns the metric of that name, of either task."""
    return next(each for each in (*metrics.METRICS, *metrics.MULTI_LABEL_METRICS) if each.name == name)


def task_of_scores(scores: Mapping) -> Task:
    """Returns the task of the dict of `study_scores`."""
    return TASKS[scores.get("task", SINGLE_LABEL.name)]


def score_metrics(scores: Mapping) -> tuple[metrics.Metric, ...]:
    """Returns the metrics in the dict of `study_scores`."""
    return metrics.metrics_of(task_of_scores(scores))


def spread_metric(scores: Mapping) -> metrics.Metric:
    """Returns the metric whose values by fold and spread over seeds are shown: the accuracy, or mAP."""
    return metric_named("accuracy" if task_of_scores(scores) is SINGLE_LABEL else "map")


def guessing(scores: Mapping, metric: metrics.Metric) -> float:
    """Returns the value of guessing in this metric; of several labels that depends on the clips."""
    return scores["guessing"][metric.name] if "guessing" in scores else metric.guessing(len(scores["classes"]))


@dataclasses.dataclass(frozen=True)
class SecondTest:
    """The test beside the bootstrap's: its p in a difference, and its name alone and before "p"."""

    key: str
    name: str
    possessive: str
    is_counted: bool  # whether it counts clips that one of two gets right and the other wrong


_SECOND_TESTS = {
    SINGLE_LABEL.name: SecondTest("p_mcnemar", "McNemar", "McNemar's", True),
    MULTI_LABEL.name: SecondTest("p_swap", "swaps", "swap test's", False),
}


def second_test(scores: Mapping) -> SecondTest:
    """Returns the test beside the bootstrap's, in the dict of `study_scores` or in a difference of it."""
    return _SECOND_TESTS[MULTI_LABEL.name if "p_swap" in scores else task_of_scores(scores).name]


def p_text(p: float) -> str:
    """Formats p to three places, "< 0.001" below that, "< 0.05" where rounding would hide that it is below."""
    if p < 0.001:
        return "< 0.001"
    return "< 0.05" if p < LEVEL <= round(p, 3) else f"{p:.3f}"


def listed(names: Sequence[str]) -> str:
    """Joins names, such as "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
