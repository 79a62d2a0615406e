"""Drawings of one clip: its spectrogram with axes in Hz and seconds, or its waveform.

A template draws them, not Matplotlib, which takes some 75 ms and writes eight times as much for each of a hundred.
"""

import jinja2
import numpy as np
from markupsafe import Markup

from audiotag_jax.study.figures import clean
from audiotag_jax.study.media import Media, image_uri

_WIDTH, _HEIGHT = 304, 190  # of the whole drawing, of the plot in it
_TOP, _BELOW, _AXIS, _BESIDE = 18, 34, 42, 12
_LEAST_GAP = 15  # between two ticks
_HZ = tuple(factor * 10**power for power in range(5) for factor in (1, 2, 5))
_COLOURS = ("red", "green", "blue")
_PICTURE = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
    '<svg xmlns="http://www.w3.org/2000/svg" class="chart" role="img" aria-label="{{ description }}" '
    'viewBox="0 0 {{ width }} {{ bottom + 34 }}" width="{{ width }}" height="{{ bottom + 34 }}" '
    'font-size="11" fill="var(--fg)" stroke-width="1">{{ content }}'
    "{% for right, name, ticks in axes %}"
    '<text x="{{ right - 4 }}" y="10" text-anchor="end" fill="var(--muted)">{{ name }}</text>'
    "{% for label, y in ticks %}"
    '<path d="M{{ right - 4 }} {{ y | round(1) }}h4" stroke="var(--line)"/>'
    '<text x="{{ right - 6 }}" y="{{ (y + 4) | round(1) }}" text-anchor="end">{{ label }}</text>'
    "{% endfor %}{% endfor %}{% for label, x in times %}"
    '<path d="M{{ x | round(1) }} {{ bottom }}v4" stroke="var(--line)"/>'
    '<text x="{{ x | round(1) }}" y="{{ bottom + 16 }}" text-anchor="middle">{{ label }}</text>{% endfor %}'
    '<text x="{{ middle }}" y="{{ bottom + 30 }}" text-anchor="middle" fill="var(--muted)">s</text></svg>'
)


def clip_picture(media: Media, variant: str, clip: str, title: str) -> Markup:
    """Draws the variant's image of the clip, its network's input; the waveform without an image; empty without both.

    `title` names the clip. Bins lie evenly, so ticks stand where their frequencies are.
    """
    if clip not in media.images.get(variant, {}):
        if clip not in media.waveforms:
            return Markup("")
        samples = np.clip(np.nan_to_num(np.asarray(media.waveforms[clip], float)), -1.0, 1.0)
        left = _AXIS + 2
        ticks = [(value, _TOP + _HEIGHT * (1 - value) / 2) for value in (-1, 0, 1)]
        about = f"Waveform of {title}, {media.duration_s:g} s"
        return _drawn(about, _envelope(samples, left), [(left, "", ticks)], media.duration_s)
    axes = np.atleast_2d(np.asarray(media.axes[variant], float))
    if all(np.array_equal(axis, axes[0]) for axis in axes):
        axes = axes[:1]
    scales = []
    for index, axis in enumerate(axes):
        name = "Hz" if len(axes) == 1 else _COLOURS[index] if index < len(_COLOURS) else ""
        ticks = [(hz, _TOP + down) for hz, down in frequency_ticks(axis, _HEIGHT)]
        scales.append((_AXIS * (index + 1) + 2, name, ticks))
    left = _AXIS * len(axes) + 2
    image = Markup('<image href="{}" x="{}" y="{}" width="{}" height="{}" preserveAspectRatio="none"/>').format(
        image_uri(np.asarray(media.images[variant][clip])), left, _TOP, _across(left), _HEIGHT
    )
    reach = f"{axes.min():.0f} to {axes.max():.0f} Hz, {media.duration_s:g} s"
    return _drawn(f"{variant} spectrogram of {title}, {reach}", image, scales, media.duration_s)


def frequency_ticks(axis_hz: np.ndarray, height: float, least_gap: float = _LEAST_GAP) -> list[tuple[int, float]]:
    """Returns round frequencies in Hz and how far below the top of `height` each lies, for evenly spaced bins [F].

    Multiples where the axis is linear, else 1, 2 and 5 times powers of ten; none closer than `least_gap` to the next.
    """
    steps = np.diff(axis_hz)
    if np.allclose(steps, steps[0], rtol=1e-3):
        candidates = [round(tick) for tick in round_ticks(axis_hz[0], axis_hz[-1], 7)]
    else:
        candidates = [hz for hz in _HZ if axis_hz[0] <= hz <= axis_hz[-1]]
    ticks: list[tuple[int, float]] = []
    for hz in reversed(candidates):
        down = height * (1.0 - (np.interp(hz, axis_hz, np.arange(len(axis_hz))) + 0.5) / len(axis_hz))
        if not ticks or down - ticks[-1][1] >= least_gap:
            ticks.append((hz, float(down)))
    return ticks[::-1]


def round_ticks(low: float, high: float, at_most: int) -> list[float]:
    """Returns multiples of 1, 2 or 5 times a power of ten within [low, high], at most `at_most`."""
    from matplotlib.ticker import MaxNLocator

    ticks = np.round(MaxNLocator(at_most - 1, steps=[1, 2, 5, 10]).tick_values(low, high), 12)
    return sorted({float(tick) for tick in ticks if low <= tick <= high})


def _across(left: int) -> int:
    """Returns the width of the plot, in pixels, beginning at `left`."""
    return _WIDTH - _BESIDE - left


def _envelope(samples: np.ndarray, left: int) -> Markup:
    """Draws the least and the greatest sample [N] of each column of pixels, and the line of 0."""
    middle = _TOP + _HEIGHT / 2
    columns = np.array_split(samples, min(len(samples), _across(left)))
    x = left + np.linspace(0.0, _across(left), len(columns))
    greatest, least = (middle - _HEIGHT / 2 * np.array([pick(c) for c in columns]) for pick in (np.max, np.min))
    outline = [f"{a:.1f} {b:.1f}" for a, b in zip([*x, *x[::-1]], [*greatest, *least[::-1]], strict=True)]
    zero = Markup('<path d="M{} {:g}h{}" stroke="var(--line)"/>').format(left, middle, _across(left))
    return zero + Markup('<path d="M{}z" fill="var(--accent)"/>').format("L".join(outline))


def _drawn(description: str, content: Markup, axes: list, duration_s: float) -> Markup:
    """Renders the drawing; `axes` are (right edge, name, [(label, y), …])."""
    left = axes[-1][0]
    times = [(f"{tick:g}", left + _across(left) * tick / duration_s) for tick in round_ticks(0.0, duration_s, 6)]
    place = {"width": _WIDTH, "bottom": _TOP + _HEIGHT, "middle": left + _across(left) / 2}
    return Markup(  # noqa: S704
        _PICTURE.render(description=clean(description), content=content, axes=axes, times=times, **place)
    )
