"""What a study's figures support, in plain words: which differences are real, which are not, what stays open."""

import dataclasses
from collections.abc import Mapping, Sequence

from audiotag_jax.evaluation import metrics
from audiotag_jax.evaluation.intervals import LEVEL, detectable_difference
from audiotag_jax.evaluation.task import TASKS, Task
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.study.limits import limits
from audiotag_jax.study.naming import (
    block_name,
    blocks,
    guessing,
    listed,
    metric_named,
    p_text,
    score_metrics,
    second_test,
    single_rows,
)

LIMITS = "Limits"  # the heading of the last section


def is_real(difference: Mapping) -> bool:
    """Returns whether every test made of a difference rejects "no difference" at 0.05, Holm's correction included.

    Where McNemar's test saw one seed of several, its clips must also point the way that all seeds together do.
    """
    corrected = _corrected(difference)
    rejected = bool(corrected) and max(corrected) < LEVEL
    if not rejected or difference["discordant"] is None:
        return rejected
    first, second = difference["discordant"]
    return (first > second) == _is_better(difference)


@dataclasses.dataclass(frozen=True)
class Finding:
    """One score on one choice of clips: what its differences support, and the differences."""

    part: str
    clips: str
    num_clips: int
    metric: metrics.Metric
    paragraphs: tuple[str, str]  # what was found; what nearly was, and what could have been
    differences: list[dict]

    @property
    def heading(self) -> str:
        """The clips, such as "Test clips, the 301 verified ones"."""
        return block_name(self.part, self.clips, self.num_clips)

    @property
    def text(self) -> str:
        return " ".join(self.paragraphs)


def findings(scores: dict) -> list[Finding]:
    """Returns every score on every choice of clips that has differences, from the dict of `study_scores`."""
    found = []
    for part, clips in blocks(scores):
        family = [each for each in scores["differences"] if (each["part"], each["clips"]) == (part, clips)]
        rows = [row for row in single_rows(scores) if (row["part"], row["clips"]) == (part, clips)]
        for metric in score_metrics(scores) if family else ():
            of_metric = [each for each in family if each["score"] == metric.name]
            if not of_metric:  # not defined on these clips
                continue
            paragraphs = _about_metric(metric, of_metric, rows)
            found.append(Finding(part, clips, rows[0]["num_clips"], metric, paragraphs, of_metric))
    return found


def chosen(scores: dict, found: Sequence[Finding]) -> Finding | None:
    """Returns the finding that a report begins with: of the chosen score on all clips, on test clips if any."""
    name = chosen_metric(scores).name
    of_metric = [each for each in found if (each.metric.name, each.clips) == (name, "all")]
    return next((each for part in ("test", "held out") for each in of_metric if each.part == part), None)


def chosen_metric(scores: dict) -> metrics.Metric:
    """Returns the metric named by `score`; else the first in which neither guessing nor every variant is perfect."""
    if scores.get("score"):
        return metric_named(scores["score"])
    every = score_metrics(scores)
    return next((each for each in every if _is_informative(each, scores)), every[0])


def _is_informative(metric: metrics.Metric, scores: dict) -> bool:
    best = 0.0 if metric.lower_is_better else 1.0
    found = [row["scores"][metric.name] for row in single_rows(scores) if row["clips"] == "all"]
    values = [each["value"] for each in found if each is not None]
    return guessing(scores, metric) != best and any(value != best for value in values)


def check_score(name: str, option: str, task: Task | None = None) -> None:
    """Raises UserError, listing the choices, where the option names no metric of the task, or of any."""
    tasks = TASKS.values() if task is None else [task]
    names = [each.name for one in tasks for each in metrics.metrics_of(one)]
    if name and name not in names:
        raise UserError(f"{option}: unknown score {name!r}; choose from {', '.join(names)}.")


def headline(scores: dict) -> str:
    """Returns a sentence or two on the chosen score: which variants differ from the baseline, on which clips."""
    finding = chosen(scores, findings(scores))
    if finding is None:
        return f"{scores['baseline']} is the only variant: there is nothing to compare it with."
    return f"{finding.heading}. {finding.paragraphs[0]}"


def summary_lines(scores: dict) -> list[str]:
    """Returns lines for a terminal: values of the chosen score, what differs, and what could have been found."""
    finding = chosen(scores, findings(scores))
    if finding is None:
        return [headline(scores)]
    rows = [row for row in single_rows(scores) if (row["part"], row["clips"]) == (finding.part, finding.clips)]
    values = [f"{row['name']} {row['scores'][finding.metric.name]['value']:.3f}" for row in rows]
    shown = ", ".join(values[:6]) + (f", and {len(values) - 6} more" if len(values) > 6 else "")
    return [f"{finding.metric.label}, {finding.heading[0].lower()}{finding.heading[1:]}: {shown}", *finding.paragraphs]


def verdict(scores: dict) -> list[tuple[str, list[str]]]:
    """Returns headings and paragraphs, plain text, on held-out and all test clips, from the dict of `study_scores`."""
    sections: dict[str, list[str]] = {}
    for each in findings(scores):
        if each.part in ("held out", "test"):
            sections.setdefault(each.heading, []).append(each.text)
    if not sections:
        only = f"There is nothing to compare with: these are the predictions of {scores['baseline']} alone."
        sections["One variant"] = [only]
    return [*sections.items(), (LIMITS, limits(scores))]


def _is_better(difference: Mapping) -> bool:
    return (difference["value"] < 0) == metric_named(difference["score"]).lower_is_better


def _corrected(difference: Mapping) -> list[float]:
    keys = ("p_bootstrap_holm", f"{second_test(difference).key}_holm")
    return [difference[key] for key in keys if difference[key] is not None]


def _about_metric(metric: metrics.Metric, family: Sequence[dict], rows: Sequence[dict]) -> tuple[str, str]:
    """Describes one metric: the best and what differs from the baseline; what nearly does, and what can be found."""
    values = {row["name"]: row["scores"][metric.name]["value"] for row in rows}
    lower, baseline = metric.lower_is_better, family[0]["baseline"]
    best = f"{min(values.values()) if lower else max(values.values()):.3f}"
    holders = [name for name, value in values.items() if f"{value:.3f}" == best]
    real = [each for each in family if is_real(each)]
    sentences = [f"{metric.label} is {'lowest' if lower else 'highest'} for {listed(holders)} ({best})."]
    if len(holders) == len(values):
        sentences = [f"{metric.label} is {best} for every variant."]
    sentences.append(_count(real, family, f"{baseline} ({values[baseline]:.3f})"))
    for word, wanted in (("Better", True), ("Worse", False)):
        some = [_amount(each, rows) for each in real if _is_better(each) == wanted]
        if some:
            sentences.append(f"{word}: {'; '.join(some)}.")
    others = [each for each in family if not is_real(each)]
    open_ones = [_dispute(each) for each in others if min(_corrected(each)) < LEVEL]
    open_ones += _nearly([each for each in others if min(_corrected(each)) >= LEVEL])
    return " ".join(sentences), " ".join([*open_ones, _resolution(others or family, len(family), bool(others))])


def _count(real: Sequence[dict], family: Sequence[dict], baseline: str) -> str:
    if len(family) == 1:
        return f"{family[0]['variant']} could {'' if real else 'not '}be distinguished from {baseline}."
    count = {0: "None", len(family): "All"}.get(len(real), str(len(real)))
    whose = f"All {len(family)}" if count == "All" else f"{count} of the {len(family)}"
    return f"{whose} other variants could be distinguished from {baseline}."


def _amount(difference: dict, rows: Sequence[dict]) -> str:
    """Formats as "mel_db by 0.025 (0.010 to 0.040, p = 0.013)", with how many seeds agree, if several are common."""
    sign = 1 if difference["value"] > 0 else -1
    low, high = sorted(sign * difference[key] for key in ("low", "high"))
    limits = f"{_number(low)} to {_number(high)}, p {_p(max(_corrected(difference)))}"
    by_seed = [
        {
            seed: value
            for seed, value in zip(row["seeds"], row["by_seed"][difference["score"]], strict=True)
            if value is not None
        }
        for name in (difference["variant"], difference["baseline"])
        for row in rows
        if row["name"] == name
    ]
    common = by_seed[0].keys() & by_seed[1].keys()
    alike = sum(sign * (by_seed[0][seed] - by_seed[1][seed]) > 0 for seed in common)
    seeds = f"; so with {alike} of {len(common)} seeds" if len(common) > 1 else ""
    return f"{difference['variant']} by {abs(difference['value']):.3f} ({limits}{seeds})"


def _dispute(difference: dict) -> str:
    if max(_corrected(difference)) < LEVEL:
        only_variant, only_baseline = difference["discordant"]
        return (
            f"Both tests reject for {difference['variant']}, but in opposite directions: with the first common seed "
            f"{only_variant} clips are right only with it and {only_baseline} only with {difference['baseline']}. "
            "It therefore does not count as distinguished."
        )
    bootstrap, other = (_p(p) for p in _corrected(difference))
    name = second_test(difference).possessive
    return (
        f"The two tests disagree on {difference['variant']} (bootstrap p {bootstrap}, {name} p {other}), "
        "which therefore does not count as distinguished."
    )


def _nearly(others: Sequence[dict]) -> list[str]:
    """Returns a sentence on differences that would be distinguished without the correction; none without such."""
    both = [[p for p in (each["p_bootstrap"], each[second_test(each).key]) if p is not None] for each in others]
    names = [
        f"{each['variant']} ({'better' if _is_better(each) else 'worse'}, p {_p(max(p))})"
        for each, p in zip(others, both, strict=True)
        if max(p) < LEVEL
    ]
    if not names:
        return []
    return [
        f"Before the correction {listed(names)} would have been distinguished, but so would about one variant in "
        "twenty where there is no difference at all."
    ]


def _resolution(family: Sequence[dict], num_tests: int, missed: bool) -> str:
    """Describes the differences that these comparisons find, corrected for `num_tests`; `missed`: none was found.

    After Holm's correction in its first step, where a single variant that differs must pass.
    """
    half, most = (_span(family, num_tests, power) for power in (0.5, 0.8))
    corrected = f" after the correction for {num_tests} comparisons" if num_tests > 1 else ""
    text = f"a true difference of {half} is found in half of such studies{corrected}, one of {most} in four of five."
    return f"Not distinguished does not mean equal: {text}" if missed else text[0].upper() + text[1:]


def _span(family: Sequence[dict], num_tests: int, power: float) -> str:
    found = [f"{detectable_difference(each['standard_error'], num_tests, power):.3f}" for each in family]
    return f"{min(found)} to {max(found)}" if min(found) != max(found) else found[0]


def _number(value: float) -> str:
    return f"{value:.3f}".replace("-", "−")


def _p(p: float) -> str:
    text = p_text(p)
    return text if text.startswith("<") else f"= {text}"


def duration(seconds: float) -> str:
    """Formats seconds as hours and minutes, one minute at least."""
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{max(1, minutes)} min"
