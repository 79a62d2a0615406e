"""Waveforms to images: which channels there are, and how their energies become numbers in [0, 1]."""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from audiotag_jax.spectral import stft, yamnet
from audiotag_jax.spectral.arguments import MAX_STRIDE
from audiotag_jax.spectral.filterbanks import filterbank
from audiotag_jax.spectral.reassignment import high_resolution_spectrograms
from audiotag_jax.spectral.scales import EDGES_HZ, MAX_FREQUENCY, bins_per_octave, lowest_frequency

# Clips are worked on a few at a time: their frames then stay in a CPU's cache, and memory does not grow with the batch.
_CLIPS_AT_ONCE = 4
NO_IMAGES = ("waveform",)  # in place of channels: the network takes the waveform itself
_ROWS_A_BIN = 10  # of a high-resolution spectrogram
_TINY = float(np.finfo(np.float32).tiny)


@dataclasses.dataclass(frozen=True)
class SpectralSettings:
    """What determines an image besides the waveform; hashable, so that it can be a static argument of `jax.jit`.

    `channels` names one or more of `CHANNELS`, or one of `PUBLISHED`, or is `NO_IMAGES`. Raises ValueError for any
    value that cannot work.
    """

    channels: tuple[str, ...]
    sample_rate_hz: int = dataclasses.field(default=22050, metadata={"derived": True})  # the clips'
    num_frames: int = 224
    num_bins: int = 224
    range_db: float = 80.0  # how far below the clip's own maximum a dB image reaches
    window_samples: int = 2048
    fft_samples: int = 2048
    stride: float = 8.0  # high resolution looks at one point in so many; 1: at all of them
    # Of high-resolution energies: standard deviation of a Gaussian filter, in frames and in bins. The metadata keeps
    # the names of datasets that were prepared before the field existed.
    smoothing_cells: float = dataclasses.field(default=0.0, metadata={"named": False})

    def __post_init__(self):
        if not isinstance(self.channels, tuple) or not self.channels:
            raise ValueError(f"channels must be a tuple of names, such as ('log_db',), not {self.channels!r}")
        for channel in self._own_channels:
            _require_channel(channel)
        for name, least in (("sample_rate_hz", 1), ("num_frames", 1), ("num_bins", 2), ("window_samples", 2)):
            _require_whole(name, getattr(self, name), least)
        _require_whole("fft_samples", self.fft_samples, self.window_samples)
        if not 0.0 < self.range_db <= 300.0:  # more than 300 dB would not fit in single precision
            raise ValueError(f"range_db must be above 0 and at most 300, not {self.range_db!r}")
        _require_stride(self.stride)
        _require_smoothing(self.smoothing_cells)
        for channel in self._own_channels:
            _bank(CHANNELS[channel].axis, self)  # raises where these sizes leave a band empty
        if self.published and self.sample_rate_hz != self.published.sample_rate_hz:
            raise ValueError(
                f"channel {self.channels[0]} is of waveforms at {self.published.sample_rate_hz} Hz, not at "
                f"{self.sample_rate_hz}: set dataset.sample_rate_hz"
            )

    @property
    def published(self) -> "PublishedFrontEnd | None":
        """The front end of a published network that makes these images; None where `CHANNELS` do."""
        return PUBLISHED.get(self.channels[0]) if len(self.channels) == 1 else None

    @property
    def _own_channels(self) -> tuple[str, ...]:
        return () if self.channels == NO_IMAGES or self.published else self.channels

    @property
    def db_channels(self) -> tuple[bool, ...]:
        """For each channel of what the network sees, whether it is in dB; of a waveform, that it is not."""
        if self.published:
            return (True,)
        return tuple(name in CHANNELS and CHANNELS[name].amplitude_scale is decibels for name in self.channels)

    @property
    def image_range_db(self) -> float:
        """How many dB the range 0 to 1 of a channel in dB spans."""
        return self.published.range_db if self.published else self.range_db

    def image_shape(self, num_samples: int) -> tuple[int, int, int]:
        """[T, F, C] of the image of a clip of `num_samples`."""
        if self.published:
            return (self.published.num_frames(num_samples), self.published.num_bins, 1)
        return (self.num_frames, self.num_bins, len(self.channels))


@functools.partial(jax.jit, static_argnames="settings")
def spectrograms(waveforms: jax.Array, settings: SpectralSettings) -> jax.Array:
    """Images [B, T, F, C] in [0, 1], float32, of finite `waveforms` [B, N]; frequency ascends along F.

    Each channel of each image is relative to its own maximum, so the level of the clip drops out (but for those of
    `PUBLISHED`); silence is all zeros.
    Raises ValueError where `waveforms` has another rank, no clips or no samples.
    """
    waveforms = jnp.asarray(waveforms, jnp.float32)
    if waveforms.ndim != 2 or 0 in waveforms.shape:
        raise ValueError(f"waveforms must be [clips, samples], one or more of each, not {waveforms.shape}")
    num_clips, num_samples = waveforms.shape
    num_groups = -(-num_clips // _CLIPS_AT_ONCE)
    # Filling up the last group with silence gives every clip the same computation, whatever batch it comes in.
    padded = jnp.pad(waveforms, ((0, num_groups * _CLIPS_AT_ONCE - num_clips), (0, 0)))
    groups = padded.reshape(num_groups, _CLIPS_AT_ONCE, num_samples)
    images = jax.lax.map(functools.partial(_images, settings=settings), groups)
    return images.reshape(-1, *images.shape[2:])[:num_clips]


def frequencies_hz(channel: str, settings: SpectralSettings) -> np.ndarray:
    """[F] the centre of each of the channel's bins, ascending."""
    if channel in PUBLISHED:
        return PUBLISHED[channel].frequencies_hz()
    _require_channel(channel)
    return EDGES_HZ[CHANNELS[channel].axis](settings.num_bins, settings.sample_rate_hz)[1:-1]


def times_s(settings: SpectralSettings, num_samples: int) -> np.ndarray:
    """[T] the middle of each frame of a clip of `num_samples`, in seconds from its start."""
    if settings.published:
        return settings.published.times_s(num_samples)
    return stft.times_s(num_samples, num_frames=settings.num_frames, sample_rate_hz=settings.sample_rate_hz)


def magnitude(energies: jax.Array, settings: SpectralSettings) -> jax.Array:
    """The square root of `energies` [..., T, F], over the clip's largest."""
    del settings
    return jnp.sqrt(_relative(energies))


def decibels(energies: jax.Array, settings: SpectralSettings) -> jax.Array:
    """`energies` [..., T, F] in dB below the clip's largest, 0 at `range_db` below it and 1 at it.

    It is `librosa.power_to_db(energies, ref=np.max, top_db=range_db)`, moved into [0, 1].
    """
    floor = max(10.0 ** (-settings.range_db / 10.0), _TINY)
    levels_db = 10.0 * jnp.log10(jnp.maximum(_relative(energies), floor))
    return jnp.clip(1.0 + levels_db / settings.range_db, 0.0, 1.0)


def _images(waveforms, settings):
    """[B, N] to [B, T, F, C], all clips at once."""
    if settings.published:
        return settings.published.images(waveforms)[..., None]
    # Energies are squares: a clip at 1e-6 of full scale would soon run out of single precision's range.
    peak = jnp.max(jnp.abs(waveforms), axis=-1, keepdims=True)
    waveforms = waveforms / jnp.where(peak > _TINY, peak, 1.0)

    @functools.cache  # one STFT for all the channels that ask for it
    def power():
        return stft.power_spectrogram(
            waveforms,
            num_frames=settings.num_frames,
            window_samples=settings.window_samples,
            fft_samples=settings.fft_samples,
        )

    channels = [CHANNELS[name] for name in settings.channels]
    images = [channel.amplitude_scale(channel.energies(waveforms, power, settings), settings) for channel in channels]
    return jnp.stack(images, axis=-1)


def _band_energies(waveforms, power, settings, *, axis):
    del waveforms
    bank = _bank(axis, settings).astype(np.float32)
    # Accelerators would otherwise multiply in fewer bits than an 80 dB range needs.
    return jnp.matmul(power(), bank, precision=jax.lax.Precision.HIGHEST)


def _reassigned_energies(waveforms, power, settings, *, q):
    del power
    num_frames = settings.num_frames
    descending = high_resolution_spectrograms(
        waveforms,
        q=q,
        tdeci=stft.hop_samples(waveforms.shape[-1], num_frames),
        over=_ROWS_A_BIN,
        noct=bins_per_octave(settings.num_bins),
        minf=lowest_frequency(settings.num_bins),
        maxf=MAX_FREQUENCY,
        stride=settings.stride,
    )
    missing = num_frames - descending.shape[1]  # whole frames beyond the end of a clip of few samples
    energies = jnp.pad(descending[:, :, ::-1], ((0, 0), (0, missing), (0, 0)))
    if settings.smoothing_cells:
        frames, bins = (_gaussian(size, settings.smoothing_cells) for size in energies.shape[1:])
        energies = jnp.einsum("ts,bsf,fg->btg", frames, energies, bins, precision=jax.lax.Precision.HIGHEST)
    return energies


def _gaussian(size, sigma):
    """[size, size] of a Gaussian filter along one axis, with nothing beyond its ends; symmetric."""
    positions = np.arange(size)
    distances = np.abs(positions[:, None] - positions)
    weights = np.where(distances <= int(4 * sigma + 0.5), np.exp(-0.5 * (distances / sigma) ** 2), 0.0)
    offsets = np.arange(-int(4 * sigma + 0.5), int(4 * sigma + 0.5) + 1)
    return (weights / np.exp(-0.5 * (offsets / sigma) ** 2).sum()).astype(np.float32)


def _relative(energies):
    largest = jnp.max(energies, axis=(-2, -1), keepdims=True)
    return energies / jnp.where(largest > _TINY, largest, 1.0)


def _bank(axis, settings):
    sizes = {name: getattr(settings, name) for name in ("num_bins", "sample_rate_hz", "fft_samples")}
    return filterbank(axis, **sizes)


def channel_version(channel: str) -> int:
    """The version of a channel's numbers, a part of the names of prepared datasets."""
    return (PUBLISHED[channel] if channel in PUBLISHED else CHANNELS[channel]).version


def _require_channel(channel):
    if channel in PUBLISHED:
        raise ValueError(f"channel {channel} has sizes and a scale of its own: it stands alone, as ({channel!r},)")
    if channel not in CHANNELS:
        raise ValueError(f"unknown spectrogram channel {channel!r}; choose from {', '.join([*CHANNELS, *PUBLISHED])}")


def _require_whole(name, value, least):
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number, {least} or more, not {value!r}")


def _require_stride(value):
    if not isinstance(value, int | float) or isinstance(value, bool) or not 1.0 <= value <= MAX_STRIDE:
        raise ValueError(f"stride must be from 1 to {MAX_STRIDE:g}, not {value!r}")


class Channel(NamedTuple):
    """One kind of image: a key of `EDGES_HZ`, and two functions.

    `energies(waveforms [B, N], power, settings)` gives [B, T, F] >= 0, ascending; calling `power()` gives the clips'
    STFT power [B, T, 1 + fft / 2]. `amplitude_scale(energies, settings)` gives the image in [0, 1].
    """

    axis: str
    energies: Callable
    amplitude_scale: Callable
    version: int = 1  # part of the names of prepared datasets: raise it when the channel's numbers change


CHANNELS = {
    f"{axis}_{name}": Channel(axis, functools.partial(_band_energies, axis=axis), amplitude_scale)
    for axis in EDGES_HZ
    for name, amplitude_scale in (("linear", magnitude), ("db", decibels))
}
# These hold the energy of each bin, as published; a band of the others measures energy per Hz.
for _q in (1, 2, 4, 8):
    CHANNELS[f"hires_q{_q}"] = Channel("log", functools.partial(_reassigned_energies, q=_q), decibels)


class PublishedFrontEnd(NamedTuple):
    """The images that a published network was trained on: their sizes and scale are its own, and they stand alone.

    `images(waveforms [B, N])` gives [B, T, F] in [0, 1], `num_frames(num_samples)` T, `times_s(num_samples)` [T].
    """

    sample_rate_hz: int
    num_bins: int
    range_db: float
    images: Callable
    num_frames: Callable
    frequencies_hz: Callable
    times_s: Callable
    version: int = 1  # as that of a Channel


PUBLISHED = {
    "yamnet": PublishedFrontEnd(
        yamnet.SAMPLE_RATE_HZ,
        yamnet.NUM_BANDS,
        yamnet.RANGE_DB,
        yamnet.images,
        yamnet.num_frames,
        yamnet.frequencies_hz,
        yamnet.times_s,
    )
}


def _require_smoothing(value):
    if not isinstance(value, int | float) or isinstance(value, bool) or not (value == 0 or 0.1 <= value <= 20.0):
        raise ValueError(f"smoothing_cells must be 0 or from 0.1 to 20, not {value!r}")
