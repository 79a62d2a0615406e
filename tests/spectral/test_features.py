import jax
import librosa
import numpy as np
import pytest
import scipy.ndimage

from audiotag_jax.spectral import features, hires_channel, scales
from audiotag_jax.spectral.features import SpectralSettings, frequencies_hz, spectrograms, times_s
from audiotag_jax.spectral.filterbanks import filterbank
from audiotag_jax.spectral.reassignment import high_resolution_spectrogram

pytestmark = pytest.mark.optimized

STANDARD = ("linear_linear", "linear_db", "log_linear", "log_db", "mel_linear", "mel_db")
ALL = SpectralSettings(STANDARD)
RATE_HZ = 22050


def noise(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def sines(hz, num_samples=44100):
    return np.sin(2 * np.pi * np.asarray(hz)[:, None] * np.arange(num_samples) / RATE_HZ).astype(np.float32)


def loud_and_faint():
    """A clip that fills the whole dB range: a decaying tone, faint noise under it, then silence."""
    seconds = np.arange(44100) / RATE_HZ
    clip = np.exp(-6 * seconds) * np.sin(2 * np.pi * 700 * seconds) + 1e-4 * noise(44100)
    return np.where(seconds < 1.8, clip, 0.0).astype(np.float32)


def librosa_images(clip):
    """The six channels by way of librosa, [T, F, 6]; the bands of linear and log are tested with the filterbanks."""
    padded = np.pad(clip / np.abs(clip).max(), (1024 - 98, 4096))
    power = np.abs(librosa.stft(padded, n_fft=2048, hop_length=197, center=False)[:, :224]) ** 2
    images = []
    for axis in ("linear", "log", "mel"):
        if axis == "mel":
            energy = librosa.feature.melspectrogram(S=power, sr=RATE_HZ, n_mels=224)
        else:
            energy = filterbank(axis, num_bins=224, sample_rate_hz=RATE_HZ, fft_samples=2048).T @ power
        images.append(np.sqrt(energy / energy.max()))
        images.append(librosa.power_to_db(energy, ref=np.max, amin=1e-12, top_db=80.0) / 80.0 + 1.0)
    return np.stack(images, axis=-1).transpose(1, 0, 2)


@pytest.mark.parametrize("jitted", [True, False])
def test_all_channels_match_librosa(jitted):
    clips = np.stack([loud_and_faint(), noise(44100)])
    with jax.disable_jit(not jitted):
        images = np.asarray(spectrograms(clips, ALL))
    assert images.dtype == np.float32 and images.shape == (2, 224, 224, 6)
    for image, clip in zip(images, clips, strict=True):
        np.testing.assert_allclose(image, librosa_images(clip), rtol=1e-4, atol=1e-5)
    decibels = images[0, ..., 1::2]
    assert decibels.min() == 0.0 and decibels.max() == 1.0 and (decibels == 0.0).mean() > 0.05


@pytest.mark.parametrize("axis", ["linear", "log", "mel"])
def test_a_sine_lands_in_its_bin(axis):
    channel = f"{axis}_db"
    settings = SpectralSettings((channel,))
    bins = np.array([12, 40, 90, 150, 200, 220]) if axis != "log" else np.array([110, 125, 150, 180, 200, 220])
    hz = frequencies_hz(channel, settings)[bins]
    images = spectrograms(sines(hz), settings)[..., 0]
    np.testing.assert_array_equal(np.argmax(images[:, 112], axis=-1), bins)


def test_a_low_sine_lands_in_its_bin_of_the_log_axis():
    centres_hz = frequencies_hz("log_db", ALL)
    fft_hz = RATE_HZ / 2048 * np.array([4, 7, 13, 25])  # 43 to 269 Hz: what a 2048-sample FFT can tell apart
    images = spectrograms(sines(fft_hz), SpectralSettings(("log_db",)))[..., 0]
    nearest = np.abs(np.log(centres_hz / fft_hz[:, None])).argmin(axis=1)
    np.testing.assert_array_equal(np.argmax(images[:, 112], axis=-1), nearest)
    # A longer FFT of the same window places any other tone as well as the grid can.
    bins = np.array([20, 35, 50, 80])  # 51 to 251 Hz
    images = spectrograms(sines(centres_hz[bins]), SpectralSettings(("log_db",), fft_samples=16384))[..., 0]
    assert np.abs(np.argmax(images[:, 112], axis=-1) - bins).max() <= 1


@pytest.mark.parametrize("num_samples", [44100, 110250, 30000])
def test_an_impulse_lands_in_its_frame(num_samples):
    hop = -(-num_samples // 224)
    samples = np.array([0, hop // 2, 77 * hop + 1, 150 * hop + hop // 2, num_samples - 2])
    clips = np.zeros((5, num_samples), np.float32)
    clips[np.arange(5), samples] = 1.0
    images = spectrograms(clips, SpectralSettings(("log_linear", "mel_db")))
    for channel in range(2):
        np.testing.assert_array_equal(np.argmax(images[..., 112, channel], axis=1), samples // hop)


@pytest.mark.parametrize("num_samples", [1, 2, 223, 225, 777, 30000, 44100, 500_000])
def test_any_length_gives_the_same_shape(num_samples):
    images = np.asarray(spectrograms(noise(2, num_samples), SpectralSettings(("linear_db", "log_linear"))))
    assert images.shape == (2, 224, 224, 2)
    assert images.min() >= 0.0
    np.testing.assert_array_equal(images.max(axis=(1, 2)), 1.0)


@pytest.mark.parametrize("amplitude", [0.0, 1e-45, 1e-38, 2e-38])
def test_silence_is_zeros_and_makes_no_nan(amplitude):
    clips = np.full((3, 5000), amplitude, np.float32)
    clips[0] = 0.0
    with jax.debug_nans(True), jax.debug_infs(True):
        images = np.asarray(spectrograms(clips, ALL))
    assert not images[0].any()
    assert np.isfinite(images).all()
    # Nothing can be divided by the smallest numbers of single precision: they count as silence.
    assert images[1:].any() == (amplitude > np.finfo(np.float32).tiny)


def test_the_level_of_a_clip_drops_out():
    clip = noise(44100) * np.linspace(0, 1, 44100, dtype=np.float32)
    images = np.asarray(spectrograms(np.stack([clip, 1e-6 * clip, 1e6 * clip, 2.0**-20 * clip]), ALL))
    np.testing.assert_allclose(images[1:3], images[[0, 0]], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(images[3], images[0])


@pytest.mark.parametrize(("axis", "within_db"), [("linear", 0.6), ("log", 0.6), ("mel", 1.0)])
def test_white_noise_is_flat(axis, within_db):
    images = np.asarray(spectrograms(noise(64, 44100), SpectralSettings((f"{axis}_linear",))), np.float64)[..., 0]
    energy = np.mean(images**2 / np.mean(images**2, axis=(1, 2), keepdims=True), axis=(0, 1))
    assert np.abs(10 * np.log10(energy)).max() < within_db


def test_a_clip_does_not_depend_on_its_batch():
    clips = noise(11, 8000)
    images = np.asarray(spectrograms(clips, ALL))
    np.testing.assert_allclose(spectrograms(clips[7:8], ALL), images[7:8], atol=1e-6)
    np.testing.assert_allclose(spectrograms(clips[3:9], ALL), images[3:9], atol=1e-6)
    for index, channel in enumerate(STANDARD):
        alone = spectrograms(clips[:2], SpectralSettings((channel,)))
        np.testing.assert_allclose(alone[..., 0], images[:2, ..., index], atol=1e-6)


def test_all_channels_share_one_stft(monkeypatch):
    calls = []
    power_spectrogram = features.stft.power_spectrogram
    monkeypatch.setattr(
        features.stft, "power_spectrogram", lambda *a, **k: calls.append(1) or power_spectrogram(*a, **k)
    )
    jax.eval_shape(lambda clips: spectrograms(clips, ALL), jax.ShapeDtypeStruct((2, 1001), np.float32))
    assert len(calls) == 1


def test_other_sizes():
    settings = SpectralSettings(
        ("mel_db", "log_db"), 16000, num_frames=50, num_bins=40, window_samples=500, fft_samples=512
    )
    images = np.asarray(spectrograms(sines([1000.0], 16000), settings))
    assert images.shape == (1, 50, 40, 2)
    for index, channel in enumerate(settings.channels):
        centres_hz = frequencies_hz(channel, settings)
        assert centres_hz.shape == (40,) and (np.diff(centres_hz) > 0).all()
        tone_hz = 1000.0 * 16000 / RATE_HZ
        assert np.argmax(images[0, 25, :, index]) == np.abs(np.log(centres_hz / tone_hz)).argmin()


def test_axes_for_plots():
    assert frequencies_hz("linear_db", ALL)[[0, -1]].tolist() == [0.0, 11025.0]
    assert frequencies_hz("log_db", ALL)[-1] == 11025.0
    np.testing.assert_allclose(frequencies_hz("mel_db", ALL), librosa.mel_frequencies(226, fmin=0, fmax=11025)[1:-1])
    np.testing.assert_allclose(times_s(ALL, 44100)[[0, -1]], np.array([98.5, 223 * 197 + 98.5]) / 22050)
    with pytest.raises(ValueError, match="'mel'.*linear_linear"):
        frequencies_hz("mel", ALL)


@pytest.mark.parametrize(("changes", "message"), [
    ({"channels": ("log_dB",)}, "'log_dB'; choose from linear_linear, linear_db, log_linear"),
    ({"channels": ()}, "channels must be a tuple"),
    ({"channels": "log_db"}, "channels must be a tuple"),
    ({"sample_rate_hz": 0}, "sample_rate_hz must be a whole number, 1 or more, not 0"),
    ({"sample_rate_hz": 22050.0}, "sample_rate_hz must be a whole number"),
    ({"num_frames": -1}, "num_frames"),
    ({"num_frames": True}, "num_frames"),
    ({"num_bins": 1}, "num_bins"),
    ({"channels": ("log_db", "hires_q8"), "num_bins": 2}, "num_bins must be a whole number, 3 or more, not 2"),
    ({"window_samples": 1}, "window_samples"),
    ({"window_samples": 4096}, "fft_samples must be a whole number, 4096 or more, not 2048"),
    ({"range_db": 0.0}, "range_db"),
    ({"range_db": float("nan")}, "range_db"),
    ({"channels": ("log_db", "mel_db"), "window_samples": 256, "fft_samples": 256}, "raise fft_samples"),
])  # fmt: skip
def test_settings_that_cannot_work_raise(changes, message):
    with pytest.raises(ValueError, match=message):
        SpectralSettings(**{"channels": ("log_db",), **changes})


@pytest.mark.parametrize("channel", features.CHANNELS)
def test_the_fewest_bins_give_an_image(channel):
    settings = SpectralSettings((channel,), 8000, num_bins=3, num_frames=4)
    images = spectrograms(np.random.default_rng(0).standard_normal((1, 800)).astype(np.float32), settings)
    assert images.shape == (1, 4, 3, 1) and np.isfinite(images).all() and images.max() == 1.0


@pytest.mark.parametrize("shape", [(100,), (0, 100), (2, 0), (1, 2, 100)])
def test_waveforms_of_another_shape_raise(shape):
    with pytest.raises(ValueError, match="waveforms must be"):
        spectrograms(np.zeros(shape, np.float32), ALL)


def test_settings_are_hashable_by_value():
    assert hash(SpectralSettings(STANDARD)) == hash(ALL) and SpectralSettings(STANDARD) == ALL
    assert set(features.CHANNELS) >= set(STANDARD)


HIRES = ("hires_q1", "hires_q2", "hires_q4", "hires_q8")
SMALL = {"num_frames": 64, "num_bins": 64}


def test_a_high_resolution_image_is_the_published_histogram_in_decibels():
    """At stride 1: energies through librosa's own decibels, over 80 dB as for the other variants."""
    clip = loud_and_faint()[:11025]
    settings = SpectralSettings(("hires_q2",), **SMALL, stride=1)
    image = np.asarray(spectrograms(clip[None], settings))[0, :, :, 0]
    noct = scales.bins_per_octave(64)
    grid = {"tdeci": 173, "over": 10, "noct": noct, "minf": scales.lowest_frequency(64), "maxf": 0.5}
    energies = np.asarray(high_resolution_spectrogram(clip / np.abs(clip).max(), q=2, **grid))
    expected = 1.0 + librosa.power_to_db(energies[:, ::-1], ref=np.max, top_db=80.0) / 80.0
    assert image.min() == 0.0 and image.max() == 1.0
    # Other fusions round otherwise, and a point on the border of two cells then changes sides.
    seen = (image > 0.0) | (expected > 0.0)
    assert seen.mean() > 0.02
    assert np.mean(np.abs(image - expected)[seen] > 1e-3) < 0.005


@pytest.mark.parametrize("channel", HIRES)
def test_high_resolution_finds_tones_where_the_axis_has_them(channel):
    hz = np.array([300.0, 1000.0, 5000.0])
    settings = SpectralSettings((channel,), **SMALL)
    images = np.asarray(spectrograms(sines(hz, 11025), settings))[..., 0]
    nearest = np.abs(np.log2(frequencies_hz(channel, settings) / hz[:, None])).argmin(axis=1)
    np.testing.assert_array_equal(images[:, 20:40].sum(axis=1).argmax(axis=-1), nearest)


def test_a_mix_stacks_its_channels():
    channels = ("hires_q1", "hires_q8", "log_db")
    waveforms = noise(2, 5000)
    mixed = np.asarray(spectrograms(waveforms, SpectralSettings(channels, **SMALL)))
    for i, channel in enumerate(channels):
        alone = np.asarray(spectrograms(waveforms, SpectralSettings((channel,), **SMALL)))[..., 0]
        assert np.mean(np.abs(mixed[..., i] - alone) > 1e-3) < 1e-3


@pytest.mark.parametrize("num_samples", [1, 65, 100, 1001])
def test_high_resolution_of_few_samples_and_of_silence(num_samples):
    settings = SpectralSettings(("hires_q4",), **SMALL)
    images = np.asarray(spectrograms(np.stack([noise(num_samples), np.zeros(num_samples)]), settings))
    assert images.shape == (2, 64, 64, 1)
    assert np.all((images >= 0.0) & (images <= 1.0))
    np.testing.assert_array_equal(images[1], 0.0)


def test_smoothed_energies_are_scipys_gaussian_filter():
    sharp, smooth = (hires(2, **more)[0] for more in ({}, {"smoothing_cells": 1.5}))
    expected = scipy.ndimage.gaussian_filter(sharp, 1.5, mode="constant")
    np.testing.assert_allclose(smooth, expected, rtol=1e-4, atol=1e-6 * sharp.max())


def hires(q, **more):
    settings = SpectralSettings((f"hires_q{q}",), **SMALL, **more)
    return np.asarray(hires_channel.reassigned_energies(noise(1, 11025), None, settings, q=q))[0], settings


def test_an_upper_q_is_that_channels_own_above_its_frequency():
    low, settings = hires(8)
    high, _ = hires(2)
    both, _ = hires(8, upper_q=2.0, upper_from_hz=1000.0)
    above = features.frequencies_hz("hires_q8", settings) >= 1000.0
    assert 0 < above.sum() < len(above)
    np.testing.assert_array_equal(both[:, ~above], low[:, ~above])
    np.testing.assert_allclose(both[:, above], high[:, above] / 4, rtol=1e-6)
    assert both[:, above].sum() == pytest.approx(low[:, above].sum(), rel=0.05)  # noise keeps its energy


def test_energies_per_hz_are_those_over_the_width_of_the_bin():
    plain, settings = hires(2)
    flat, _ = hires(2, per_hz=True)
    centres_hz = features.frequencies_hz("hires_q2", settings)  # widths are proportional to them on this axis
    np.testing.assert_allclose(flat, plain * (centres_hz[0] / centres_hz), rtol=1e-4)


@pytest.mark.parametrize("stride", [0.5, 101, "8", True, None, float("nan")])
def test_strides_that_cannot_work_raise(stride):
    with pytest.raises(ValueError, match="stride must be from 1 to 100"):
        SpectralSettings(("hires_q1",), stride=stride)
