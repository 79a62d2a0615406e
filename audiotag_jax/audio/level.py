"""Levels relative to full scale, and the one definition of silence."""

import numpy as np

SILENCE_DBFS = -80.0  # 16-bit dither stays below it


def is_silent(samples: np.ndarray) -> bool:
    """Returns whether `samples` [n], n >= 1, stay within `SILENCE_DBFS` of full scale around their mean."""
    return bool(np.abs(samples - samples.mean(dtype=np.float64)).max() <= 10 ** (SILENCE_DBFS / 20))
