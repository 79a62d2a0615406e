"""Descriptors of a sound, measured on its waveform: no label and no network enters."""

from typing import NamedTuple

import numpy as np

_FFT_S, _TRIM_DB, _AMIN = 0.064, 60.0, 1e-12
_OCTAVES = 7  # below half the sampling rate


class Descriptors(NamedTuple):
    """How sustained and how tonal one sound is."""

    harmonic_share: float  # of the energy, by harmonic-percussive separation; 0: clicks, 1: steady sounds, tonal or not
    flatness_db: float  # spectral flatness within octaves; 0: even, noise -2.5, tones far below


def describe(waveform: np.ndarray, rate_hz: int) -> Descriptors:
    """Describes a waveform `[N]`; a silent one has harmonic share 0 and flatness 0 dB.

    Separation is Fitzgerald's median filtering (DAFx 2010) as librosa computes it, on frames of 64 ms. Flatness is the
    geometric over the arithmetic mean of a 128 ms frame's power within an octave, as in MPEG-7, so that the tilt of a
    spectrum does not count; octaves and frames are averaged in dB with their energies as weights. What is 60 dB below
    the loudest frame at either end is trimmed first: the padding of a short clip does not count.
    """
    import librosa

    size = 2 ** round(np.log2(_FFT_S * rate_hz))
    waveform = np.asarray(waveform, np.float32)
    if not np.abs(waveform).max(initial=0.0) > 0:
        return Descriptors(0.0, 0.0)
    waveform = waveform / np.abs(waveform).max()
    _, (start, end) = librosa.effects.trim(waveform, top_db=_TRIM_DB, frame_length=size, hop_length=size // 4)
    sound = np.pad(waveform[start:end], size)  # a first click has silence before it, from which to rise
    parts = librosa.decompose.hpss(np.abs(librosa.stft(sound, n_fft=size, hop_length=size // 4)))
    harmonic, percussive = (float(np.square(part, dtype=np.float64).sum()) for part in parts)
    power = np.square(np.abs(librosa.stft(sound, n_fft=2 * size, hop_length=size // 2)), dtype=np.float64)
    edges = [size >> octave for octave in range(_OCTAVES, -1, -1)]
    bands = [power[low:high] + _AMIN for low, high in zip(edges, edges[1:], strict=False)]
    flatness = np.array([10 * (np.log10(band).mean(0) - np.log10(band.mean(0))) for band in bands])
    weights = np.array([band.sum(0) for band in bands])
    return Descriptors(harmonic / (harmonic + percussive), float(np.average(flatness, weights=weights)))
