import functools

import jax
import librosa
import numpy as np
import pytest

from audiotag_jax.spectral import stft

pytestmark = pytest.mark.optimized

HOPS = {1: 1, 224: 1, 225: 2, 777: 4, 30000: 134, 44100: 197, 110250: 493}


def noise(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(("num_samples", "hop"), HOPS.items())
def test_the_hop_is_the_fewest_samples_that_cover_the_clip(num_samples, hop):
    assert stft.hop_samples(num_samples, 224) == hop


@pytest.mark.parametrize("jitted", [True, False])
@pytest.mark.parametrize(("num_samples", "window", "fft"), [
    (44100, 2048, 2048), (30000, 1024, 2048), (777, 2048, 4096), (1, 2048, 2048), (110250, 400, 512),
])  # fmt: skip
def test_matches_librosa(num_samples, window, fft, jitted):
    waveforms = noise(2, num_samples)
    hop = HOPS[num_samples]
    transform = functools.partial(stft.power_spectrogram, num_frames=224, window_samples=window, fft_samples=fft)
    if jitted:
        power = jax.jit(transform)(waveforms)
    else:
        with jax.disable_jit():
            power = transform(waveforms)
    assert power.shape == (2, 224, 1 + fft // 2) and power.dtype == np.float32
    # librosa puts a short window in the middle of the FFT's samples; frame 0 is centred on sample (hop - 1) // 2.
    ahead = fft // 2 - (hop - 1) // 2
    padded = np.pad(waveforms, [(0, 0), (ahead, 224 * hop + fft)])
    spectrum = librosa.stft(padded, n_fft=fft, hop_length=hop, win_length=window, window="hann", center=False)
    expected = np.abs(np.swapaxes(spectrum, 1, 2)[:, :224])
    np.testing.assert_allclose(np.sqrt(power), expected, rtol=1e-4, atol=1e-6 * expected.max())


@pytest.mark.parametrize("num_samples", [44100, 110250, 30000, 777, 1])
def test_an_impulse_lands_in_the_frame_of_its_cell(num_samples):
    hop = HOPS[num_samples]
    last = hop - 2 if hop % 2 == 0 else hop - 1  # the last sample of an even cell is as far from the next cell's middle
    offsets = sorted({0, hop // 2, max(0, last)})
    samples = [cell * hop + offset for cell in (0, 1, 100, 190) for offset in offsets]
    samples = np.array([sample for sample in samples if sample < num_samples])
    impulses = np.zeros((len(samples), num_samples), np.float32)
    impulses[np.arange(len(samples)), samples] = 1.0
    energy = stft.power_spectrogram(impulses, num_frames=224).sum(axis=-1)
    np.testing.assert_array_equal(np.argmax(energy, axis=1), samples // hop)


def test_frames_further_apart_than_the_window_is_long():
    impulse = np.zeros((1, 3000), np.float32)
    middle = 5 * 300 + 149
    impulse[0, middle] = 1.0
    energy = stft.power_spectrogram(impulse, num_frames=10, window_samples=64, fft_samples=64).sum(axis=-1)[0]
    assert energy[5] == pytest.approx(33.0)  # the peak of the window is 1, in each of the 33 bins
    assert np.count_nonzero(energy) == 1


def test_times_are_the_middles_of_the_cells():
    times_s = stft.times_s(44100, num_frames=224, sample_rate_hz=22050)
    assert times_s.shape == (224,)
    np.testing.assert_allclose(times_s[:2], [98.5 / 22050, 295.5 / 22050])
    np.testing.assert_allclose(np.diff(times_s), 197 / 22050)
