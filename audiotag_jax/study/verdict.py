"""What a study's figures support, in plain words: which differences are real, which are not, what stays open."""

from collections.abc import Mapping, Sequence

from audiotag_jax.evaluation import metrics
from audiotag_jax.evaluation.intervals import LEVEL, detectable_difference

_PROBES = (
    "These are linear probes of a frozen network, which draw nothing at random: there is no spread over seeds. How the "
    "variants compare where the network itself learns from them was not measured."
)


def is_real(difference: Mapping) -> bool:
    """Whether every test made of a difference rejects "no difference" at 0.05, Holm's correction included.

    Where McNemar's test saw one seed of several, its clips must also point the way that all seeds together do.
    """
    corrected = _corrected(difference)
    rejected = bool(corrected) and max(corrected) < LEVEL
    if not rejected or difference["discordant"] is None:
        return rejected
    first, second = difference["discordant"]
    return (first > second) == _is_better(difference)


def verdict(scores: dict) -> list[tuple[str, list[str]]]:
    """Headings and paragraphs, plain text, from the dict of `study_scores`; on held-out clips and on all test clips."""
    sections = []
    for part, clips in blocks(scores):
        family = [each for each in scores["differences"] if (each["part"], each["clips"]) == (part, clips)]
        if family and part in ("held out", "test"):
            rows = [row for row in single_rows(scores) if (row["part"], row["clips"]) == (part, clips)]
            by_metric = [(each, [entry for entry in family if entry["score"] == each.name]) for each in metrics.METRICS]
            paragraphs = [_about_metric(metric, differences, rows) for metric, differences in by_metric]
            sections.append((block_name(part, clips, rows[0]["num_clips"]), paragraphs))
    if not sections:
        only = f"Only {scores['baseline']} was trained, so there is nothing to compare it with."
        sections.append(("One variant", [only]))
    return [*sections, ("What it does not say", _limits(scores))]


def blocks(scores: dict) -> list[tuple[str, str]]:
    """The parts and choices of clips that the rows cover, in their order."""
    return list(dict.fromkeys((row["part"], row["clips"]) for row in scores["rows"]))


def single_rows(scores: dict) -> list[dict]:
    """The rows of the variants by themselves."""
    return [row for row in scores["rows"] if row["kind"] == "single"]


def block_name(part: str, clips: str, num_clips: int) -> str:
    """Such as "Held-out clips, all 400" or "Test clips, the 301 Public ones"."""
    whose = "Held-out clips" if part == "held out" else "Test clips"
    words = [part.title()] if part in ("public", "private") else []
    words += ["verified"] if clips == "verified" else []
    return f"{whose}, the {num_clips:,} {' '.join(words)} ones" if words else f"{whose}, all {num_clips:,}"


def resampled(scores: dict) -> str:
    """What the bootstrap draws: "recordings" where any gave several clips, else "clips"."""
    several = any(row["num_recordings"] < row["num_clips"] for row in scores["rows"])
    return "recordings" if several else "clips"


def p_text(p: float) -> str:
    """p to three places, "< 0.001" below that, and "< 0.05" where rounding would hide that it is."""
    if p < 0.001:
        return "< 0.001"
    return "< 0.05" if p < LEVEL <= round(p, 3) else f"{p:.3f}"


def _is_better(difference: Mapping) -> bool:
    return (difference["value"] < 0) == metric_named(difference["score"]).lower_is_better


def _corrected(difference: Mapping) -> list[float]:
    return [difference[key] for key in ("p_bootstrap_holm", "p_mcnemar_holm") if difference[key] is not None]


def metric_named(name: str) -> metrics.Metric:
    """The metric of that name."""
    return next(each for each in metrics.METRICS if each.name == name)


def _about_metric(metric: metrics.Metric, family: Sequence[dict], rows: Sequence[dict]) -> str:
    """The paragraph on one metric: the best, what differs from the baseline, and which differences can be found."""
    values = {row["name"]: row["scores"][metric.name]["value"] for row in rows}
    lower, baseline = metric.lower_is_better, family[0]["baseline"]
    best = f"{min(values.values()) if lower else max(values.values()):.3f}"
    holders = [name for name, value in values.items() if f"{value:.3f}" == best]
    real = [each for each in family if is_real(each)]
    sentences = [f"{metric.label} is {'lowest' if lower else 'highest'} for {_listed(holders)} ({best})."]
    if len(holders) == len(values):
        sentences = [f"{metric.label} is {best} for every variant."]
    sentences.append(_count(real, family, f"{baseline} ({values[baseline]:.3f})"))
    for word, wanted in (("Better", True), ("Worse", False)):
        some = [_amount(each, rows) for each in real if _is_better(each) == wanted]
        if some:
            sentences.append(f"{word}: {'; '.join(some)}.")
    others = [each for each in family if not is_real(each)]
    sentences += [_dispute(each) for each in others if min(_corrected(each)) < LEVEL]
    sentences += _nearly([each for each in others if min(_corrected(each)) >= LEVEL])
    return " ".join([*sentences, _resolution(others or family, len(family), bool(others))])


def _count(real: Sequence[dict], family: Sequence[dict], baseline: str) -> str:
    if len(family) == 1:
        return f"{family[0]['variant']} could {'' if real else 'not '}be distinguished from {baseline}."
    count = {0: "None", len(family): "All"}.get(len(real), str(len(real)))
    whose = f"All {len(family)}" if count == "All" else f"{count} of the {len(family)}"
    return f"{whose} other variants could be distinguished from {baseline}."


def _amount(difference: dict, rows: Sequence[dict]) -> str:
    """Such as "mel_db by 0.025 (0.010 to 0.040, p = 0.013)", and with how many seeds, where several are common."""
    sign = 1 if difference["value"] > 0 else -1
    low, high = sorted(sign * difference[key] for key in ("low", "high"))
    limits = f"{_number(low)} to {_number(high)}, p {_p(max(_corrected(difference)))}"
    by_seed = [
        dict(zip(row["seeds"], row["by_seed"][difference["score"]], strict=True))
        for name in (difference["variant"], difference["baseline"])
        for row in rows
        if row["name"] == name
    ]
    common = by_seed[0].keys() & by_seed[1].keys()
    alike = sum(sign * (by_seed[0][seed] - by_seed[1][seed]) > 0 for seed in common)
    seeds = f"; so with {alike} of {len(common)} seeds" if len(common) > 1 else ""
    return f"{difference['variant']} by {abs(difference['value']):.3f} ({limits}{seeds})"


def _dispute(difference: dict) -> str:
    bootstrap, mcnemar = (_p(p) for p in _corrected(difference))
    return (
        f"The two tests disagree on {difference['variant']} (bootstrap p {bootstrap}, McNemar's p {mcnemar}), "
        "which therefore does not count as distinguished."
    )


def _nearly(others: Sequence[dict]) -> list[str]:
    """The sentence on differences that only the correction keeps from being distinguished; none without such."""
    both = [[p for p in (each["p_bootstrap"], each["p_mcnemar"]) if p is not None] for each in others]
    names = [
        f"{each['variant']} ({'better' if _is_better(each) else 'worse'}, p {_p(max(p))})"
        for each, p in zip(others, both, strict=True)
        if max(p) < LEVEL
    ]
    if not names:
        return []
    return [
        f"Before the correction {_listed(names)} would have been distinguished, but so would about one variant in "
        "twenty where there is no difference at all."
    ]


def _resolution(family: Sequence[dict], num_tests: int, missed: bool) -> str:
    """The differences that these comparisons find, corrected for `num_tests`; `missed`: they have found none.

    After Holm's correction in its first step, where a single variant that differs must pass.
    """
    half, most = (_span(family, num_tests, power) for power in (0.5, 0.8))
    corrected = f" after the correction for {num_tests} comparisons" if num_tests > 1 else ""
    text = f"a true difference of {half} is found in half of such studies{corrected}, one of {most} in four of five."
    return f"Not distinguished does not mean equal: {text}" if missed else text[0].upper() + text[1:]


def _span(family: Sequence[dict], num_tests: int, power: float) -> str:
    found = [f"{detectable_difference(each['standard_error'], num_tests, power):.3f}" for each in family]
    return f"{min(found)} to {max(found)}" if min(found) != max(found) else found[0]


def _limits(scores: dict) -> list[str]:
    """What holds whatever the figures are: seeds, other pairs, several looks, clips that are alike."""
    held_out = [row for row in single_rows(scores) if (row["part"], row["clips"]) == ("held out", "all")]
    paragraphs = [_PROBES if scores.get("probes") else _seeds(held_out)]
    paragraphs.append(_guessing(len(scores["classes"])))
    if len(held_out) > 2:
        paragraphs.append(
            f"Only differences to {scores['baseline']} were tested. That one variant can be distinguished from it and "
            "another cannot does not distinguish these two."
        )
    if len(held_out) > 1:
        paragraphs.append(
            "The correction covers the variants within one score and one choice of clips. "
            "Who looks at several of these has more chances to find something by accident."
        )
    if any(row["kind"] != "single" for row in scores["rows"]):
        paragraphs.append("Averages stand in the table with their intervals, but no test compares them with anything.")
    paragraphs.append(_independence(held_out[0]["num_clips"], held_out[0]["num_recordings"]))
    return paragraphs


def _guessing(num_classes: int) -> str:
    """What random answers give; metrics for which that is already the best value are named apart."""
    parts, sentences = [], []
    for each in metrics.METRICS:
        guess = each.guessing(num_classes)
        if guess == (0.0 if each.lower_is_better else 1.0):
            sentences.append(f"With {num_classes} classes {each.label_in_text} is {guess:.0f} for any network.")
        else:
            parts.append(f"{_with_article(each.label_in_text)} of {guess:.3f}")
    if parts:
        given = f"Guessing among {num_classes} classes gives {_listed(parts)}"
        sentences.append(f"{given}: scores near these are of networks that learned nothing.")
    return " ".join(sentences)


def _with_article(noun: str) -> str:
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


def _independence(num_clips: int, num_recordings: int) -> str:
    if num_recordings < num_clips:
        return (
            f"The {num_clips:,} held-out clips were cut from {num_recordings:,} recordings, and the bootstrap draws "
            "whole recordings. McNemar's test counts clips as if they were independent. Recordings of one maker or "
            "place may be alike as well: where any are, the intervals are too narrow and the p values too small."
        )
    return (
        "Clips were resampled one by one, as if they were independent. Clips of one recording or of one maker are "
        "alike: where there are any, the intervals are too narrow and the p values too small."
    )


def _seeds(rows: Sequence[dict]) -> str:
    several = [row for row in rows if len(row["seeds"]) > 1]
    single = [row["name"] for row in rows if len(row["seeds"]) == 1]
    text = []
    if several:
        most = max(several, key=lambda row: row["spread_over_seeds"]["accuracy"])
        spread = f"{'at most ' if len(several) > 1 else ''}{most['spread_over_seeds']['accuracy']:.3f}"
        text.append(
            f"The standard deviation of the accuracy on held-out clips over seeds is {spread} ({most['name']})."
        )
    if single:
        whose = "every variant" if len(single) == len(rows) > 1 else _listed(single)
        text.append(f"One seed was used for {whose}: how far another would move the scores was not measured.")
    if len(rows) > 1:
        text.append(
            "The tests resample clips, not trainings: a difference found is one between these trained networks, "
            "and need not be one between the variants."
        )
    return " ".join(text)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _number(value: float) -> str:
    return f"{value:.3f}".replace("-", "−")


def _p(p: float) -> str:
    text = p_text(p)
    return text if text.startswith("<") else f"= {text}"


def duration(seconds: float) -> str:
    """Hours and minutes, one at least."""
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{max(1, minutes)} min"
