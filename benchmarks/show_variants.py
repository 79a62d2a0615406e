"""Draws one recording in all spectrogram variants of configs/, and its waveform.

    python benchmarks/show_variants.py RECORDING --out=variants.png

Needs matplotlib. Takes about a minute, mostly for compilation.
"""

import argparse
import dataclasses
import importlib
import sys
from pathlib import Path

import librosa
import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from audiotag_jax.audio.decode import AudioError, load_audio  # noqa: E402
from audiotag_jax.spectral import features, stft  # noqa: E402

try:
    import matplotlib
    from matplotlib.figure import Figure
except ImportError:
    matplotlib = None

FIGURE_INCHES, DOTS_PER_INCH = (16, 12), 150
# By axis: the function of Hz in which bins are evenly spaced, its inverse, and the ticks in Hz.
SCALES = {
    "linear": (np.asarray, np.asarray, (0, 2000, 4000, 6000, 8000, 10000)),
    "log": (lambda hz: np.log2(np.maximum(hz, 1e-3)), np.exp2, (50, 100, 200, 500, 1000, 2000, 5000, 10000)),
    "mel": (librosa.hz_to_mel, librosa.mel_to_hz, (100, 500, 1000, 2000, 3000, 5000, 7000, 10000)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recording", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="image file, such as variants.png")
    parser.add_argument("--duration", type=float, default=5.0, help="seconds from the start of the recording")
    options = parser.parse_args()
    if matplotlib is None:
        sys.exit("matplotlib is not installed: `pip install matplotlib`.")
    if not options.duration > 0:
        parser.error("--duration must be above 0")
    if not options.out.absolute().parent.is_dir():
        sys.exit(f"--out: there is no folder {options.out.parent}.")
    kinds = sorted(Figure().canvas.get_supported_filetypes())
    if options.out.suffix.lower().removeprefix(".") not in kinds:
        sys.exit(f"--out: {options.out.name} must end in one of {', '.join(kinds)}, such as variants.png.")
    configs = load_variants()
    rate_hz = configs[0].dataset.sample_rate_hz
    try:
        samples, note = load_audio(options.recording, rate_hz)
    except AudioError as error:
        sys.exit(f"{options.recording}: {error}")
    samples = samples[: max(1, round(options.duration * rate_hz))]
    figure = draw(samples, rate_hz, configs)
    heading = f"{options.recording.name}, {len(samples) / rate_hz:g} s, {rate_hz} Hz"
    heading += f" ({note})" if note else ""
    range_db = f"{configs[0].spectral.range_db:g} dB below its maximum"
    legend = f"Each image from 0 (black) to its maximum; db and hires from {range_db}"
    figure.suptitle(f"{heading}\n{legend}", fontsize=13)
    print("Drawing …", flush=True)
    figure.savefig(options.out, dpi=DOTS_PER_INCH)
    print(f"{len(configs)} variants in {options.out}")


def load_variants() -> list:
    """Returns the configs with images: single channels in the order of `features.CHANNELS`, then mixes by name."""
    names = sorted(path.stem for path in (ROOT / "configs").glob("*.py") if path.stem not in ("default", "__init__"))
    configs = [importlib.import_module(f"configs.{name}").get_config() for name in names]
    order = list(features.CHANNELS)
    configs = [config for config in configs if set(config.spectral.channels) <= set(order)]  # not waveform
    return sorted(configs, key=lambda c: (len(c.spectral.channels) > 1, order.index(c.spectral.channels[0]), c.name))


def draw(samples: np.ndarray, rate_hz: int, configs: list) -> "Figure":
    """Draws one row of panels per kind of variant; the first free panel shows the waveform of `samples` [N]."""
    rows = {}
    for config in configs:
        rows.setdefault(kind(config.spectral.channels), []).append(config)
    num_columns = max(4, *(len(row) for row in rows.values()))
    figure = Figure(figsize=FIGURE_INCHES, layout="constrained")
    panels = figure.subplots(len(rows), num_columns, squeeze=False)
    images = {}
    spare = [panel for line, row in zip(panels, rows.values(), strict=True) for panel in line[len(row) :]]
    for line, row in zip(panels, rows.values(), strict=True):
        for panel, config in zip(line, row, strict=False):
            print(f"Computing {config.name} …", flush=True)
            draw_variant(panel, samples, rate_hz, config, images)
        line[0].set_ylabel(line[0].get_ylabel() or "frequency (Hz)")
    for panel in spare[1:]:
        panel.set_visible(False)
    for column in panels.T:
        [panel for panel in column if panel.get_visible()][-1].set_xlabel("time (s)")
    for panel in spare[:1]:
        draw_waveform(panel, samples, rate_hz)
    return figure


def kind(channels: tuple[str, ...]) -> str:
    if len(channels) > 1:
        return "mix"
    return "hires" if channels[0].startswith("hires") else channels[0].rsplit("_", 1)[1]


def draw_variant(panel, samples: np.ndarray, rate_hz: int, config, images: dict) -> None:
    """Draws one channel with a colormap, or three as red, green and blue; `images` caches channels."""
    settings = features.SpectralSettings(**config.spectral.to_dict(), sample_rate_hz=rate_hz)
    alone = [dataclasses.replace(settings, channels=(channel,)) for channel in settings.channels]
    for channel in alone:
        if channel not in images:
            images[channel] = np.asarray(features.spectrograms(samples[None], channel))[0, :, :, 0].T
    image = np.stack([images[channel] for channel in alone], axis=-1)  # [F, T, C]
    axes = {features.CHANNELS[channel].axis for channel in settings.channels}
    half_frame_s = stft.hop_samples(len(samples), settings.num_frames) / rate_hz / 2
    times_s = features.times_s(settings, len(samples))
    time_edges_s = np.append(times_s - half_frame_s, times_s[-1] + half_frame_s)
    if len(axes) == 1:
        scale, inverse, ticks = SCALES[axes.pop()]
        edges = bin_edges_hz(features.frequencies_hz(settings.channels[0], settings), scale, inverse)
        panel.set_yscale("function", functions=(scale, inverse))
        panel.set_yticks(ticks, [f"{hz:d}" for hz in ticks], minor=False)
        panel.set_yticks([], minor=True)
    else:  # each channel has its own frequencies
        edges = np.arange(settings.num_bins + 1) - 0.5
        panel.set_ylabel("bin of each channel's own axis")
    colours = image if len(settings.channels) == 3 else image[..., 0]
    panel.pcolormesh(time_edges_s, edges, colours, cmap="magma", vmin=0.0, vmax=1.0, rasterized=True)
    panel.set(xlim=(0.0, len(samples) / rate_hz), ylim=(max(edges[0], -0.5), edges[-1]))
    panel.set_title(title(config.name, settings.channels), fontsize=10)


def title(name: str, channels: tuple[str, ...]) -> str:
    if len(channels) != 3:
        return name
    colours = ("red", "green", "blue")
    return f"{name}\n" + ", ".join(f"{colour} {channel}" for colour, channel in zip(colours, channels, strict=True))


def bin_edges_hz(centres_hz: np.ndarray, scale, inverse) -> np.ndarray:
    """Returns edges [F + 1] halfway between the centres [F] on the scale, and as far beyond the outermost."""
    centres = scale(centres_hz)
    inner = (centres[1:] + centres[:-1]) / 2
    return inverse(np.concatenate([[2 * centres[0] - inner[0]], inner, [2 * centres[-1] - inner[-1]]]))


def draw_waveform(panel, samples: np.ndarray, rate_hz: int) -> None:
    panel.plot((np.arange(len(samples)) + 0.5) / rate_hz, samples, linewidth=0.4, color="black")
    panel.set(xlim=(0.0, len(samples) / rate_hz))
    panel.set_title("waveform", fontsize=10)


if __name__ == "__main__":
    main()
