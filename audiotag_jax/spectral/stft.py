"""One power STFT whose frames tile the clip, whatever its length."""

import functools

import jax
import jax.numpy as jnp
import numpy as np


def hop_samples(num_samples: int, num_frames: int) -> int:
    """Returns the length of a frame's cell: the fewest whole samples that let `num_frames` cells cover the clip."""
    return -(-num_samples // num_frames)


def times_s(num_samples: int, *, num_frames: int, sample_rate_hz: int) -> np.ndarray:
    """Returns the middle [T] of each frame's cell, in seconds from the clip's start."""
    return (np.arange(num_frames) + 0.5) * hop_samples(num_samples, num_frames) / sample_rate_hz


def power_spectrogram(
    waveforms: jax.Array, *, num_frames: int, window_samples: int = 2048, fft_samples: int = 2048
) -> jax.Array:
    """Computes |STFT|^2 of `waveforms` [..., N], N >= 1: [..., T, 1 + fft_samples // 2], float32, frequency ascending.

    Frame k is centred on the middle sample of its cell, samples k * hop to (k + 1) * hop - 1; silence surrounds the
    clip. The window is a periodic Hann; `fft_samples`, at least `window_samples`, interpolates the spectrum.
    A clip longer than T * `window_samples` (20.8 s at 22,050 Hz) has gaps that no frame sees.
    """
    num_samples = waveforms.shape[-1]
    hop = hop_samples(num_samples, num_frames)
    first = (hop - 1) // 2 - window_samples // 2  # where the first frame starts; negative unless the hop is very long
    starts = first + hop * np.arange(num_frames)
    before = max(0, -first)
    after = max(0, int(starts[-1]) + window_samples - num_samples)
    silence = [(0, 0)] * (waveforms.ndim - 1) + [(before, after)]
    padded = jnp.pad(jnp.asarray(waveforms, jnp.float32), silence)
    # Slices copy runs of samples, which is quicker than indexing sample by sample.
    cut = functools.partial(jax.lax.dynamic_slice_in_dim, padded, slice_size=window_samples, axis=-1)
    frames = jax.vmap(cut, out_axes=-2)(before + starts)
    spectrum = jnp.fft.rfft(frames * _hann(window_samples), n=fft_samples)
    return jnp.square(spectrum.real) + jnp.square(spectrum.imag)


def _hann(window_samples: int) -> np.ndarray:
    # Periodic: its copies, shifted by a whole fraction of its length, add up to a constant; its peak is at length / 2.
    return np.square(np.sin(np.pi * np.arange(window_samples) / window_samples)).astype(np.float32)
