"""Parts of drawings: elements that escape what they are given, the two colour themes, and ticks at round numbers."""

import math
import re
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup, escape

NUM_LEVELS = 11  # of a heat map: 0, 0.1 .. 1
_NAMESPACE = "http://www.w3.org/2000/svg"
_COLOURS = {  # text and lines have a contrast of 4.5 or more to the background (WCAG 2.2 AA); levels run to the last
    "light": {"bg": "#ffffff", "fg": "#16191d", "muted": "#58606a", "line": "#c4cad1", "accent": "#0b4f9c"},
    "dark": {"bg": "#14181d", "fg": "#e8ebee", "muted": "#a3acb7", "line": "#454d57", "accent": "#9ccbff"},
}
_CHART_CSS = """\
.chart text{fill:var(--fg);font:12px system-ui,sans-serif}
.chart .small{font-size:11px}
.chart .tiny{font-size:10px}
.chart .muted{fill:var(--muted)}
.chart .strong{font-weight:600}
.chart .grid{stroke:var(--line);stroke-width:1;fill:none}
.chart .zero{stroke:var(--fg);stroke-width:1;stroke-dasharray:4 3}
.chart .mark{stroke:var(--accent);fill:var(--accent);stroke-width:2}
.chart .hollow{fill:var(--bg)}
.chart .all{fill:none;stroke:var(--line);stroke-width:1}
.chart .one{fill:none;stroke:var(--accent);stroke-width:2;stroke-linecap:round}
.chart .wave{fill:var(--accent)}
"""
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """`<tag …>children</tag>`, everything escaped but Markup; `class_` gives class, other underscores hyphens.

    Numbers are written with at most two decimals, None leaves an attribute out, and what XML forbids becomes U+FFFD.
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{_text(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{tag}{written}>{''.join(_text(child) for child in children)}</{tag}>")  # noqa: S704


def chart(width: float, height: float, description: str, *children: object) -> Markup:
    """An `<svg>` of that many units, which scales to its place and is announced as `description`."""
    box = {"viewBox": f"0 0 {number(width)} {number(height)}", "width": width, "height": height}
    return element("svg", *children, xmlns=_NAMESPACE, class_="chart", role="img", aria_label=description, **box)


def standalone(drawing: Markup) -> str:
    """The text of an `.svg` file of a `chart`: with its style and a background, in the reader's colour theme."""
    head, rest = str(drawing).split(">", 1)
    background = element("rect", width="100%", height="100%", fill="var(--bg)")
    return f"{head}>{element('style', Markup(theme_css()))}{background}{rest}\n"  # noqa: S704


def number(value: float) -> str:
    """At most two decimals, no trailing zeros."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def shortened(text: str, most: int) -> str:
    """The text, or its beginning and an ellipsis, in at most so many characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def level(share: float) -> int:
    """The heat-map level of a share of 0 to 1; anything above 0 has at least level 1."""
    return 0 if not share > 0 else max(1, min(NUM_LEVELS - 1, round(share * (NUM_LEVELS - 1))))


def round_ticks(low: float, high: float, at_most: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten within [low, high]: as many as `at_most` allows."""
    span = high - low
    if not span > 0 or not math.isfinite(span):
        return [low]
    power = 10.0 ** math.floor(math.log10(span / at_most))
    for factor in (1, 2, 5, 10, 20):
        step = factor * power
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first + 1 <= at_most:
            break
    return [round(index * step, 12) for index in range(first, last + 1)]


def theme_css() -> str:
    """Style of every chart, and the variables `--bg`, `--fg`, `--muted`, `--line`, `--accent`; paper is light."""
    themes = {name: ";".join(f"--{key}:{value}" for key, value in theme(name).items()) for name in _COLOURS}
    levels = "".join(
        f".l{i}{{fill:var(--l{i});background:var(--l{i});color:var(--t{i})}}.chart .t{i}{{fill:var(--t{i})}}\n"
        for i in range(NUM_LEVELS)
    )
    dark = f"@media screen and (prefers-color-scheme:dark){{:root{{{themes['dark']}}}}}"
    return f":root{{{themes['light']}}}\n{dark}\n{_CHART_CSS}{levels}"


def theme(name: str) -> dict[str, str]:
    """Colours of the "light" or "dark" theme; `l0` .. are a heat map's levels, `t0` .. text upon them."""
    colours = dict(_COLOURS[name])
    low, high = _rgb(colours["bg"]), _rgb(colours["accent"])
    for i in range(NUM_LEVELS):
        mixed = "#" + "".join(f"{round(value):02x}" for value in low + (high - low) * i / (NUM_LEVELS - 1))
        colours[f"l{i}"] = mixed
        colours[f"t{i}"] = max(("#000000", "#ffffff"), key=lambda text, below=mixed: contrast(text, below))
    return colours


def contrast(first: str, second: str) -> float:
    """Ratio of contrast of two colours `#rrggbb`, 1 to 21 (WCAG 2.2)."""
    dark, light = sorted(_luminance(_rgb(colour) / 255.0) for colour in (first, second))
    return (light + 0.05) / (dark + 0.05)


def path(x: Sequence[float], y: Sequence[float]) -> str:
    """The `d` of a line through the points; through one alone, of no length, which round ends make a dot."""
    points = [f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True)]
    return "M" + ("L".join(points) if len(points) > 1 else f"{points[0]}h0")


def _text(value: object) -> str:
    if isinstance(value, Markup):
        return str(value)
    if isinstance(value, int | float | np.number):
        return number(float(value))
    return str(escape(_NOT_XML.sub("\ufffd", str(value))))


def _rgb(colour: str) -> np.ndarray:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], float)


def _luminance(rgb: np.ndarray) -> float:
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
