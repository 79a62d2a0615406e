"""Triangular filterbanks that turn a power spectrum into bands on one of the three frequency axes.

Every band measures power *density* (power per Hz, as Slaney's mel bands do), not power: white noise is then flat on
each axis, so the axes differ in where they look and not in a built-in tilt. The weights of a linear or log band sum to
one, which makes that exact. Mel keeps librosa's normalization by area, which leaves 0.5 dB of ripple where a band spans
few FFT bins (224 bands, 2048 samples, 22,050 Hz). The constant between the two drops out of images, which are relative
to the clip's own maximum.

An FFT bin is 10.8 Hz wide at the usual sizes. Log bands below 400 Hz are closer together than that: they interpolate
between FFT bins, and resolve no more than those do.
"""

import functools

import librosa  # loads its parts when they are first used
import numpy as np

from audiotag_jax.spectral.scales import EDGES_HZ


@functools.lru_cache(maxsize=16)
def filterbank(axis: str, *, num_bins: int, sample_rate_hz: int, fft_samples: int) -> np.ndarray:
    """Returns weights [1 + fft_samples // 2, F], float64, read-only: `power @ filterbank(...)` is the bands, ascending.

    `axis` is "linear", "log" or "mel"; mel is librosa's filterbank, normalized by area as Slaney's.
    Raises ValueError for another axis, and for a mel band that no FFT bin falls in.
    """
    if axis not in EDGES_HZ:
        raise ValueError(f"unknown frequency axis {axis!r}; choose one of {', '.join(EDGES_HZ)}")
    edges_hz = EDGES_HZ[axis](num_bins, sample_rate_hz)
    spacing_hz = sample_rate_hz / fft_samples
    fft_hz = np.arange(1 + fft_samples // 2) * spacing_hz
    if axis == "mel":
        _require_filled(fft_hz, edges_hz, sample_rate_hz, fft_samples)
        weights = librosa.filters.mel(
            sr=sample_rate_hz, n_fft=fft_samples, n_mels=num_bins, htk=False, norm="slaney", dtype=np.float64
        ).T
    else:
        # A side of one FFT spacing makes a narrow triangle interpolate between two neighbouring FFT bins.
        weights = triangles(fft_hz, edges_hz, min_side_hz=spacing_hz)
        weights /= weights.sum(axis=0)
    weights.flags.writeable = False
    return weights


def triangles(frequencies_hz: np.ndarray, edges_hz: np.ndarray, min_side_hz: float = 0.0) -> np.ndarray:
    """Samples triangles of peak 1 at `frequencies_hz` [K]: weights [K, F] for `edges_hz` [F + 2].

    Triangle i rises from edge i to edge i + 1 and falls to edge i + 2; a side shorter than `min_side_hz` is widened.
    """
    centres_hz = edges_hz[1:-1]
    rise_hz = np.maximum(centres_hz - edges_hz[:-2], min_side_hz)
    fall_hz = np.maximum(edges_hz[2:] - centres_hz, min_side_hz)
    offsets_hz = frequencies_hz[:, None] - centres_hz
    return np.maximum(0.0, 1.0 - np.where(offsets_hz < 0.0, -offsets_hz / rise_hz, offsets_hz / fall_hz))


def _require_filled(fft_hz: np.ndarray, edges_hz: np.ndarray, sample_rate_hz: int, fft_samples: int) -> None:
    # Of a band from edge i to edge i + 2, both of weight 0: the first FFT bin above it, and the first at or beyond it.
    first, end = np.searchsorted(fft_hz, edges_hz[:-2], "right"), np.searchsorted(fft_hz, edges_hz[2:], "left")
    num_empty = int(np.sum(first >= end))
    if num_empty:
        # A triangle wider than the spacing of the FFT's bins cannot miss them all.
        enough = sample_rate_hz / np.min(edges_hz[2:] - edges_hz[:-2])
        raise ValueError(
            f"{num_empty} of {len(first)} mel bands are narrower than the bins of a {fft_samples}-sample FFT; "
            f"raise fft_samples to {1 << int(np.ceil(np.log2(enough)))} or lower num_bins"
        )
