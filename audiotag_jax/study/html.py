"""The study's report as one self-contained page: it loads nothing, and the same inputs give the same bytes."""

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jinja2
import numpy as np

from audiotag_jax.evaluation.task import MULTI_LABEL
from audiotag_jax.runtime.files import write_atomic
from audiotag_jax.study import charts, colours, mistakes, several_page
from audiotag_jax.study.figures import shortened
from audiotag_jax.study.forest import forest, shared_limits
from audiotag_jax.study.media import Media, sound_uri
from audiotag_jax.study.naming import resampled, score_metrics, second_test
from audiotag_jax.study.pictures import clip_picture
from audiotag_jax.study.results import Results
from audiotag_jax.study.verdict import LIMITS, chosen, findings, headline, is_real, verdict

NUM_MISTAKES = 20  # a variant
NUM_COMPARED = 4  # clips, in every variant
MAX_BYTES, MAX_COMPARED_BYTES = 7_500_000, 2_700_000  # of all drawings and sounds, and of the clips compared
_PARTS = {
    "held out": "Held-out clips of the cross-validation",
    "test": "Test set",
    "public": "Public part of the test set",
    "private": "Private part of the test set",
}
NO_MEDIA = "Neither the recordings of these clips nor their prepared images were found: no images, no audio players."
_KINDS = {
    "single": "network",
    "seeds": "average of its seeds",
    "folds": "average of its folds",
    "variants": "average of variants",
}


def write_html(
    path: Path,
    results: Results,
    scores: Mapping,
    about: Sequence[tuple[str, str]],
    curves: Mapping[str, np.ndarray],
    media: Callable[[Sequence[str]], Media],
    *,
    title: str,
) -> None:
    """Writes the page, atomically; media is left out where it would exceed about 8 MB.

    `scores` is what `study_scores` gives, `about` pairs of name and value,
    `curves[variant]` [n, 2] of (step, training loss). `media(clip_ids)` is called once, with held-out ids or, where
    the results have scored test clips, with test ids.
    """
    text = page(results, scores, about, curves, media, title=title)
    write_atomic(path, lambda file: file.write(text.encode("utf-8", "replace")))  # not every file name is Unicode


def page(results, scores, about, curves, media, *, title) -> str:
    """Returns the text that `write_html` writes."""
    has_lines = any(len(curve) > 1 for curve in curves.values())  # a probe has one step
    given = mistakes.scored_predictions(results)
    baseline = scores["baseline"]
    every = mistakes.extremes(scores["rows"], given.part, baseline, given.clips.task)
    shown = [name for name in every if name in given.networks]
    several = given.clips.task is MULTI_LABEL
    look = several_page if several else mistakes
    wrong = [each for name in shown for each in look.confident_mistakes(given, name, NUM_MISTAKES)]
    compared = look.disputed_clips(given, NUM_COMPARED)
    indices = sorted({*compared, *(each.index for each in wrong)})
    given.keep(indices)
    seen = media([str(given.clips.ids[index]) for index in indices])
    confusions = (
        several_page.confusions(given, results) if several else [confusion_of(given, n) for n in given.networks]
    )
    clips = _compared(given, compared, seen)
    room = MAX_BYTES - _size(clips) - sum(len(each.get("drawing", "")) for each in confusions)
    return template("report_several.html.jinja" if several else "report.html.jinja").render(
        theme_css=colours.theme_css(),
        about=about,
        title=title,
        headline=headline(scores),
        limits=dict(verdict(scores))[LIMITS],
        missing="" if seen.waveforms or seen.images else NO_MEDIA,
        baseline=baseline,
        num_resamples=scores["num_resamples"],
        resampled=resampled(scores),
        tables=_tables(scores),
        metrics={metric.name: metric for metric in score_metrics(scores)},
        first_metric=score_metrics(scores)[0],
        second=second_test(scores),
        kinds=_KINDS,
        averages=scores.get("averages", ()),
        **_findings(scores),
        figures=[{"title": title, "rows": rows} for title, rows in _grouped(scores["differences"]).items()],
        curves=charts.learning_curves(curves, baseline=baseline) if has_lines else None,
        part=_PARTS[given.part],
        num_clips=len(given.clips),
        confusions=confusions,
        classes=several_page.class_tables(scores, given.part) if several else _classes(given),
        decisions=scores.get("decisions", ()),
        variants=list(given.networks),
        compared=clips,
        shown=shown,
        articles=mistake_articles(given, shown, wrong, seen, room),
    )


def template(name: str) -> jinja2.Template:
    """Loads a template of this folder, with the filters that it needs."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"csp_hash": _csp_hash, "fixed": _fixed, "percent": charts.percent, "level": colours.level}
    environment.filters |= {"signed": charts.signed, "shortened": shortened, "is_real": is_real}
    return environment.get_template(name)


def _csp_hash(text: str) -> str:
    """Returns the source expression that allows this very text, and no other (Content Security Policy Level 3)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(str(text).encode()).digest()).decode()}'"


def _fixed(value: float | None, decimals: int = 3) -> str:
    return "–" if value is None or not np.isfinite(value) else f"{value:.{decimals}f}".replace("-", "−")


def _title(part: str, clips: str) -> str:
    return f"{_PARTS.get(part, part)}, {clips} clips"


def _grouped(records: Sequence[Mapping]) -> dict[str, list[Mapping]]:
    """Groups records by the title of their part and kind of clips, in the order in which these first come."""
    groups: dict[str, list[Mapping]] = {}
    for record in records:
        groups.setdefault(_title(record["part"], record["clips"]), []).append(record)
    return groups


def _tables(scores):
    return [
        {"title": f"{title}: {rows[0]['num_clips']}", "rows": rows} for title, rows in _grouped(scores["rows"]).items()
    ]


def _findings(scores):
    """Returns the finding that the page begins with (None without any), and the others, each with its plot."""
    found, limits = findings(scores), shared_limits(scores["differences"])
    first = chosen(scores, found)
    others = [
        {
            "title": f"{each.metric.label}: {each.heading}",
            "text": each.text,
            "plot": forest(each.differences, each.metric, limits[each.metric.name]),
        }
        for each in found
        if each is not first
    ]
    if first is None:
        return {"first": None, "others": others}
    plot = forest(first.differences, first.metric, limits[first.metric.name])
    return {"first": {"plot": plot, "resolution": first.paragraphs[1]}, "others": others}


def confusion_of(given, variant):
    """Returns the drawing and the most frequent confusions of a variant."""
    shares, counts = mistakes.confusion(given, variant)
    worst = mistakes.most_confused(shares, 8)
    pairs = [(given.classes[true], given.classes[predicted], share) for true, predicted, share in worst]
    drawing = charts.confusion_plot(shares, counts, given.classes, variant=variant)
    return {"variant": variant, "drawing": drawing, "pairs": pairs}


def _classes(given):
    """Returns tables of errors: a row a class, a column a variant."""
    by_variant = {name: mistakes.errors_by_class(given, name) for name in given.networks}
    counts = np.bincount(given.clips.labels, minlength=len(given.classes))
    titles = {"first": "Clips whose first tag is wrong", "top3": "Clips whose label is not among the first three tags"}
    tables = []
    for key, title in titles.items():
        columns = [by_variant[name][key] for name in given.networks]
        rows = [
            (name, int(counts[k]), [float(column[k]) for column in columns]) for k, name in enumerate(given.classes)
        ]
        tables.append({"title": title, "rows": rows})
    return tables


def _clip_title(given, index):
    return f"clip {given.clips.ids[index]}, labelled {given.label_text(index)}"


def _prediction(given, variant, index):
    """Returns the variant's three most probable classes for the clip, and the label's place and probability."""
    if given.clips.task is MULTI_LABEL:
        return several_page.prediction(given, variant, index)
    probabilities = given.row(variant, index)
    order = np.argsort(-probabilities, kind="stable")
    label = given.clips.labels[index]
    tags = [(given.classes[k], float(probabilities[k]), bool(k == label)) for k in order[:3]]
    place = int(np.flatnonzero(order == label)[0]) + 1
    return {"tags": tags, "place": place, "probability": float(probabilities[label])}


def _clip(given, index, media):
    clip = str(given.clips.ids[index])
    return {
        "id": clip,
        "label": given.label_text(index),
        "verified": bool(given.clips.verified[index]),
        "sound": sound_uri(media.waveforms[clip], media.sample_rate_hz) if clip in media.waveforms else "",
    }


def _compared(given, indices, media):
    """Returns clips with their picture in every variant, as many as fit in their share of the page, one at least."""
    clips: list[dict] = []
    for index in indices:
        title = _clip_title(given, index)
        clip = _clip(given, index, media)
        clip["figures"] = [
            {
                "variant": name,
                "drawing": clip_picture(media, name, clip["id"], title),
                "prediction": _prediction(given, name, index),
            }
            for name in given.networks
        ]
        if clips and _size([*clips, clip]) > MAX_COMPARED_BYTES:
            break
        clips.append(clip)
    return clips


def _size(clips):
    return sum(len(clip["sound"]) + sum(len(figure["drawing"]) for figure in clip["figures"]) for clip in clips)


def mistake_articles(given, shown, wrong, media, room):
    """Returns the mistakes by clip, by rank over all variants: as many as fit in `room` bytes, one at least."""
    articles: dict[int, dict] = {}
    size = 0
    for each in sorted(wrong, key=lambda mistake: (mistake.rank, shown.index(mistake.variant))):
        clip = articles.get(each.index) or _clip(given, each.index, media) | {"figures": [], "predictions": []}
        drawing = clip_picture(media, each.variant, clip["id"], _clip_title(given, each.index))
        size += len(drawing) + (0 if each.index in articles else len(clip["sound"]))
        if articles and size > room:
            break
        articles[each.index] = clip
        clip["figures"].append({"variant": each.variant, "rank": each.rank, "drawing": drawing})
        clip["predictions"] = [(name, _prediction(given, name, each.index)) for name in shown]
    return list(articles.values())
