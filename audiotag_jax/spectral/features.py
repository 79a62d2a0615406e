"""Waveforms to images: which channels there are, and how their energies become numbers in [0, 1]."""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from audiotag_jax.spectral import stft, yamnet
from audiotag_jax.spectral.filterbanks import filterbank
from audiotag_jax.spectral.hires_channel import MIN_BINS, reassigned_energies, require_options
from audiotag_jax.spectral.scales import EDGES_HZ

# Clips are worked on a few at a time: their frames then stay in a CPU's cache, and memory does not grow with the batch.
_CLIPS_AT_ONCE = 4
NO_IMAGES = ("waveform",)  # in place of channels: the network takes the waveform itself
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
    # Options of the high-resolution channels, see `hires_channel`. The metadata keeps the names of datasets that were
    # prepared before the fields existed.
    smoothing_cells: float = dataclasses.field(default=0.0, metadata={"named": False})  # frames and bins
    per_hz: bool = dataclasses.field(default=False, metadata={"named": False})
    upper_q: float = dataclasses.field(default=0.0, metadata={"named": False})  # 0: the channel's own
    upper_from_hz: float = dataclasses.field(default=1000.0, metadata={"named": False})

    def __post_init__(self):
        if not isinstance(self.channels, tuple) or not self.channels:
            raise ValueError(f"channels must be a tuple of names, such as ('log_db',), not {self.channels!r}")
        for channel in self._own_channels:
            _require_channel(channel)
        reassigned = any(CHANNELS[name].energies.func is reassigned_energies for name in self._own_channels)
        bins = MIN_BINS if reassigned else 2
        for name, least in (("sample_rate_hz", 1), ("num_frames", 1), ("num_bins", bins), ("window_samples", 2)):
            _require_whole(name, getattr(self, name), least)
        _require_whole("fft_samples", self.fft_samples, self.window_samples)
        if not 0.0 < self.range_db <= 300.0:  # more than 300 dB would not fit in single precision
            raise ValueError(f"range_db must be above 0 and at most 300, not {self.range_db!r}")
        require_options(self)
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
        """Returns the shape [T, F, C] of the image of a clip of `num_samples`."""
        if self.published:
            return (self.published.num_frames(num_samples), self.published.num_bins, 1)
        return (self.num_frames, self.num_bins, len(self.channels))


@functools.partial(jax.jit, static_argnames="settings")
def spectrograms(waveforms: jax.Array, settings: SpectralSettings) -> jax.Array:
    """Computes images [B, T, F, C] in [0, 1], float32, of finite `waveforms` [B, N]; frequency ascends along F.

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
    """Returns the centre [F] of each of the channel's bins, in Hz, ascending."""
    if channel in PUBLISHED:
        return PUBLISHED[channel].frequencies_hz()
    _require_channel(channel)
    return EDGES_HZ[CHANNELS[channel].axis](settings.num_bins, settings.sample_rate_hz)[1:-1]


def times_s(settings: SpectralSettings, num_samples: int) -> np.ndarray:
    """Returns the middle [T] of each frame of a clip of `num_samples`, in seconds from its start."""
    if settings.published:
        return settings.published.times_s(num_samples)
    return stft.times_s(num_samples, num_frames=settings.num_frames, sample_rate_hz=settings.sample_rate_hz)


def magnitude(energies: jax.Array, settings: SpectralSettings) -> jax.Array:
    """Returns the square root of `energies` [..., T, F], divided by the clip's largest."""
    del settings
    return jnp.sqrt(_relative(energies))


def decibels(energies: jax.Array, settings: SpectralSettings) -> jax.Array:
    """Maps `energies` [..., T, F] to dB below the clip's largest, scaled: 0 at `range_db` below it and 1 at it.

    It is `librosa.power_to_db(energies, ref=np.max, top_db=range_db)`, moved into [0, 1].
    """
    floor = max(10.0 ** (-settings.range_db / 10.0), _TINY)
    levels_db = 10.0 * jnp.log10(jnp.maximum(_relative(energies), floor))
    return jnp.clip(1.0 + levels_db / settings.range_db, 0.0, 1.0)


def _images(waveforms, settings):
    """Maps waveforms [B, N] to images [B, T, F, C], all clips at once."""
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


def _relative(energies):
    largest = jnp.max(energies, axis=(-2, -1), keepdims=True)
    return energies / jnp.where(largest > _TINY, largest, 1.0)


def _bank(axis, settings):
    sizes = {name: getattr(settings, name) for name in ("num_bins", "sample_rate_hz", "fft_samples")}
    return filterbank(axis, **sizes)


def channel_version(channel: str) -> int:
    """Returns the version of a channel's numbers, a part of the names of prepared datasets."""
    return (PUBLISHED[channel] if channel in PUBLISHED else CHANNELS[channel]).version


def _require_channel(channel):
    if channel in PUBLISHED:
        raise ValueError(f"channel {channel} has sizes and a scale of its own: give it alone, as ({channel!r},)")
    if channel not in CHANNELS:
        raise ValueError(f"unknown spectrogram channel {channel!r}; choose from {', '.join([*CHANNELS, *PUBLISHED])}")


def _require_whole(name, value, least):
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number, {least} or more, not {value!r}")


class Channel(NamedTuple):
    """One kind of image: a key of `EDGES_HZ`, and two functions.

    `energies(waveforms [B, N], power, settings)` gives [B, T, F] >= 0, ascending; calling `power()` gives the clips'
    STFT power [B, T, 1 + fft / 2]. `amplitude_scale(energies, settings)` gives the image in [0, 1].
    """

    axis: str
    energies: functools.partial
    amplitude_scale: Callable
    version: int = 1  # part of the names of prepared datasets: raise it when the channel's numbers change


CHANNELS = {
    f"{axis}_{name}": Channel(axis, functools.partial(_band_energies, axis=axis), amplitude_scale)
    for axis in EDGES_HZ
    for name, amplitude_scale in (("linear", magnitude), ("db", decibels))
}
# These hold the energy of each bin, as published; a band of the others measures energy per Hz.
for _q in (1, 2, 4, 8):
    CHANNELS[f"hires_q{_q}"] = Channel("log", functools.partial(reassigned_energies, q=_q), decibels)


class PublishedFrontEnd(NamedTuple):
    """The images that a published network was trained on: their sizes and scale are its own, as no other channel's are.

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
