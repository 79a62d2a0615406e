"""The definition of silence."""

import numpy as np
import pytest

from audiotag_jax.audio.level import is_silent


@pytest.mark.parametrize(
    ("samples", "silent"),
    [([0.0] * 9, True), ([-0.7] * 9, True), ([3e-5, -3e-5], True), ([0.0] * 99 + [1e-3], False), ([0.5, 0.6], False)],
)
def test_is_silent(samples, silent):
    assert is_silent(np.array(samples, np.float32)) == silent
