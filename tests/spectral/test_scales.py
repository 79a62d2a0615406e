import numpy as np
import pytest

from audiotag_jax.spectral import scales


def test_linear_centres_run_from_zero_to_nyquist():
    edges_hz = scales.linear_edges_hz(224, 22050)
    np.testing.assert_allclose(edges_hz[1:-1], np.linspace(0.0, 11025.0, 224), rtol=1e-12)
    np.testing.assert_allclose(np.diff(edges_hz), 11025.0 / 223, rtol=1e-9)


def test_log_centres_are_the_grid_of_the_paper():
    noct, minf, maxf = 26.2, 1.4e-3, 0.5
    assert int(np.ceil(-noct * np.log2(minf / maxf) + 1)) == 224
    fractions = scales.log_edges_hz(224, 22050)[1:-1] / 22050
    exact_bins = -noct * np.log2(fractions / maxf) + 1
    np.testing.assert_allclose(exact_bins, np.arange(224, 0, -1), atol=1e-9)
    assert fractions[-1] == 0.5
    assert scales.bins_per_octave(224) == 26.2


@pytest.mark.parametrize("num_bins", [2, 64, 448])
def test_log_axis_spans_the_same_octaves_with_any_number_of_bins(num_bins):
    edges_hz = scales.log_edges_hz(num_bins, 22050)
    assert edges_hz.shape == (num_bins + 2,)
    reference_hz = scales.log_edges_hz(224, 22050)
    np.testing.assert_allclose(edges_hz[[1, -2]], reference_hz[[1, -2]], rtol=1e-12)
    np.testing.assert_allclose(np.diff(np.log2(edges_hz)), 1 / scales.bins_per_octave(num_bins), rtol=1e-9)


def test_mel_edges_are_evenly_spaced_on_slaneys_scale():
    """Slaney's Auditory Toolbox, 1998: 3 mels for 200 Hz up to 1 kHz, then 27 for each factor of 6.4."""
    edges_hz = scales.mel_edges_hz(224, 22050)
    assert edges_hz.shape == (226,) and edges_hz[0] == 0.0 and edges_hz[-1] == pytest.approx(11025.0, rel=1e-12)
    low, high = edges_hz[edges_hz <= 1000.0], edges_hz[edges_hz >= 1000.0]
    step = np.diff(low).mean() * 3 / 200  # in mels
    np.testing.assert_allclose(np.diff(low), step * 200 / 3, rtol=1e-9)
    np.testing.assert_allclose(high[1:] / high[:-1], 6.4 ** (step / 27), rtol=1e-9)
    assert step == pytest.approx((15 + 27 * np.log(11.025) / np.log(6.4)) / 225, rel=1e-12)


@pytest.mark.parametrize("num_bins", [2, 64, 223, 224, 225, 448, 1000])
def test_a_high_resolution_grid_has_as_many_bins(num_bins):
    minf = scales.lowest_frequency(num_bins)
    assert np.ceil(-scales.bins_per_octave(num_bins) * np.log2(minf / 0.5) + 1) == num_bins
    if num_bins == 224:
        assert minf == pytest.approx(1.4e-3, rel=1e-12)
