"""A study's charts as SVG, for a page that holds `svg.theme_css()` or, through `svg.standalone`, for files."""

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup

from audiotag_jax.evaluation import metrics
from audiotag_jax.study.svg import chart, element, level, number, path, round_ticks, shortened
from audiotag_jax.study.verdict import is_real

_WIDTH = 760
_CURVE_POINTS = 120


def forest_plots(differences: Sequence[Mapping], *, baseline: str) -> dict[str, Markup]:
    """By score, a forest plot of the differences in it, as `study_scores` gives them; none where none has a value."""
    plots = {}
    for metric in metrics.METRICS:
        chosen = [each for each in differences if each["score"] == metric.name and each["value"] is not None]
        if chosen:
            better = {"baseline": baseline, "lower_is_better": metric.lower_is_better}
            plots[metric.name] = forest_plot(chosen, score=metric.label, **better)
    return plots


def forest_plot(differences: Sequence[Mapping], *, score: str, baseline: str, lower_is_better: bool) -> Markup:
    """Paired differences of one score to the baseline with their intervals, a line each.

    A difference is a dict as `study_scores` gives it; filled marks are those that `words.is_real`.
    Raises ValueError without differences.
    """
    if not differences:
        raise ValueError("a forest plot needs one difference or more")
    left, right, top, row = 170, 570, 26, 24
    bottom = top + row * len(differences)
    values = [value for each in differences for value in (each["low"], each["value"], each["high"])]
    low, high = min(0.0, *values), max(0.0, *values)
    margin = 0.04 * (high - low) or 0.01
    low, high = low - margin, high + margin

    def at(value):
        return left + (right - left) * (value - low) / (high - low)

    better, worse = ("← better", "worse →") if lower_is_better else ("← worse", "better →")
    parts = [
        element("text", better, x=left, y=14, class_="small muted"),
        element("text", worse, x=right, y=14, class_="small muted", text_anchor="end"),
        element("text", "difference and 95 % interval", x=_WIDTH, y=14, class_="small muted", text_anchor="end"),
    ]
    ticks = round_ticks(low, high, 7)
    decimals = max(len(number_of_tick(tick).partition(".")[2]) for tick in ticks)
    for tick in ticks:
        parts.append(element("path", d=f"M{at(tick):.1f} {top}V{bottom}", class_="grid"))
        label = signed(tick, decimals)
        parts.append(element("text", label, x=at(tick), y=bottom + 16, class_="small muted", text_anchor="middle"))
    parts.append(element("path", d=f"M{at(0.0):.1f} {top}V{bottom}", class_="zero"))
    for index, each in enumerate(differences):
        parts += _forest_row(each, top + row * (index + 0.5), at)
    name = f"difference in {score} to {baseline}"
    parts.append(element("text", name, x=(left + right) / 2, y=bottom + 36, text_anchor="middle", class_="small"))
    description = f"Forest plot of the {name}, 95 % intervals: {len(differences)} rows, as in the table of differences"
    return chart(_WIDTH, bottom + 44, description, *parts)


def learning_curves(curves: Mapping[str, np.ndarray], *, baseline: str) -> Markup:
    """A panel a variant: its training loss over steps, from [n, 2] of (step, loss), before all the others in grey.

    Raises ValueError if there is no finite loss at all.
    """
    lines = {name: line for name, line in ((n, _thinned(np.asarray(c, float))) for n, c in curves.items()) if len(line)}
    if not lines:
        raise ValueError("no curve holds a finite loss")
    points = np.concatenate(list(lines.values()))
    steps, low, high = points[:, 0].max() or 1.0, min(0.0, points[:, 1].min()), points[:, 1].max()
    high = high if high > low else low + 1.0
    columns = min(4, len(lines))
    left, gap, panel_height = 52, 28, 110
    panel_width = (_WIDTH - left - gap * columns) / columns  # a gap to the right too: ticks reach beyond
    rows = -(-len(lines) // columns)

    def place(line):
        x = panel_width * line[:, 0] / steps
        return path(x, panel_height * (high - line[:, 1]) / (high - low))

    every = element("g", *(element("path", d=place(line)) for line in lines.values()), id="every-curve")
    parts = [element("defs", every)]
    for index, (name, line) in enumerate(lines.items()):
        x, y = left + (index % columns) * (panel_width + gap), 24 + (index // columns) * (panel_height + 44)
        content = [element("use", href="#every-curve", class_="all"), element("path", d=place(line), class_="one")]
        content += _curve_axes(panel_width, panel_height, steps, (low, high), with_losses=index % columns == 0)
        suffix = " (baseline)" if name == baseline else ""
        title = element("text", shortened(name, 26 - len(suffix)) + suffix, y=-7, class_="small strong")
        parts.append(element("g", element("title", name), title, *content, transform=f"translate({number(x)} {y})"))
    height = 24 + rows * (panel_height + 44)
    middle = 24 + (height - 68) / 2
    turned = f"translate(11 {number(middle)}) rotate(-90)"
    parts.append(element("text", "training loss", transform=turned, text_anchor="middle", class_="small"))
    parts.append(element("text", "step", x=(left + _WIDTH) / 2, y=height - 2, text_anchor="middle", class_="small"))
    last = ", ".join(f"{name} {line[-1, 1]:.3f}" for name, line in lines.items())
    return chart(_WIDTH, height + 4, f"Training loss over steps. At the end: {last}", *parts)


def confusion_plot(shares: np.ndarray, counts: np.ndarray, classes: Sequence[str], *, variant: str) -> Markup:
    """The confusion matrix: `shares[true, predicted]` [K, K] of each true class's clips, `counts` [K] in number.

    Cells are coloured by the square root of their share, so that the rare ones show; those of 0 % are left out.
    """
    num = len(classes)
    side = 40 if num <= 12 else 22 if num <= 24 else 16
    size = "small" if num <= 24 else "tiny"
    labels = [shortened(name, 24) for name in classes]
    margin = 30 + 6.4 * max(map(len, labels))
    edge = margin + side * num
    parts = [
        element("text", "true class", x=2, y=margin - 8, class_="small muted"),
        element("text", "predicted class →", x=margin, y=12, class_="small muted"),
        element("path", d=_frame(margin, margin, side * num, side * num), class_="grid"),
    ]
    for k, name in enumerate(labels):
        middle = margin + side * (k + 0.5)
        full = element("title", classes[k])
        turned = f"translate({number(middle + 4)} {number(margin - 6)}) rotate(-90)"
        parts.append(element("text", full, name, x=margin - 6, y=middle + 4, text_anchor="end", class_=size))
        parts.append(element("text", full, name, transform=turned, class_=size))
    for true, predicted in zip(*np.nonzero(np.nan_to_num(shares) >= 0.005), strict=True):
        share = float(shares[true, predicted])
        x, y = margin + side * predicted, margin + side * true
        words = f"{classes[true]} → {classes[predicted]}: {percent(share)} of {int(counts[true])}"
        parts.append(
            element("rect", element("title", words), x=x, y=y, width=side, height=side, class_=f"l{level(share**0.5)}")
        )
        if side >= 22:
            middle = {"x": x + side / 2, "y": y + side / 2 + 4, "text_anchor": "middle"}
            parts.append(
                element(
                    "text", f"{100 * share:.0f}", class_=f"small t{level(share**0.5)}", pointer_events="none", **middle
                )
            )
    if side < 22:  # guides for the eye where cells are small
        lines = "".join(
            f"M{margin} {at}H{edge}M{at} {margin}V{edge}" for at in (margin + side * k for k in range(5, num, 5))
        )
        parts.append(element("path", d=lines, class_="grid"))
    description = f"Confusion matrix of {variant}, {num} classes; its most frequent confusions are listed beside it"
    return chart(edge + 4, edge + 4, description, *parts)


def percent(share: float) -> str:
    """A share as a percentage with at most one decimal; a dash where there is none."""
    return f"{100 * share:.1f}".removesuffix(".0") + "\u00a0%" if np.isfinite(share) else "–"


def signed(value: float | None, decimals: int) -> str:
    """With a sign wherever it is not zero, as typographers write it; a dash for None."""
    if value is None:
        return "–"
    text = f"{value:+.{decimals}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def number_of_tick(tick: float) -> str:
    """As few digits as tell it."""
    return f"{tick:.12f}".rstrip("0").rstrip(".")


def _forest_row(each, y, at):
    sure = is_real(each)
    value, low, high = (signed(each[name], 3) for name in ("value", "low", "high"))
    name = element("text", element("title", each["variant"]), shortened(each["variant"], 24), x=0, y=y + 4)
    return [
        name,
        element("path", d=f"M{at(each['low']):.1f} {y:g}H{at(each['high']):.1f}", class_="mark"),
        element("circle", cx=at(each["value"]), cy=y, r=5, class_="mark" if sure else "mark hollow"),
        element(
            "text", f"{value} [{low}, {high}]", x=_WIDTH, y=y + 4, text_anchor="end", class_="strong" if sure else None
        ),
    ]


def _curve_axes(width, height, steps, losses, *, with_losses):
    low, high = losses
    parts = [element("path", d=_frame(0, 0, width, height), class_="grid")]
    for tick in round_ticks(0.0, steps, 4):
        x = width * tick / steps
        parts.append(
            element("text", number_of_tick(tick), x=x, y=height + 14, text_anchor="middle", class_="tiny muted")
        )
    for tick in round_ticks(low, high, 5) if with_losses else ():
        y = height * (high - tick) / (high - low) + 4
        parts.append(element("text", number_of_tick(tick), x=-6, y=y, text_anchor="end", class_="tiny muted"))
    return parts


def _frame(x, y, width, height):
    return f"M{number(x)} {number(y)}h{number(width)}v{number(height)}h{number(-width)}z"


def _thinned(curve):
    """The finite points of [n, 2], averaged in groups where there are more than a drawing can show."""
    curve = curve[np.isfinite(curve).all(axis=1)]
    groups = np.array_split(curve, min(len(curve), _CURVE_POINTS)) if len(curve) else []
    return np.array([group.mean(axis=0) for group in groups]).reshape(-1, 2)
