"""The forest plot of several data sets: each variant's difference by data set, and its means."""

from collections.abc import Mapping

import numpy as np
from markupsafe import Markup

from audiotag_jax.evaluation.intervals import LEVEL
from audiotag_jax.study.charts import signed
from audiotag_jax.study.figures import add_axes, add_text, canvas, colour, shortened, titled, to_svg

MEANS = {"fixed": "these data sets", "random": "random effects"}
_ROW, _GAP, _LEFT, _WIDTH = 17, 12, 210, 720  # pixels


def forest(found: Mapping) -> Markup | None:
    """Draws each variant's differences by data set, and below them the pooled one as a diamond; None without any."""
    groups = [
        (
            name,
            [(key, d) for key, each in found["datasets"].items() for d in each["differences"] if d["variant"] == name],
        )
        for name in dict.fromkeys(d["variant"] for each in found["datasets"].values() for d in each["differences"])
    ]
    if not groups:
        return None
    pooled = {each["variant"]: each for each in found["pooled"] if len(each["datasets"]) > 1}
    lines = sum(len(rows) + 2 * (name in pooled) for name, rows in groups)
    height = _ROW * (lines + len(groups)) + _GAP * len(groups)
    shown = [d for _, rows in groups for _, d in rows] + [
        each[key] for each in pooled.values() for key in ("fixed", "random")
    ]
    low, high = (extreme(0.0, *(d[key] for d in shown)) for extreme, key in ((min, "low"), (max, "high")))
    margin = 0.04 * (high - low) or 0.01
    right = _WIDTH - 150
    with canvas(_WIDTH, height + 70) as figure:
        axes = add_axes(figure, _LEFT, 28, right - _LEFT, height)
        axes.set(xlim=(low - margin, high + margin), ylim=(height, 0), yticks=[])
        axes.set_axisbelow(True)
        axes.spines[:].set_visible(False)
        axes.locator_params(axis="x", nbins=6, steps=[1, 2, 2.5, 5, 10])
        axes.grid(axis="x", color=colour("line"), linewidth=1)
        axes.axvspan(-found["margin"], found["margin"], color=colour("line"), alpha=0.5, linewidth=0)
        axes.axvline(0, color=colour("fg"), linewidth=1, linestyle=(0, (4, 3)), gid=titled("zero", "no difference"))
        add_text(figure, _LEFT, 16, "← worse", role="muted")
        add_text(figure, right, 16, "better →", role="muted", ha="right")
        add_text(figure, _WIDTH, 16, "difference, 95 %", role="muted", ha="right")
        y = 0.0
        for name, rows in groups:
            y += _GAP + _ROW
            add_text(figure, 0, 28 + y - 4, shortened(name, 30), weight="bold")
            for key, each in rows:
                _row(figure, axes, key, each, y, sure=each["p_bootstrap_holm"] < LEVEL)
                y += _ROW
            for key, label in MEANS.items() if name in pooled else ():
                mean = pooled[name][key]
                _row(figure, axes, label, mean, y, sure=mean["p_holm"] < LEVEL, diamond=True)
                y += _ROW
        label = f"difference in {found['score']} to {found['baseline']}; shaded: within {found['margin']:g}"
        add_text(figure, (_LEFT + right) / 2, height + 64, label, ha="center")
        about = f"Forest plot by data set of the {label}: the figures are those of the tables"
        return to_svg(figure, about)


def _row(figure, axes, label: str, each: Mapping, y: float, *, sure: bool, diamond: bool = False) -> None:
    value, low, high = (signed(each[key], 3) for key in ("value", "low", "high"))
    words, accent, middle = f"{value} [{low}, {high}]", colour("accent"), y + _ROW / 2
    tooltip, weight = titled("range", f"{label}: {words}"), "bold" if sure else "normal"
    if diamond:
        half = 0.32 * _ROW
        corners = np.array(
            [
                (each["low"], middle),
                (each["value"], middle - half),
                (each["high"], middle),
                (each["value"], middle + half),
            ]
        )
        axes.fill(*corners.T, facecolor=accent if sure else colour("bg"), edgecolor=accent, linewidth=1.5, gid=tooltip)
    else:
        axes.plot((each["low"], each["high"]), (middle, middle), color=accent, linewidth=1.5, gid=tooltip)
        fill = accent if sure else colour("bg")
        axes.plot(each["value"], middle, "o", color=accent, markersize=6, markerfacecolor=fill, markeredgewidth=1.5)
    add_text(figure, 14, 28 + middle + 4, shortened(label, 28), size=10)
    add_text(figure, _WIDTH, 28 + middle + 4, words, ha="right", size=10, weight=weight)
