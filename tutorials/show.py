"""Sounds to play and pictures to look at, for the notebooks beside this file; small enough to be kept in them."""

import html
import io
import logging
import warnings
from collections.abc import Mapping

import numpy as np

logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # its first start would be logged in the notebook
warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm's, which nothing here needs

import matplotlib.pyplot as plt  # noqa: E402
from IPython.display import HTML, Image  # noqa: E402
from PIL import Image as Pixels  # noqa: E402

from audiotag_jax.study.media import sound_uri  # noqa: E402
from benchmarks.show_variants import SCALES, bin_edges_hz  # noqa: E402

DOTS_PER_INCH, NUM_COLOURS = 80, 128


def players(sounds: Mapping[str, tuple[np.ndarray, int]]) -> HTML:
    """A player for each caption's (samples [N], rate in Hz), at the level of the samples."""
    rows = (
        f'<div style="margin: 4px 0">{html.escape(caption)}<br><audio controls src="{sound_uri(*sound)}"></audio></div>'
        for caption, sound in sounds.items()
    )
    return HTML("".join(rows))


def picture(figure) -> Image:
    """The pyplot figure as a PNG of few colours, closed, so that Jupyter does not show it a second time."""
    with io.BytesIO() as drawn, io.BytesIO() as small:
        figure.savefig(drawn, dpi=DOTS_PER_INCH, format="png")
        plt.close(figure)
        colours = Pixels.open(drawn).convert("RGB").quantize(NUM_COLOURS, dither=Pixels.Dither.NONE)
        colours.save(small, format="png", optimize=True)
        return Image(small.getvalue())


def spectrogram(axes, image: np.ndarray, times_s: np.ndarray, frequencies_hz: np.ndarray, scale: str, **options):
    """Draws `image` [T, F], frequency ascending, in seconds and Hz; `scale` is linear, log or mel.

    `times_s` [T] and `frequencies_hz` [F] are the middles of frames and bins, F evenly spaced on the scale.
    Other options go to pyplot's pcolormesh; without them colours run from 0 to 1.
    """
    forward, inverse, ticks = SCALES[scale]
    half_frame_s = (times_s[1] - times_s[0]) / 2
    time_edges_s = np.append(times_s - half_frame_s, times_s[-1] + half_frame_s)
    edges_hz = bin_edges_hz(frequencies_hz, forward, inverse)
    axes.set_yscale("function", functions=(forward, inverse))
    axes.set_yticks([hz for hz in ticks if edges_hz[0] <= hz <= edges_hz[-1]])
    axes.yaxis.set_major_formatter(lambda hz, _: f"{hz:.0f}")
    axes.set_yticks([], minor=True)
    options = {"cmap": "magma", "vmin": 0.0, "vmax": 1.0, "rasterized": True} | options
    mesh = axes.pcolormesh(time_edges_s, edges_hz, np.asarray(image).T, **options)
    axes.set(xlabel="time (s)", ylabel="frequency (Hz)", ylim=(max(edges_hz[0], 0), edges_hz[-1]))
    return mesh
