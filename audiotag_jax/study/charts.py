"""A study's charts, drawn with Matplotlib: forest plots, learning curves and confusion matrices."""

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup

from audiotag_jax.evaluation import metrics
from audiotag_jax.study.colours import level
from audiotag_jax.study.figures import add_axes, add_text, canvas, colour, shortened, titled, to_svg
from audiotag_jax.study.verdict import is_real

_WIDTH = 760
_FOREST_WIDTH = 620  # so that text is legible where a page of 400 pixels scales it
_CURVE_POINTS, _GREY_POINTS = 120, 40
_MOST_CELLS = 4000  # of a confusion matrix; one of 200 classes would have ten times as many, in each variant


def forest_plots(differences: Sequence[Mapping], *, baseline: str) -> dict[str, Markup]:
    """Returns by metric a forest plot of its differences from `study_scores`; none where none has a value."""
    plots = {}
    for metric in (*metrics.METRICS, *metrics.MULTI_LABEL_METRICS):
        chosen = [each for each in differences if each["score"] == metric.name and each["value"] is not None]
        if chosen:
            plots[metric.name] = forest_plot(chosen, metric, baseline=baseline)
    return plots


def forest_plot(differences: Sequence[Mapping], metric: metrics.Metric, *, baseline: str) -> Markup:
    """Draws paired differences of one metric to the baseline with their intervals, a line each.

    A difference is a dict as `study_scores` gives it; filled marks are those that `verdict.is_real`.
    Raises ValueError without differences.
    """
    if not differences:
        raise ValueError("a forest plot needs one difference or more")
    left, top, width, height = 160, 26, 275, 24 * len(differences)
    values = [0.0, *(each[key] for each in differences for key in ("low", "value", "high"))]
    margin = 0.04 * np.ptp(values) or 0.01
    name = f"difference in {metric.label_in_text} to {baseline}"
    better, worse = ("← better", "worse →") if metric.lower_is_better else ("← worse", "better →")
    with canvas(_FOREST_WIDTH, top + height + 44) as figure:
        axes = add_axes(figure, left, top, width, height)
        axes.set(xlim=(min(values) - margin, max(values) + margin), ylim=(len(differences), 0), yticks=[])
        axes.spines[:].set_visible(False)
        axes.locator_params(axis="x", nbins=6, steps=[1, 2, 2.5, 5, 10])
        axes.grid(axis="x", color=colour("line"), linewidth=1)
        axes.axvline(0, color=colour("fg"), linewidth=1, linestyle=(0, (4, 3)), gid=titled("zero", "no difference"))
        add_text(figure, left, 14, better, role="muted")
        add_text(figure, left + width, 14, worse, role="muted", ha="right")
        add_text(figure, _FOREST_WIDTH, 14, "difference and 95 % interval", role="muted", ha="right")
        add_text(figure, left + width / 2, top + height + 36, name, ha="center")
        for place, each in enumerate(differences):
            _forest_row(figure, axes, each, place, top + 24 * place + 16)
        about = f"Forest plot of the {name}, 95 % intervals: {len(differences)} rows, as in the table of differences"
        return to_svg(figure, about)


def _forest_row(figure, axes, each: Mapping, place: int, y: float) -> None:
    sure = is_real(each)
    value, low, high = (signed(each[key], 3) for key in ("value", "low", "high"))
    words = f"{value} [{low}, {high}]"
    accent, tooltip = colour("accent"), f"{each['variant']}: {words}"
    axes.plot((each["low"], each["high"]), (place + 0.5,) * 2, color=accent, linewidth=2, gid=titled("range", tooltip))
    fill = {"markersize": 10, "markerfacecolor": accent if sure else colour("bg"), "markeredgewidth": 2}
    axes.plot(each["value"], place + 0.5, "o", color=accent, gid=titled("mark", tooltip), **fill)
    add_text(figure, 0, y, shortened(each["variant"], 24), gid=titled("", each["variant"]))
    add_text(figure, _FOREST_WIDTH, y, words, ha="right", weight="bold" if sure else "normal")


def learning_curves(curves: Mapping[str, np.ndarray], *, baseline: str) -> Markup:
    """Draws a panel a variant: its training loss over steps, from [n, 2] of (step, loss), before the others in grey.

    Raises ValueError if there is no finite loss at all.
    """
    lines = {name: thinned(np.asarray(curve, float), _CURVE_POINTS) for name, curve in curves.items()}
    lines = {name: line for name, line in lines.items() if len(line)}
    if not lines:
        raise ValueError("no curve has a finite loss")
    steps, losses = np.concatenate(list(lines.values())).T
    low, high = min(0.0, losses.min()), losses.max()
    limits = {"xlim": (0.0, steps.max() or 1.0), "ylim": (low, high if high > low else low + 1.0)}
    columns, left, gap, height = min(4, len(lines)), 52, 28, 110
    width = (_WIDTH - left - gap * columns) / columns  # a gap to the right too: ticks reach beyond
    bottom = 24 + -(-len(lines) // columns) * (height + 44)
    with canvas(_WIDTH, bottom + 4) as figure:
        for place, (name, line) in enumerate(lines.items()):
            x, y = left + (place % columns) * (width + gap), 24 + (place // columns) * (height + 44)
            axes = add_axes(figure, x, y, width, height)
            for other in lines.values():
                axes.plot(*thinned(other, _GREY_POINTS).T, color=colour("line"), linewidth=1)
            dot = "o" if len(line) == 1 else None
            own = {"color": colour("accent"), "linewidth": 2, "solid_capstyle": "round", "gid": titled("one", name)}
            axes.plot(*line.T, marker=dot, markersize=2, **own)
            axes.locator_params(axis="x", nbins=3, steps=[1, 2, 5, 10])
            axes.locator_params(axis="y", nbins=4, steps=[1, 2, 5, 10])
            axes.tick_params(labelleft=place % columns == 0)
            axes.set(**limits)
            suffix = " (baseline)" if name == baseline else ""
            title = shortened(name, 26 - len(suffix)) + suffix
            add_text(figure, x, y - 7, title, weight="bold", gid=titled("", name))
        add_text(figure, 14, 24 + (bottom - 68) / 2, "training loss", rotation=90, ha="center", va="center")
        add_text(figure, (left + _WIDTH) / 2, bottom - 2, "step", ha="center")
        last = ", ".join(f"{name} {line[-1, 1]:.3f}" for name, line in lines.items())
        return to_svg(figure, f"Training loss over steps. At the end: {last}")


def confusion_plot(shares: np.ndarray, counts: np.ndarray, classes: Sequence[str], *, variant: str) -> Markup:
    """Draws the confusion matrix: `shares[true, predicted]` [K, K] of each true class's clips, `counts` [K] of clips.

    Cells are coloured by the square root of their share, so that the rare ones show; those of 0 % are left out, and
    beyond 4,000 cells the rarest, since a page has a matrix for every variant.
    """
    from matplotlib.collections import PolyCollection

    num = len(classes)
    side = 40 if num <= 12 else 22 if num <= 24 else 16
    size = 11 if num <= 24 else 10
    labels = [shortened(name, 24) for name in classes]
    margin = 30 + 6.4 * max(map(len, labels))
    edge = margin + side * num
    with canvas(edge + 4, edge + 4) as figure:
        axes = add_axes(figure, margin, margin, side * num, side * num)
        axes.set(xlim=(0, num), ylim=(num, 0), xticks=[], yticks=[])
        add_text(figure, 2, margin - 8, "true class", role="muted")
        add_text(figure, margin, 12, "predicted class →", role="muted")
        for place, (name, label) in enumerate(zip(classes, labels, strict=True)):
            middle, gid = margin + side * (place + 0.5) + 4, titled("", name)
            add_text(figure, margin - 6, middle, label, ha="right", size=size, gid=gid)
            add_text(figure, middle, margin - 6, label, rotation=90, rotation_mode="anchor", size=size, gid=gid)
        corners, colours, tooltips = [], [], []
        for true, predicted in _drawn_cells(np.nan_to_num(shares)):
            share = float(shares[true, predicted])
            depth, ends = level(share**0.5), (predicted + 1, true + 1)
            corners.append([(predicted, true), (ends[0], true), ends, (predicted, ends[1])])
            colours.append(colour(f"l{depth}"))
            tooltips.append(f"{classes[true]} → {classes[predicted]}: {percent(share)} of {int(counts[true])}")
            if side >= 22:
                x, y = (margin + side * (k + 0.5) for k in (predicted, true))
                gid = titled("", tooltips[-1])
                add_text(figure, x, y + 4, f"{100 * share:.0f}", role=f"t{depth}", ha="center", gid=gid)
        cells = PolyCollection(corners, facecolors=colours, linewidths=0, gid=titled("cell", *tooltips))
        axes.add_collection(cells, autolim=False)
        if side < 22:  # guides for the eye where cells are small
            for line in (axes.hlines, axes.vlines):
                line(range(5, num, 5), 0, num, color=colour("line"), linewidth=1)
        about = f"Confusion matrix of {variant}, {num} classes; its most frequent confusions are listed beside it"
        return to_svg(figure, about)


def _drawn_cells(shares: np.ndarray) -> list[list[int]]:
    """Returns row and column of the cells that are drawn, row by row."""
    chosen = np.flatnonzero(shares >= 0.005)
    if len(chosen) > _MOST_CELLS:
        chosen = np.sort(chosen[np.argsort(-shares.flat[chosen], kind="stable")[:_MOST_CELLS]])
    return np.stack(np.unravel_index(chosen, shares.shape), axis=1).tolist()


def percent(share: float) -> str:
    """Formats a share of 0 to 1 as a percentage with at most one decimal; a dash where there is none."""
    return f"{100 * share:.1f}".removesuffix(".0") + "\u00a0%" if np.isfinite(share) else "–"


def signed(value: float | None, decimals: int) -> str:
    """Formats a number with a sign wherever it is not zero, "−" for minus; None as a dash."""
    if value is None:
        return "–"
    text = f"{value:+.{decimals}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def thinned(curve: np.ndarray, most: int = _CURVE_POINTS) -> np.ndarray:
    """Returns the finite points of [n, 2], averaged in groups where there are more than `most`."""
    curve = curve[np.isfinite(curve).all(axis=1)]
    groups = np.array_split(curve, min(len(curve), most)) if len(curve) else []
    return np.array([group.mean(axis=0) for group in groups]).reshape(-1, 2)
