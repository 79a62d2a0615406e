"""The light and the dark colours of a report, as CSS variables; shares of a heat map as levels of colour."""

import numpy as np

NUM_LEVELS = 11  # of a heat map: 0, 0.1 .. 1
_COLOURS = {  # text and lines have a contrast of 4.5 or more to the background (WCAG 2.2 AA); levels run to the last
    "light": {"bg": "#ffffff", "fg": "#16191d", "muted": "#58606a", "line": "#c4cad1", "accent": "#0b4f9c"},
    "dark": {"bg": "#14181d", "fg": "#e8ebee", "muted": "#a3acb7", "line": "#454d57", "accent": "#9ccbff"},
}


def theme_css() -> str:
    """Returns CSS: `--bg`, `--fg`, `--muted`, `--line`, `--accent`, `--l0` .., `--t0` .., and table cells by level."""
    themes = {name: ";".join(f"--{key}:{value}" for key, value in theme(name).items()) for name in _COLOURS}
    # Paper is light.
    dark = f"@media screen and (prefers-color-scheme:dark){{:root{{{themes['dark']}}}}}"
    levels = "".join(f".l{i}{{background:var(--l{i});color:var(--t{i})}}\n" for i in range(NUM_LEVELS))
    return f":root{{{themes['light']}}}\n{dark}\n{levels}.chart text{{font-family:system-ui,sans-serif}}\n"


def theme(name: str) -> dict[str, str]:
    """Returns colours of the "light" or "dark" theme; `l0` .. are a heat map's levels, `t0` .. text upon them."""
    colours = dict(_COLOURS[name])
    low, high = _rgb(colours["bg"]), _rgb(colours["accent"])
    for i in range(NUM_LEVELS):
        mixed = "#" + "".join(f"{round(value):02x}" for value in low + (high - low) * i / (NUM_LEVELS - 1))
        colours[f"l{i}"] = mixed
        colours[f"t{i}"] = max((contrast(text, mixed), text) for text in ("#000000", "#ffffff"))[1]
    return colours


def level(share: float) -> int:
    """Returns the heat-map level, a whole number, of a share of 0 to 1; anything above 0 has at least level 1."""
    return 0 if not share > 0 else max(1, min(NUM_LEVELS - 1, round(share * (NUM_LEVELS - 1))))


def contrast(first: str, second: str) -> float:
    """Returns the ratio of contrast of two colours `#rrggbb`, 1 to 21 (WCAG 2.2)."""
    dark, light = sorted(_luminance(_rgb(colour) / 255.0) for colour in (first, second))
    return (light + 0.05) / (dark + 0.05)


def _rgb(colour: str) -> np.ndarray:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], float)


def _luminance(rgb: np.ndarray) -> float:
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
