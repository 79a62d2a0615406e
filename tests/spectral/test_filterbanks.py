import re

import numpy as np
import pytest

from audiotag_jax.spectral import scales
from audiotag_jax.spectral.filterbanks import filterbank, triangles

USUAL = {"num_bins": 224, "sample_rate_hz": 22050, "fft_samples": 2048}
FFT_HZ = np.fft.rfftfreq(2048, 1 / 22050)
LINEAR_HZ = np.linspace(0.0, 11025.0, 224)
LOG_HZ = 11025.0 * 2.0 ** (-np.arange(223, -1, -1) / 26.2)


@pytest.mark.parametrize("sizes", [(22050, 2048, 224), (22050, 2048, 40), (44100, 8192, 128), (16000, 1023, 30)])
def test_mel_bands_are_triangles_of_equal_area(sizes):
    sample_rate_hz, fft_samples, num_bins = sizes
    weights = filterbank("mel", num_bins=num_bins, sample_rate_hz=sample_rate_hz, fft_samples=fft_samples)
    edges_hz = scales.mel_edges_hz(num_bins, sample_rate_hz)
    fft_hz = np.fft.rfftfreq(fft_samples, 1 / sample_rate_hz)
    for band, corners_hz in enumerate(np.lib.stride_tricks.sliding_window_view(edges_hz, 3)):
        peak = 2.0 / (corners_hz[2] - corners_hz[0])
        np.testing.assert_allclose(weights[:, band], np.interp(fft_hz, corners_hz, [0.0, peak, 0.0]), atol=1e-9 * peak)


@pytest.mark.parametrize(("axis", "centres_hz", "below_hz", "above_hz"), [
    ("linear", LINEAR_HZ, LINEAR_HZ - 11025 / 223, LINEAR_HZ + 11025 / 223),
    ("log", LOG_HZ, LOG_HZ * 2 ** (-1 / 26.2), LOG_HZ * 2 ** (1 / 26.2)),
])  # fmt: skip
def test_linear_and_log_bands_are_triangles_drawn_through_three_points(axis, centres_hz, below_hz, above_hz):
    spacing_hz = 22050 / 2048
    weights = filterbank(axis, **USUAL)
    for band, centre_hz in enumerate(centres_hz):
        corners_hz = [
            min(below_hz[band], centre_hz - spacing_hz),
            centre_hz,
            max(above_hz[band], centre_hz + spacing_hz),
        ]
        expected = np.interp(FFT_HZ, corners_hz, [0.0, 1.0, 0.0])
        np.testing.assert_allclose(weights[:, band], expected / expected.sum(), atol=1e-9)


def test_narrow_log_bands_interpolate_between_fft_bins():
    narrow = LOG_HZ * (2 ** (1 / 26.2) - 1) < 22050 / 2048
    assert 50 < narrow.sum() < 150
    weights = filterbank("log", **USUAL)[:, narrow]
    assert (np.count_nonzero(weights, axis=0) <= 2).all()
    # Interpolation between two points returns a straight line to itself.
    np.testing.assert_allclose((3.0 + 2.0 * FFT_HZ) @ weights, 3.0 + 2.0 * LOG_HZ[narrow], rtol=1e-9)


def test_more_linear_bands_than_fft_bins_are_never_empty():
    weights = filterbank("linear", num_bins=500, sample_rate_hz=22050, fft_samples=256)
    np.testing.assert_allclose(weights.sum(axis=0), 1.0, rtol=1e-12)


@pytest.mark.parametrize(("axis", "ripple_db"), [("linear", 1e-9), ("log", 1e-9), ("mel", 0.5)])
def test_a_flat_spectrum_gives_flat_bands(axis, ripple_db):
    bands = np.ones(1025) @ filterbank(axis, **USUAL)
    assert np.abs(10 * np.log10(bands / bands.mean())).max() < ripple_db


def test_an_empty_mel_band_names_a_sufficient_fft_samples():
    triangles_hz = np.lib.stride_tricks.sliding_window_view(scales.mel_edges_hz(224, 22050), 3)
    fft_hz = np.fft.rfftfreq(512, 1 / 22050)
    num_empty = sum(not np.interp(fft_hz, corners_hz, [0.0, 1.0, 0.0]).any() for corners_hz in triangles_hz)
    with pytest.raises(ValueError, match=f"^{num_empty} of 224 mel bands are narrower.*raise fft_samples to") as caught:
        filterbank("mel", num_bins=224, sample_rate_hz=22050, fft_samples=512)
    enough = int(re.search(r"fft_samples to (\d+)", str(caught.value)).group(1))
    assert filterbank("mel", num_bins=224, sample_rate_hz=22050, fft_samples=enough).any(axis=0).all()


def test_an_unknown_axis_lists_the_choices():
    with pytest.raises(ValueError, match="'bark'.*linear, log, mel"):
        filterbank("bark", **USUAL)


def test_the_shared_weights_cannot_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        filterbank("log", **USUAL)[0, 0] = 1.0


def test_triangles_widen_only_the_sides_that_are_too_short():
    weights = triangles(np.arange(0.0, 10.0), np.array([3.0, 4.0, 8.0]), min_side_hz=2.0)
    np.testing.assert_allclose(weights[:, 0], [0, 0, 0, 0.5, 1, 0.75, 0.5, 0.25, 0, 0])
