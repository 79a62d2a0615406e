"""Charts of a single run: its learning curves, and how often its first tag is right by its probability."""

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup

from audiotag_jax.evaluation.by_class import Bin
from audiotag_jax.study.charts import percent, thinned
from audiotag_jax.study.figures import add_axes, add_text, canvas, colour, titled, to_svg

_WIDTH, _HEIGHT = 430, 200
_LEFT, _RIGHT, _TOP, _BELOW = 56, 108, 24, 44
_LINES = {"training": {"color": "muted", "linestyle": "-"}, "validation": {"color": "accent", "linestyle": "-"}}


def curves_plot(name: str, curves: Mapping[str, np.ndarray]) -> Markup | None:
    """Draws a quantity over steps, from [n, 2] of (step, value) of "training" and "validation"; None without a line."""
    lines = {kind: thinned(np.asarray(curve, float)) for kind, curve in curves.items()}
    lines = {kind: line for kind, line in lines.items() if len(line)}
    if max(map(len, lines.values()), default=0) < 2:  # a probe has one step
        return None
    with canvas(_WIDTH, _TOP + _HEIGHT + _BELOW) as figure:
        axes = add_axes(figure, _LEFT, _TOP, _WIDTH - _LEFT - _RIGHT, _HEIGHT)
        for kind, line in lines.items():
            dot = "o" if len(line) <= 20 else None
            look = {"color": colour(_LINES[kind]["color"]), "marker": dot, "markersize": 4, "linewidth": 2}
            axes.plot(*line.T, gid=titled("one", kind), **look)
        axes.grid(color=colour("line"), linewidth=0.5)
        axes.set_xlim(left=0)
        low, high = axes.get_ylim()
        axes.set_ylim(min(0.0, low), high)
        ends = sorted((float(line[-1, 1]), kind) for kind, line in lines.items())
        places = [_TOP + _HEIGHT * (1 - (end - min(0.0, low)) / (high - min(0.0, low))) + 4 for end, _ in ends]
        for index in range(1, len(places)):
            places[index] = min(places[index], places[index - 1] - 15)
        for (end, kind), y in zip(ends, places, strict=True):
            role = _LINES[kind]["color"]
            add_text(figure, _WIDTH - _RIGHT + 6, y, f"{kind} {end:.2f}", role=role, weight="bold")
        add_text(figure, _LEFT, 14, name, weight="bold")
        add_text(figure, _LEFT + (_WIDTH - _LEFT - _RIGHT) / 2, _TOP + _HEIGHT + 36, "step", ha="center")
        last = ", ".join(f"{kind} {end:.3f}" for end, kind in ends)
        return to_svg(figure, f"{name} over steps. At the end: {last}")


def reliability_plot(
    kinds: Mapping[str, Sequence[Bin]], tag: str = "first tag", share: str = "share that is right"
) -> Markup:
    """Draws the share of right first tags against their probability, with 95 % intervals; the diagonal is perfect.

    `kinds` are bins by name, "before" hollow, all others filled; `tag` and `share` name what the axes show.
    """
    side = 280
    with canvas(_WIDTH, _TOP + side + _BELOW) as figure:
        axes = add_axes(figure, _LEFT, _TOP, side, side)
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.grid(color=colour("line"), linewidth=0.5)
        axes.plot((0, 1), (0, 1), color=colour("fg"), linewidth=1, linestyle=(0, (4, 3)))
        for place, (name, bins) in enumerate(kinds.items()):
            role = "muted" if name == "before" else "accent"
            fill = colour("bg") if name == "before" else colour(role)
            for each in bins:
                words = f"{name}: probability {percent(each.confidence)}, right {percent(each.right.value)}"
                words += f" of {each.num_clips}"
                look = {"color": colour(role), "linewidth": 1.5}
                axes.plot((each.confidence,) * 2, (each.right.low, each.right.high), **look, gid=titled("range", words))
                axes.plot(each.confidence, each.right.value, "o", color=colour(role), markerfacecolor=fill,
                          markersize=4 + min(6.0, each.num_clips**0.5 / 4), gid=titled("mark", words))  # fmt: skip
            add_text(figure, _LEFT + side + 16, _TOP + 16 + 18 * place, f"● {name}" if fill == colour(role) else
                     f"○ {name}", role=role)  # fmt: skip
        add_text(figure, _LEFT + side / 2, _TOP + side + 36, f"probability of the {tag}", ha="center")
        add_text(figure, 16, _TOP + side / 2, share, rotation=90, ha="center", va="center")
        about = f"Reliability: the share of right {tag}s by their probability, " + " and ".join(kinds)
        return to_svg(figure, about)
