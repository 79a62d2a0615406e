"""The high-resolution channels: reassigned energies on the bins of the log axis, and the options that change them."""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from audiotag_jax.spectral import stft
from audiotag_jax.spectral.arguments import MAX_STRIDE
from audiotag_jax.spectral.reassignment import high_resolution_spectrograms
from audiotag_jax.spectral.scales import MAX_FREQUENCY, bins_per_octave, log_edges_hz, lowest_frequency

if TYPE_CHECKING:
    from audiotag_jax.spectral.features import SpectralSettings

_ROWS_A_BIN = 10  # of a high-resolution spectrogram
MAX_Q = 64.0
MIN_BINS = 3  # fewer have windows that are too wide, see `lattice`


def reassigned_energies(waveforms: jax.Array, power, settings: "SpectralSettings", *, q: float) -> jax.Array:
    """Returns energies [B, T, F] of `waveforms` [B, N], frequency ascending; `power` is not used.

    Above `upper_from_hz` they are those of `upper_q`, if it is set, scaled to the energy that noise and tones have with
    `q`. `per_hz` divides each by the width of its bin, and `smoothing_cells` filters them last.
    """
    del power
    energies = _of_one_q(waveforms, settings, q)
    edges_hz = log_edges_hz(settings.num_bins, settings.sample_rate_hz)
    if settings.upper_q:
        upper = _of_one_q(waveforms, settings, settings.upper_q) * (settings.upper_q / q)
        energies = jnp.where(edges_hz[1:-1] >= settings.upper_from_hz, upper, energies)
    if settings.per_hz:
        widths = edges_hz[2:] - edges_hz[:-2]
        energies = energies * (widths[0] / widths).astype(np.float32)
    if settings.smoothing_cells:
        frames, bins = (_gaussian(size, settings.smoothing_cells) for size in energies.shape[1:])
        energies = jnp.einsum("ts,bsf,fg->btg", frames, energies, bins, precision=jax.lax.Precision.HIGHEST)
    return energies


def require_options(settings: "SpectralSettings") -> None:
    """Raises ValueError for options of these channels that cannot work."""
    limits = {"smoothing_cells": (0.1, 20.0), "upper_q": (0.1, MAX_Q), "stride": (1.0, MAX_STRIDE)}
    for name, (low, high) in limits.items():
        value, off = getattr(settings, name), name != "stride"
        if not _is_number(value) or not (low <= value <= high or (off and value == 0)):
            raise ValueError(f"{name} must be {'0 or ' if off else ''}from {low:g} to {high:g}, not {value!r}")
    if not _is_number(settings.upper_from_hz) or not 0 <= settings.upper_from_hz < np.inf:
        raise ValueError(f"upper_from_hz must be 0 or more, not {settings.upper_from_hz!r}")
    if not isinstance(settings.per_hz, bool):
        raise ValueError(f"per_hz must be True or False, not {settings.per_hz!r}")


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _of_one_q(waveforms, settings, q):
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
    return jnp.pad(descending[:, :, ::-1], ((0, 0), (0, missing), (0, 0)))


def _gaussian(size, sigma):
    """Returns the matrix [size, size] of a Gaussian filter along one axis, zero beyond its ends; symmetric."""
    positions = np.arange(size)
    distances = np.abs(positions[:, None] - positions)
    weights = np.where(distances <= int(4 * sigma + 0.5), np.exp(-0.5 * (distances / sigma) ** 2), 0.0)
    offsets = np.arange(-int(4 * sigma + 0.5), int(4 * sigma + 0.5) + 1)
    return (weights / np.exp(-0.5 * (offsets / sigma) ** 2).sum()).astype(np.float32)
