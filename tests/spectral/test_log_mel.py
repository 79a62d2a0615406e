"""YAMNet's front end: against the model's own log-mel where that is at hand, and against what is known of it."""

import numpy as np
import pytest
import safetensors.numpy

from audiotag_jax.spectral import features, yamnet
from audiotag_jax.spectral.features import SpectralSettings, spectrograms

RATE_HZ = 16000
SETTINGS = SpectralSettings(("yamnet",), RATE_HZ)


def test_the_published_log_mel(shared_data):
    folder = shared_data / "yamnet"
    weights = safetensors.numpy.load_file(folder / "yamnet.safetensors")
    np.testing.assert_allclose(yamnet.mel_weights(), weights["mel/matrix"], rtol=0, atol=1e-6)
    with np.load(folder / "reference.npz") as reference:
        found = yamnet.log_mel(yamnet.images(reference["waveforms"][-1:]))
        np.testing.assert_allclose(found[0], reference["log_mel_last"], rtol=0, atol=5e-5)


@pytest.mark.parametrize("band", [0, 10, 40, 63])
def test_a_tone_is_loudest_in_its_band(band):
    hz = yamnet.frequencies_hz()[band]
    tone = 0.5 * np.sin(2 * np.pi * hz * np.arange(RATE_HZ) / RATE_HZ)[None].astype(np.float32)
    image = np.asarray(spectrograms(tone, SETTINGS))[0, :, :, 0]
    if band > 10:  # the lowest bands are narrower than the FFT's bins
        assert (image[:90].argmax(axis=1) == band).all()
    assert abs(int(image[50].argmax()) - band) <= 1
    assert features.frequencies_hz("yamnet", SETTINGS)[band] == hz


def test_level_is_kept_and_silence_is_zero():
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, (1, 15600)).astype(np.float32)
    soft, loud = (np.asarray(spectrograms(gain * noise, SETTINGS))[0, :, :, 0] for gain in (1, 10))
    assert np.median(loud - soft) == pytest.approx(20 / yamnet.RANGE_DB, rel=0.01)  # close to the offset it is less
    assert SETTINGS.image_range_db == pytest.approx(138.97, abs=0.01) and SETTINGS.db_channels == (True,)
    assert not np.asarray(spectrograms(0 * noise, SETTINGS)).any()
    full_scale = np.where(np.arange(15600) % 2, 1.0, -1.0)[None] * np.sign(noise)
    assert np.asarray(spectrograms(full_scale, SETTINGS)).max() < 1


@pytest.mark.parametrize(
    ("num_samples", "patches"), [(1, 1), (15600, 1), (15601, 2), (23280, 2), (23281, 3), (80000, 10)]
)
def test_whole_patches_cover_a_clip(num_samples, patches):
    assert SETTINGS.image_shape(num_samples) == (96 + 48 * (patches - 1), 64, 1)
    times_s = features.times_s(SETTINGS, num_samples)
    assert len(times_s) == 48 + 48 * patches and times_s[:2] == pytest.approx([0.0125, 0.0225])


def test_frames_do_not_depend_on_what_follows():
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, (1, 20000)).astype(np.float32)
    whole, part = (np.asarray(spectrograms(noise[:, :n], SETTINGS))[0] for n in (20000, 15600))
    np.testing.assert_allclose(whole[:96], part, rtol=0, atol=1e-6)


def test_what_it_cannot_be_combined_with():
    with pytest.raises(
        ValueError, match="yamnet is of waveforms at 16000 Hz, not at 22050: set dataset.sample_rate_hz"
    ):
        SpectralSettings(("yamnet",))
    with pytest.raises(ValueError, match=r"yamnet has sizes and a scale of its own: give it alone"):
        SpectralSettings(("log_db", "yamnet"), RATE_HZ)
