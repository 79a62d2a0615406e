"""What applies to a report whatever its figures are: seeds, other pairs, several looks, clips that are alike."""

from collections.abc import Sequence

from audiotag_jax.evaluation import metrics
from audiotag_jax.study.naming import (
    SecondTest,
    blocks,
    guessing,
    listed,
    score_metrics,
    second_test,
    single_rows,
    spread_metric,
)

_PROBES = (
    "These are linear probes of a frozen network, which draw nothing at random: there is no spread over seeds. How the "
    "variants compare where the network itself learns from them was not measured."
)


def limits(scores: dict) -> list[str]:
    """Returns the paragraphs on what limits a study, from the dict of `study_scores`."""
    first = blocks(scores)[0]
    held_out = [row for row in single_rows(scores) if (row["part"], row["clips"]) == first]
    trained = [row for row in held_out if row["name"] not in scores.get("averages", ())]
    paragraphs = [_PROBES if scores.get("probes") else _seeds(trained, spread_metric(scores))]
    if scores.get("elsewhere"):
        paragraphs.append(
            f"{listed(scores['elsewhere'])} came from files: that these networks were not trained on the clips they "
            "are scored on is not known here."
        )
    paragraphs.append(_guessing(scores))
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
        which = "Averages of seeds and of folds" if scores.get("averages") else "Averages"
        paragraphs.append(f"{which} stand in the table with their intervals, but no test compares them with anything.")
    paragraphs.append(_independence(held_out[0]["num_clips"], held_out[0]["num_recordings"], second_test(scores)))
    return paragraphs


def _guessing(scores: dict) -> str:
    """Describes the scores of random answers; metrics for which that is already the best value are named apart."""
    parts, sentences, num_classes = [], [], len(scores["classes"])
    for each in score_metrics(scores):
        guess = guessing(scores, each)
        if guess == (0.0 if each.lower_is_better else 1.0):
            sentences.append(f"With {num_classes} classes {each.label_in_text} is {guess:.0f} for any network.")
        else:
            parts.append(f"{_with_article(each.label_in_text)} of {guess:.3f}")
    if parts:
        given = f"Guessing among {num_classes} classes gives {listed(parts)}"
        sentences.append(f"{given}: scores near these are of networks that learned nothing.")
    return " ".join(sentences)


def _with_article(noun: str) -> str:
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


def _independence(num_clips: int, num_recordings: int, test: SecondTest) -> str:
    if num_recordings < num_clips:
        counted = "McNemar's test counts clips as if they were independent."
        whole = "The test by swapping exchanges whole recordings, too."
        return (
            f"The {num_clips:,} clips were cut from {num_recordings:,} recordings, and the bootstrap draws "
            f"whole recordings. {counted if test.is_counted else whole} Recordings of one maker or "
            "place may be alike as well: where any are, the intervals are too narrow and the p values too small."
        )
    return (
        "Clips were resampled one by one, as if they were independent. Clips of one recording or of one maker are "
        "alike: where there are any, the intervals are too narrow and the p values too small."
    )


def _seeds(rows: Sequence[dict], metric: metrics.Metric) -> str:
    several = [row for row in rows if len(row["seeds"]) > 1]
    single = [row["name"] for row in rows if len(row["seeds"]) == 1]
    text = []
    if several:
        most = max(several, key=lambda row: row["spread_over_seeds"][metric.name])
        spread = f"{'at most ' if len(several) > 1 else ''}{most['spread_over_seeds'][metric.name]:.3f}"
        name = metric.label_in_text
        text.append(f"The standard deviation of the {name} over seeds, each by itself, is {spread} ({most['name']}).")
    if single:
        whose = "every variant" if len(single) == len(rows) > 1 else listed(single)
        text.append(f"One seed was used for {whose}: how far another would move the scores was not measured.")
    if len(rows) > 1:
        text.append(
            "The tests resample clips, not trainings: a difference found is one between these trained networks, "
            "and need not be one between the variants."
        )
    return " ".join(text)
