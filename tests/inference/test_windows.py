"""Where windows begin, and what counts as silence."""

import numpy as np
import pytest

from audiotag_jax.inference import windows


@pytest.mark.parametrize(
    ("num_samples", "starts"),
    [(1, [0]), (1000, [0]), (1009, [9]), (1010, [0, 10]), (1400, [0, 400]), (1409, [0, 409]), (1500, [0, 400, 500])],
)
def test_window_starts(num_samples, starts):
    assert windows.window_starts(num_samples, 1000, 400) == starts


@pytest.mark.parametrize(
    ("samples", "silent"),
    [([0.0] * 9, True), ([-0.7] * 9, True), ([3e-5, -3e-5], True), ([0.0] * 99 + [1e-3], False), ([0.5, 0.6], False)],
)
def test_is_silent(samples, silent):
    assert windows.is_silent(np.array(samples, np.float32)) == silent
