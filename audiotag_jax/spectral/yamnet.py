"""The front end of YAMNet, a network that was trained on AudioSet: 64 mel bands of 125 to 7,500 Hz, every 10 ms.

The network expects log(mel + 0.001) in patches of 96 frames, one every 48. Its published description and code are
https://github.com/tensorflow/models/tree/master/research/audioset/yamnet. Unlike in other images the level of a clip
is kept: the network can tell loud from soft.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from audiotag_jax.spectral.filterbanks import triangles

SAMPLE_RATE_HZ = 16000
WINDOW_SAMPLES, HOP_SAMPLES, FFT_SAMPLES = 400, 160, 512
NUM_BANDS, LOWEST_HZ, HIGHEST_HZ = 64, 125.0, 7500.0
OFFSET = 1e-3  # added to magnitudes before the logarithm
PATCH_FRAMES, PATCH_HOP_FRAMES = 96, 48
# An image is log(1 + mel / OFFSET) / LOG_RANGE: 0 is digital silence, as in all images, and a sound within full scale
# stays below 1 (a window's magnitudes are at most 200, and the weights of the widest band add up to 9).
LOG_RANGE = 16.0
RANGE_DB = 20.0 / math.log(10.0) * LOG_RANGE  # from 0 to 1, for sounds well above OFFSET


def images(waveforms: jax.Array) -> jax.Array:
    """Computes images [B, T, 64] float32 in [0, 1] of `waveforms` [B, N] at 16,000 Hz; T is that of `num_frames`.

    `log_mel` converts them to what the network was trained on.
    """
    frames = num_frames(waveforms.shape[-1])
    silence = (frames - 1) * HOP_SAMPLES + WINDOW_SAMPLES - waveforms.shape[-1]
    padded = jnp.pad(jnp.asarray(waveforms, jnp.float32), ((0, 0), (0, silence)))
    cut = functools.partial(jax.lax.dynamic_slice_in_dim, padded, slice_size=WINDOW_SAMPLES, axis=-1)
    windows = jax.vmap(cut, out_axes=-2)(HOP_SAMPLES * np.arange(frames))
    magnitudes = jnp.abs(jnp.fft.rfft(windows * _hann(), n=FFT_SAMPLES))
    mel = jnp.matmul(magnitudes, mel_weights(), precision=jax.lax.Precision.HIGHEST)
    return jnp.log1p(mel / OFFSET) / LOG_RANGE


def log_mel(images: jax.Array) -> jax.Array:
    """Converts images in [0, 1] to log(mel + 0.001)."""
    return images * LOG_RANGE + math.log(OFFSET)


def num_frames(num_samples: int) -> int:
    """Counts the frames of the patches that cover `num_samples`, at least one; silence follows the clip in the last."""
    patch_samples = (PATCH_FRAMES - 1) * HOP_SAMPLES + WINDOW_SAMPLES
    more_patches = max(0, -(-(num_samples - patch_samples) // (PATCH_HOP_FRAMES * HOP_SAMPLES)))
    return PATCH_FRAMES + PATCH_HOP_FRAMES * more_patches


def times_s(num_samples: int) -> np.ndarray:
    """Returns the middle [T] of each frame, in seconds from the clip's start."""
    return (np.arange(num_frames(num_samples)) * HOP_SAMPLES + WINDOW_SAMPLES / 2) / SAMPLE_RATE_HZ


def frequencies_hz() -> np.ndarray:
    """Returns the centre [64] of each band, in Hz, ascending."""
    return _edges_hz()[1:-1]


@functools.cache
def mel_weights() -> np.ndarray:
    """Returns [257, 64] float32: triangles of height 1, straight in mel (TensorFlow's), not in Hz (librosa's)."""
    fft_hz = np.arange(1 + FFT_SAMPLES // 2) * (SAMPLE_RATE_HZ / FFT_SAMPLES)
    weights = triangles(_mel(fft_hz), _mel(_edges_hz())).astype(np.float32)
    weights.flags.writeable = False
    return weights


def _edges_hz() -> np.ndarray:
    edges = np.linspace(_mel(LOWEST_HZ), _mel(HIGHEST_HZ), NUM_BANDS + 2)
    return 700.0 * np.expm1(edges / 1127.0)


def _mel(hz):
    return 1127.0 * np.log1p(np.asarray(hz) / 700.0)  # HTK's


def _hann() -> np.ndarray:
    return np.square(np.sin(np.pi * np.arange(WINDOW_SAMPLES) / WINDOW_SAMPLES)).astype(np.float32)  # periodic
