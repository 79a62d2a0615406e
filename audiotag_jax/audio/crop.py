"""Crops a waveform where it is loudest; also one that comes in pieces, since recordings may be hours long."""

from collections.abc import Iterable

import numpy as np

_TIE = 1 - 1e-9  # of windows that are equally loud up to rounding, the first is used

_CHUNK_SAMPLES = 1 << 16


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
    loudest = LoudestWindow(min(window_samples, samples.size))
    if samples.size > length_samples:
        loudest.add(samples)
    start = loudest.crop_start(length_samples, samples.size)
    return cut([samples], start - margin_samples, start + length_samples + margin_samples)


def cut(pieces: Iterable[np.ndarray], first: int, last: int) -> np.ndarray:
    """Returns samples `first` to `last` of consecutive pieces, as float32; zeros where there are none."""
    crop, position = np.zeros(last - first, np.float32), 0
    for piece in pieces:
        begin, end = max(first, position), min(last, position + len(piece))
        if begin < end:
            crop[begin - first : end - first] = piece[begin - position : end - position]
        position += len(piece)
        if position >= last:
            break
    return crop


class LoudestWindow:
    """Finds the loudest window of `window_samples` in samples that come in pieces, in memory of some windows.

    The result does not depend on how the samples are divided.
    """

    def __init__(self, window_samples: int):
        self._window = window_samples
        self._sums = np.zeros(1)  # running sums of squares: the last `window_samples` of them
        self._first = 0  # position of the first of them
        self._loudest = 0.0
        self._candidates: list[tuple[float, int]] = []  # energies and positions, both rising; nearly as loud as any

    def add(self, samples: np.ndarray) -> None:
        """Adds the next samples."""
        for start in range(0, len(samples), _CHUNK_SAMPLES):
            self._add(samples[start : start + _CHUNK_SAMPLES])

    def _add(self, samples: np.ndarray) -> None:
        squares = np.square(samples, dtype=np.float64)
        new = np.cumsum(np.concatenate([self._sums[-1:], squares]))[1:]  # one addition after the other, as in one piece
        sums = np.concatenate([self._sums, new])
        energies = sums[self._window :] - sums[: -self._window]
        if energies.size:
            self._update(energies)
            self._first += energies.size
        self._sums = sums[-self._window :]

    def _update(self, energies: np.ndarray) -> None:
        self._loudest = max(self._loudest, float(energies.max()))
        least = self._loudest * _TIE
        self._candidates = [candidate for candidate in self._candidates if candidate[0] >= least]
        (near,) = np.nonzero(energies >= least)
        # Only a window louder than all before it can become the first of the loudest.
        before = self._candidates[-1][0] if self._candidates else -1.0
        highest = np.maximum.accumulate(np.concatenate([[before], energies[near]]))
        rises = near[highest[1:] > highest[:-1]]
        self._candidates += [(float(energies[n]), self._first + int(n)) for n in rises]

    def crop_start(self, length_samples: int, num_samples: int) -> int:
        """Returns where a crop of `length_samples` begins that is centred on the window, inside of `num_samples`.

        It is negative if there are fewer samples: they are centred in the crop.
        """
        spare = num_samples - length_samples
        if spare <= 0:
            return -(-spare // 2)
        centre = self._candidates[0][1] + self._window // 2
        return min(max(centre - length_samples // 2, 0), spare)
