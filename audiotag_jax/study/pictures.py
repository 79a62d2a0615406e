"""Drawings of one clip: its spectrogram with axes in Hz and seconds, or its waveform."""

import numpy as np
from markupsafe import Markup

from audiotag_jax.study.media import Media, image_uri
from audiotag_jax.study.plots import number_of_tick
from audiotag_jax.study.svg import chart, element, number, round_ticks

_WIDTH, _HEIGHT = 304, 190  # of the whole drawing, of the plot in it
_TOP, _BELOW, _AXIS, _BESIDE = 18, 34, 42, 12
_LEAST_GAP = 15  # between two ticks
_HZ = tuple(factor * 10**power for power in range(5) for factor in (1, 2, 5))
_COLOURS = ("red", "green", "blue")


def clip_picture(media: Media, variant: str, clip: str, title: str) -> Markup:
    """What the variant's network sees of the clip; the waveform where the variant has no images.

    `title` says in words which clip it is. Bins lie evenly, so ticks stand where their frequencies are.
    """
    if variant not in media.images:
        return _waveform(media, clip, f"Waveform of {title}, {media.duration_s:g} s")
    image = np.asarray(media.images[variant][clip])
    axes = np.atleast_2d(np.asarray(media.axes[variant], float))
    if all(np.array_equal(axis, axes[0]) for axis in axes):
        axes = axes[:1]
    left = _AXIS * len(axes) + 2
    reach = f"{axes.min():.0f} to {axes.max():.0f} Hz, {media.duration_s:g} s"
    place = {"x": left, "y": _TOP, "width": _across(left), "height": _HEIGHT}
    parts = [element("image", href=image_uri(image), preserveAspectRatio="none", **place)]
    for index, axis in enumerate(axes):
        name = "Hz" if len(axes) == 1 else _COLOURS[index] if index < len(_COLOURS) else ""
        parts += _frequency_axis(axis, left - _AXIS * (len(axes) - 1 - index), name)
    parts += _time_axis(media.duration_s, left)
    return chart(_WIDTH, _TOP + _HEIGHT + _BELOW, f"{variant} spectrogram of {title}, {reach}", *parts)


def frequency_ticks(axis_hz: np.ndarray, height: float, least_gap: float = _LEAST_GAP) -> list[tuple[int, float]]:
    """Round frequencies and how far below the top of `height` each lies, where the bins [F] lie evenly from the bottom.

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


def _across(left):
    """How wide the plot is, beginning at `left`."""
    return _WIDTH - _BESIDE - left


def _frequency_axis(axis, right, name):
    parts = [element("text", name, x=right - 4, y=10, text_anchor="end", class_="small muted")]
    for hz, down in frequency_ticks(axis, _HEIGHT):
        y = _TOP + down
        parts.append(element("path", d=f"M{right - 4} {y:.1f}h4", class_="grid"))
        parts.append(element("text", hz, x=right - 6, y=y + 4, text_anchor="end", class_="small"))
    return parts


def _time_axis(duration_s, left):
    below = _TOP + _HEIGHT
    parts = []
    for tick in round_ticks(0.0, duration_s, 6):
        x = left + _across(left) * tick / duration_s
        parts.append(element("path", d=f"M{x:.1f} {below}v4", class_="grid"))
        parts.append(element("text", number_of_tick(tick), x=x, y=below + 16, text_anchor="middle", class_="small"))
    middle = left + _across(left) / 2
    return [*parts, element("text", "s", x=middle, y=below + 30, text_anchor="middle", class_="small muted")]


def _waveform(media, clip, description):
    """The envelope: the least and the greatest sample of each of so many columns."""
    left, middle = _AXIS + 2, _TOP + _HEIGHT / 2
    samples = np.clip(np.nan_to_num(np.asarray(media.waveforms[clip], float)), -1.0, 1.0)
    columns = np.array_split(samples, min(len(samples), _across(left)))
    x = left + np.linspace(0.0, _across(left), len(columns))
    greatest, least = (middle - _HEIGHT / 2 * np.array([pick(c) for c in columns]) for pick in (np.max, np.min))
    outline = [f"{a:.1f} {b:.1f}" for a, b in zip([*x, *x[::-1]], [*greatest, *least[::-1]], strict=True)]
    parts = [
        element("path", d=f"M{left} {number(middle)}h{_across(left)}", class_="grid"),
        element("path", d="M" + "L".join(outline) + "z", class_="wave"),
    ]
    for value in (-1, 0, 1):
        y = middle - value * _HEIGHT / 2
        parts.append(element("text", value, x=left - 6, y=y + 4, text_anchor="end", class_="small"))
    return chart(_WIDTH, _TOP + _HEIGHT + _BELOW, description, *parts, *_time_axis(media.duration_s, left))
