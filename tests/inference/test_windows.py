"""Where windows begin."""

import pytest

from audiotag_jax.inference import windows


@pytest.mark.parametrize(
    ("num_samples", "starts"),
    [(1, [0]), (1000, [0]), (1009, [9]), (1010, [0, 10]), (1400, [0, 400]), (1409, [0, 409]), (1500, [0, 400, 500])],
)
def test_window_starts(num_samples, starts):
    assert windows.window_starts(num_samples, 1000, 400) == starts
