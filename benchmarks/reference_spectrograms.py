"""Reference spectrograms in NumPy, PyTorch and librosa, for `reassignment.py`."""

import math

import librosa
import numpy as np

from audiotag_jax.spectral import features
from audiotag_jax.spectral.filterbanks import filterbank

try:
    import torch
except ImportError:
    torch = None

RATE_HZ, HOP_SAMPLES = 22050, 197  # of a clip of 2 s in 224 frames


def numpy_loop(x, q, tdeci, over, noct, minf, maxf):
    """Returns energies [T, F], F descending, of `x` [N] in double precision by the published loop over frequencies."""
    num_samples = len(x)
    num_frames = math.ceil(num_samples / tdeci)
    num_bins = math.ceil(-noct * math.log2(minf / maxf) + 1)
    spectrum, frequencies = np.fft.fft(np.asarray(x, np.float64)), np.fft.fftfreq(num_samples)
    samples = np.arange(1, num_samples + 1)
    energies, hits = np.zeros(num_frames * num_bins), np.zeros(num_frames * num_bins, np.int64)
    for k in range(num_bins * over):
        f0 = minf * 2.0 ** (k / over / noct)
        sigma = f0 / (2.0 * np.pi * q)
        offsets = (frequencies - f0) / sigma
        windowed = np.exp(-0.5 * offsets**2) * spectrum
        xi, eta = np.fft.ifft(windowed), np.fft.ifft(-offsets * windowed)
        with np.errstate(divide="ignore", invalid="ignore"):  # 0 / 0 is NaN, which `kept` excludes
            m = eta / xi
        t = samples + m.imag / (2.0 * np.pi * sigma)
        f = f0 - m.real * sigma
        kept = (np.abs(m) < 0.5) & (f > minf) & (f < maxf) & (t >= 1) & (t < num_samples)
        # Halves are rounded up, and cells counted from 0.
        frames = np.floor(t[kept] / tdeci + 0.5 + 0.5).astype(np.int64) - 1
        bins = np.floor(-noct * np.log2(f[kept] / maxf) + 1 + 0.5).astype(np.int64) - 1
        cells = frames * num_bins + bins
        energies += np.bincount(cells, np.abs(xi[kept]) ** 2, minlength=len(energies))
        hits += np.bincount(cells, minlength=len(hits))
    energies[hits < np.sqrt(hits.max())] = 0.0
    return energies.reshape(num_frames, num_bins)


def torch_rows(x, q, tdeci, over, noct, minf, maxf, *, device, rows_at_once):
    """Computes the same with PyTorch in single precision, for `rows_at_once` centre frequencies at a time."""
    torch.set_flush_denormal(True)  # the windows' tails are denormal numbers, which are slow
    num_samples = len(x)
    num_frames = math.ceil(num_samples / tdeci)
    num_bins = math.ceil(-noct * math.log2(minf / maxf) + 1)
    spectrum = torch.fft.fft(torch.from_numpy(x).to(device))
    frequencies = torch.fft.fftfreq(num_samples, device=device)
    samples = torch.arange(1, num_samples + 1, device=device, dtype=torch.float32)
    energies, hits = (torch.zeros(num_frames * num_bins, device=device) for _ in range(2))  # hits stay below 2^24
    rows = torch.arange(num_bins * over, device=device, dtype=torch.float64)
    for f0 in (minf * 2.0 ** (rows / (over * noct))).float()[:, None].split(rows_at_once):
        sigma = f0 / (2.0 * math.pi * q)
        offsets = (frequencies - f0) / sigma
        windowed = torch.exp(-0.5 * offsets.square()) * spectrum
        xi, eta = torch.fft.ifft(windowed), torch.fft.ifft(-offsets * windowed)
        m = eta / xi
        t = samples + m.imag / (2.0 * math.pi * sigma)
        f = f0 - m.real * sigma
        kept = (m.abs() < 0.5) & (f > minf) & (f < maxf) & (t >= 1) & (t < num_samples)
        frames = torch.floor(t[kept] / tdeci + 0.5 + 0.5).long() - 1
        bins = torch.floor(-noct * torch.log2(f[kept] / maxf) + 1 + 0.5).long() - 1
        cells = frames * num_bins + bins
        energies.index_add_(0, cells, xi[kept].abs().square())
        hits += torch.bincount(cells, minlength=len(hits))
    energies[hits < hits.max().sqrt()] = 0.0
    return energies.reshape(num_frames, num_bins)


def librosa_loop(clips: np.ndarray, channel: str) -> list[np.ndarray]:
    axis = features.CHANNELS[channel].axis
    bank = filterbank(axis, num_bins=224, sample_rate_hz=RATE_HZ, fft_samples=2048).T.astype(np.float32)
    images = []
    for clip in clips:
        power = np.abs(librosa.stft(clip, n_fft=2048, hop_length=HOP_SAMPLES, window="hann")) ** 2
        images.append(librosa.power_to_db(bank @ power, ref=np.max, top_db=80.0))
    return images


def librosa_mel_loop(clips: np.ndarray) -> list[np.ndarray]:
    options = {"sr": RATE_HZ, "n_fft": 2048, "hop_length": HOP_SAMPLES, "n_mels": 224}
    return [librosa.power_to_db(librosa.feature.melspectrogram(y=c, **options), ref=np.max, top_db=80.0) for c in clips]
