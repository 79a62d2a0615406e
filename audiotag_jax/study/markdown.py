"""`report.md`: the study as tables and plain words, for a repository's page."""

import re
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence

from audiotag_jax.evaluation.decision import F1
from audiotag_jax.evaluation.task import MULTI_LABEL
from audiotag_jax.study.naming import (
    SecondTest,
    block_name,
    blocks,
    p_text,
    resampled,
    score_metrics,
    second_test,
    spread_metric,
    task_of_scores,
)
from audiotag_jax.study.verdict import headline, is_real, verdict

SEVERAL_NETWORKS = (
    "A row of several networks (seeds, or folds on test clips) shows the mean of their scores; a row marked "
    "*averaged* shows one answer a clip, from the mean of the networks' probabilities. Averages of variants take the "
    "first seed that these have in common, and on test clips fold by fold, unless *folds averaged* says that all folds "
    "make one answer."
)
INTERVALS = (
    "In brackets: 95 % intervals by the percentile bootstrap over {units} ({num_resamples:,} resamples, the same ones "
    "for every row). Where all {units} score alike, resampling has no width; limits are then derived from Wilson's for "
    "a share of 0."
)
_PAIRED = (
    "Differences are paired: both variants are scored on the same clips, each with the mean of all its seeds. Their "
    "intervals are not corrected for the number of variants: one that excludes 0 does not distinguish a variant by "
    "itself. The bootstrap test recentres the resampled differences at 0 and counts, on both sides, those as large as "
    "the one observed"
)
_DISTINGUISHED = (
    "Both are corrected by Holm's method for the number of variants. *Distinguished* means that every test made is "
    "below 0.05 after the correction."
)
_COUNTED = (
    "; its p is never below the least that an exact test of the clips that differ could give. "
    "McNemar's exact test compares only clips that one of the two gets right and the other wrong, with the first seed "
    "that both have (on test clips with the average of its folds): *right alone* counts those that only the variant, "
    "and those that only the baseline gets right. It applies to scores that call a clip right or wrong. "
)
_SWAPPED = (
    ". The test by swapping exchanges the two variants' predictions of random recordings and scores both anew; its p "
    "is the share of such exchanges with a difference as large as the one observed. It takes the first seed that both "
    "have (on test clips the average of its folds), and ranks within a class (for micro AP over all classes) in place "
    "of logits, so that these need no common scale. "
)
SEVERAL_LABELS = (
    "*mAP*: average precision, the mean over the classes. *lwlrap*: the precision at each label among the classes of "
    "its clip, the mean over all labels. *Micro AP*: all decisions on all classes as one list. Each is computed anew "
    "for every resample. Logits of different folds' networks are compared as they are."
)
DECISIONS = (
    "Of held-out clips. Thresholds and calibrations of each class are chosen on the clips of the other folds, or, "
    "where there is one fold, of the other fifths of its recordings; *at 0.5*: one threshold for all classes, of "
    "probabilities under one temperature. Calibration errors are means over the classes: as answered, under one "
    "temperature, calibrated by class."
)
VERIFIED = "*Verified* clips are those whose label was checked by hand."


def report(
    scores: dict, about: Sequence[tuple[str, str]], plots: Mapping[str, str] | None = None, *, title: str = "Study"
) -> str:
    """Returns the Markdown text of a report from the dict of `study_scores`.

    `about`: pairs of what and how (data, budget, hardware...); `plots`: paths of images, relative to the report, by
    title. Both, and all names in `scores`, may hold any characters: they are escaped.
    """
    facts = table(("what", "how"), [(escape(what), escape(how)) for what, how in about])
    lines = [f"# {escape(title)}", "", escape(headline(scores)), "", *facts]
    lines += ["## Scores", ""]
    for part, clips in blocks(scores):
        lines += _scores(scores, part, clips)
    if any(row["kind"] != "single" or len(row["seeds"]) > 1 for row in scores["rows"]):
        lines += [SEVERAL_NETWORKS, ""]
    lines += ["## What the scores support", ""]
    for heading, paragraphs in verdict(scores):
        lines += [f"### {escape(heading)}", ""]
        for paragraph in paragraphs:
            lines += [escape(paragraph), ""]
    if scores["differences"]:
        lines += [f"## Differences to {escape(scores['baseline'])}", ""]
        for part, clips in blocks(scores):
            lines += _differences(scores, part, clips)
    if decisions := scores.get("decisions"):
        lines += ["## Tags by thresholds", "", *_decisions(decisions), DECISIONS, ""]
    for title, path in (plots or {}).items():
        lines += [f"## {escape(title)}", "", f"![{escape(title)}]({urllib.parse.quote(path)})", ""]
    intervals = INTERVALS.format(units=resampled(scores), num_resamples=scores["num_resamples"])
    lines += ["## How to read the figures", "", intervals, ""]
    several = task_of_scores(scores) is MULTI_LABEL
    lines += [SEVERAL_LABELS, ""] if several else []
    lines += [f"{_PAIRED}{_SWAPPED if several else _COUNTED}{_DISTINGUISHED}", ""] if scores["differences"] else []
    lines += [VERIFIED, ""] if any(clips == "verified" for _, clips in blocks(scores)) else []
    return "\n".join(lines).rstrip() + "\n"


def _scores(scores: dict, part: str, clips: str) -> list[str]:
    """Returns the lines of one block's table: a line a variant, then a line an average."""
    rows = [row for row in scores["rows"] if (row["part"], row["clips"]) == (part, clips)]
    shown, every = spread_metric(scores), score_metrics(scores)
    spread = any(row["spread_over_seeds"][shown.name] is not None for row in rows)
    by_fold = part == "held out"
    header = ["variant", *(each.label_in_text for each in every)]
    header += (
        [f"{shown.label_in_text} by fold"] * by_fold
        + ["seeds"]
        + ["standard deviation over seeds of these scores"] * spread
    )
    lines = []
    for row in rows:
        cells = [escape(row["name"]), *(interval(row["scores"][each.name]) for each in every)]
        if by_fold:
            cells.append(" ".join("–" if value is None else f"{value:.2f}" for value in row["by_fold"][shown.name]))
        cells.append(", ".join(map(str, row["seeds"])))
        if spread:
            cells.append(" ".join(_maybe(row["spread_over_seeds"][each.name]) for each in every))
        lines.append(cells)
    return [f"### {block_name(part, clips, rows[0]['num_clips'])}", "", *table(header, lines)]


def _differences(scores: dict, part: str, clips: str) -> list[str]:
    """Returns the lines of one block's tables, one a score."""
    size = next(row["num_clips"] for row in scores["rows"] if (row["part"], row["clips"]) == (part, clips))
    test = second_test(scores)
    header = ["variant", "difference", "bootstrap p", "after Holm", f"{test.possessive} p", "after Holm"]
    header += ["right alone"] * test.is_counted
    text = [f"### {block_name(part, clips, size)}: differences", ""]
    for metric in score_metrics(scores):
        family = [each for each in scores["differences"] if (each["part"], each["clips"]) == (part, clips)]
        lines = [_difference(each, test) for each in family if each["score"] == metric.name]
        better = "below" if metric.lower_is_better else "above"
        text += [f"{metric.label}, better {better} 0:", "", *table((*header, "distinguished"), lines)]
    return text


def _decisions(decisions: Sequence[dict]) -> list[str]:
    """Returns the lines of the table of F1 and calibration errors, a line a variant."""
    header = ("variant", "macro F1", "micro F1", "macro F1 at 0.5", "micro F1 at 0.5", "calibration errors")
    rows = []
    for each in decisions:
        cells = [interval(part[key]) for part in (each, each["at_default_threshold"]) for key in F1]
        errors = (f"{each['calibration_error'][key]:.4f}" for key in ("before", "shared", "calibrated"))
        rows.append([escape(each["variant"]), *cells, ", ".join(errors)])
    return table(header, rows)


def _difference(each: dict, test: SecondTest) -> list[str]:
    keys = ("p_bootstrap", "p_bootstrap_holm", test.key, f"{test.key}_holm")
    p_values = ["–" if each[key] is None else p_text(each[key]) for key in keys]
    discordant = [" : ".join(map(str, each["discordant"])) if each["discordant"] else "–"] * test.is_counted
    return [escape(each["variant"]), interval(each, "+"), *p_values, *discordant, "yes" if is_real(each) else "no"]


def table(header: Iterable[str], rows: Iterable[Sequence[str]]) -> list[str]:
    header = list(header)
    lines = [header, ["---"] * len(header), *rows]
    return [*(f"| {' | '.join(line)} |" for line in lines), ""]


def interval(each: Mapping[str, float], sign: str = "") -> str:
    """Formats such as "0.875 (0.840 to 0.905)"; numbers that round to 0 have no sign, undefined ones are a dash."""
    if any(each[key] is None for key in ("value", "low", "high")):
        return _maybe(each["value"])
    value, low, high = (f"{round(each[key], 3) + 0.0:{sign}.3f}" for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})".replace("+0.000", "0.000").replace("-", "−")


def _maybe(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def escape(text: str) -> str:
    """Escapes the text for Markdown: on one line, nothing in it a tag, a link, emphasis or the end of a table cell."""
    text = " ".join(str(text).split()).replace("&", "&amp;").replace(">", "&gt;")
    text = re.sub(r"<(?! )", "&lt;", text)  # before a space it begins no tag
    text = re.sub(r"([\\`*\[\]|~$#])", r"\\\1", text)
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)  # an underscore inside a word is none but itself
