"""Crops a waveform where it is loudest."""

import numpy as np


def crop_loudest(samples: np.ndarray, length_samples: int, window_samples: int, margin_samples: int = 0) -> np.ndarray:
    """Crops `samples [N]` to float32 `[length_samples]` centred on the loudest window of `window_samples`.

    The crop stays inside the clip; a clip shorter than the crop is centred in zeros. The window is at most the clip;
    of equally loud windows (within 1e-9) the first is used. Takes linear time in N (a running sum of squares).
    `margin_samples` more samples are returned on either side, zeros outside the clip. Raises ValueError on bad shapes.
    """
    if samples.ndim != 1 or samples.size == 0:
        raise ValueError(f"expected samples [N] with N >= 1, got shape {samples.shape}")
    if length_samples < 1 or window_samples < 1:
        raise ValueError(f"length_samples={length_samples} and window_samples={window_samples} must be at least 1")
    spare = samples.size - length_samples
    if spare <= 0:
        start = -(-spare // 2)
    else:
        window = min(window_samples, samples.size)
        running = np.zeros(samples.size + 1)
        np.cumsum(np.square(samples, dtype=np.float64), out=running[1:])
        energies = running[window:] - running[:-window]
        loudest = int(np.argmax(energies >= energies.max() * (1 - 1e-9)))
        start = min(max(loudest + window // 2 - length_samples // 2, 0), spare)
    first, last = start - margin_samples, start + length_samples + margin_samples
    crop = np.zeros(last - first, np.float32)
    inside = samples[max(first, 0) : min(last, samples.size)]
    crop[max(-first, 0) : max(-first, 0) + inside.size] = inside
    return crop
