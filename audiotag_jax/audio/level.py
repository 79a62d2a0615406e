"""Levels relative to full scale, the one definition of silence, and channels that cancel each other."""

import math

import numpy as np

SILENCE_DBFS = -80.0  # 16-bit dither stays below it
CANCELLED_DB = -20.0  # of a mono mix, relative to what the mix of unrelated channels would have
_SILENT = 10 ** (SILENCE_DBFS / 20)


def is_silent(samples: np.ndarray) -> bool:
    """Returns whether `samples` [n], n >= 1, stay within `SILENCE_DBFS` of full scale around their mean."""
    level = Level()
    level.add(samples)
    return level.is_silent


class Level:
    """The extent of samples that come in pieces."""

    def __init__(self) -> None:
        self.minimum, self.maximum, self._sum, self.num_samples = math.inf, -math.inf, 0.0, 0

    def add(self, samples: np.ndarray) -> None:
        """Adds `samples` [n], n >= 1."""
        self.minimum, self.maximum = min(self.minimum, float(samples.min())), max(self.maximum, float(samples.max()))
        self._sum += float(samples.sum(dtype=np.float64))
        self.num_samples += len(samples)

    @property
    def is_silent(self) -> bool:
        """As `audiotag_jax.audio.level.is_silent` of all samples together."""
        mean = self._sum / self.num_samples
        return max(self.maximum - mean, mean - self.minimum) <= _SILENT

    @property
    def peak(self) -> float:
        return max(self.maximum, -self.minimum)


class Mix:
    """Mixes channels to mono, their mean, block by block, and compares the power of the mix with theirs."""

    def __init__(self) -> None:
        self._num_frames, self._mixed, self._channels, self._unrelated = 0, 0.0, 0.0, 0.0  # energies

    def add(self, samples: np.ndarray) -> np.ndarray:
        """Returns the mono mix `[frames]` of `samples [frames, channels]`."""
        num_frames, num_channels = samples.shape
        with np.errstate(over="ignore", invalid="ignore"):
            mono = samples.mean(axis=1)
            if num_channels > 1:
                channels = samples.var(axis=0, dtype=np.float64).mean() * num_frames
                self._num_frames += num_frames
                self._mixed += mono.var(dtype=np.float64) * num_frames
                self._channels += channels
                self._unrelated += channels / num_channels
        return mono

    @property
    def note(self) -> str:
        """What is lost where the channels cancel nearly all of a sound that is not silent; else empty."""
        is_audible = self._channels > self._num_frames * _SILENT**2 / 2  # the power of a sine at that level
        if not is_audible or self._mixed > self._unrelated * 10 ** (CANCELLED_DB / 10):
            return ""
        left = self._mixed / self._channels
        loss = f"the mono mix is {-10 * math.log10(left):.0f} dB weaker" if left > 1e-12 else "nothing is left"
        return f"channels cancel: {loss}"
