"""Cropping at the loudest window, against brute force."""

import math

import numpy as np
import pytest

from audiotag_jax.audio.crop import crop_loudest


def brute_force_crop(samples, length, window):
    spare = len(samples) - length
    if spare <= 0:
        return np.pad(samples, (-spare // 2, -spare - (-spare // 2)))
    window = min(window, len(samples))
    energies = [math.fsum(float(x) ** 2 for x in samples[n : n + window]) for n in range(len(samples) - window + 1)]
    loudest = next(n for n, energy in enumerate(energies) if energy >= max(energies) * (1 - 1e-9))
    center = loudest + window // 2
    start = min(max(center - length // 2, 0), spare)
    return samples[start : start + length]


def test_crop_agrees_with_brute_force():
    rng = np.random.default_rng(0)
    for _ in range(1500):
        num_samples, length, window = (int(2 ** rng.uniform(0, 7)) for _ in range(3))
        samples = (rng.normal(size=num_samples) * 10 ** rng.uniform(-4, 4, num_samples)).astype(np.float32)
        crop = crop_loudest(samples, length, window)
        assert crop.dtype == np.float32
        np.testing.assert_array_equal(crop, brute_force_crop(samples, length, window))


def test_crop_of_short_clips_agrees_with_brute_force():
    for num_samples in range(1, 60):
        samples = np.arange(1, num_samples + 1, dtype=np.float32)
        crop = crop_loudest(samples, 30, 5)
        np.testing.assert_array_equal(crop, brute_force_crop(samples, 30, 5))
        assert np.count_nonzero(crop) == min(num_samples, 30)


def test_crop_takes_the_first_of_equally_loud_windows():
    ramp = np.where(np.arange(100000) % 2 == 0, 0.1, -0.1).astype(np.float32)
    ramp[50000:] *= -1  # equal loudness everywhere, up to rounding of the running sum; signs differ
    np.testing.assert_array_equal(crop_loudest(ramp, 60000, 1000), ramp[:60000])
    two = np.zeros(1000, np.float32)
    two[[300, 700]] = 1.0, -1.0
    assert crop_loudest(two, 100, 3).sum() == 1.0
    np.testing.assert_array_equal(crop_loudest(np.zeros(50, np.float32), 20, 5), np.zeros(20))


def test_crop_is_accurate_after_a_long_loud_part():
    samples = np.zeros(200000, np.float32)
    samples[:1000] = 3e4  # a large running sum before the loudest window
    samples[150000:150010] = 2e6
    crop = crop_loudest(samples, 100, 10)
    np.testing.assert_array_equal(np.nonzero(crop)[0], np.arange(45, 55))


def test_crop_raises_on_bad_shapes_and_lengths():
    for samples, length, window in (
        (np.zeros(0), 5, 5),
        (np.zeros((5, 2)), 5, 5),
        (np.ones(5), 0, 5),
        (np.ones(5), 5, 0),
    ):
        with pytest.raises(ValueError, match="samples"):
            crop_loudest(samples, length, window)
