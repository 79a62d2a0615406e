"""Images and decoded samples do not change without their version, which names the prepared datasets.

`python tests/spectral/test_golden_channels.py` adds to `golden_channels.npz` what is new, and replaces what has another
version: run it after an intended change, once the version that the failing test names has been raised. Whatever kept
its version stays as it is in the file, so that writing it does not hide a change.
"""

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

sys.path.insert(0, str(Path(__file__).parents[2]))  # when run as a program

from audiotag_jax.audio import decode  # noqa: E402
from audiotag_jax.audio.crop import crop_loudest  # noqa: E402
from audiotag_jax.spectral.features import CHANNELS, PUBLISHED, SpectralSettings, channel_version, spectrograms  # noqa: E402

pytestmark = pytest.mark.optimized

FILE = Path(__file__).with_name("golden_channels.npz")
RATE_HZ, NUM_SAMPLES = 8000, 2400
SIZES = {"num_frames": 20, "num_bins": 24, "window_samples": 512, "fft_samples": 512, "sample_rate_hz": RATE_HZ}
ALL = (*CHANNELS, *PUBLISHED)
TOLERANCE = 2e-3  # of images in [0, 1]: devices and libraries differ by less, a changed algorithm by more


def probe() -> np.ndarray:
    """A tone, a falling chirp, a click and noise, of uniform draws, whose stream NumPy does not change: float32 [N]."""
    seconds = np.arange(NUM_SAMPLES) / RATE_HZ
    tone = 0.3 * np.sin(2 * np.pi * 440 * seconds)
    chirp = 0.2 * np.sin(2 * np.pi * (3000 * seconds - 4000 * seconds**2))
    click = np.where(np.arange(NUM_SAMPLES) == 1700, 0.8, 0.0)
    return (tone + chirp + click + 0.03 * (np.random.default_rng(0).random(NUM_SAMPLES) - 0.5)).astype(np.float32)


def image(channel: str) -> np.ndarray:
    """[T, F] of the probe."""
    sizes = {"sample_rate_hz": PUBLISHED[channel].sample_rate_hz} if channel in PUBLISHED else SIZES
    return np.asarray(spectrograms(probe()[None], SpectralSettings(channels=(channel,), **sizes)))[0, :, :, 0]


def decoded(folder: Path) -> np.ndarray:
    """The probe in two channels at another rate, decoded, downmixed, resampled and cropped: float32 [1200]."""
    stereo = np.stack([probe(), 0.5 * probe()], axis=1)
    soundfile.write(folder / "probe.wav", stereo, 11025, subtype="PCM_24")
    return crop_loudest(decode.load_audio(folder / "probe.wav", RATE_HZ)[0], 1200, 400)


@pytest.mark.parametrize("channel", ALL)
def test_a_channel_changes_with_its_version_alone(channel):
    with np.load(FILE) as golden:
        assert channel_version(channel) == golden[f"{channel} version"], f"write {FILE.name} anew"
        difference = np.abs(image(channel) - golden[channel].astype(np.float32)).max()
    assert difference < TOLERANCE, f"raise the version of {channel} in spectral/features.py; write {FILE.name} anew"


def test_decoding_changes_with_its_version_alone(tmp_path):
    with np.load(FILE) as golden:
        assert golden["decoder version"] == decode.VERSION, f"write {FILE.name} anew"
        difference = np.abs(decoded(tmp_path) - golden["decoded"]).max()
    assert difference < 1e-4, f"raise VERSION in audio/decode.py, then write {FILE.name} anew"


def test_the_probe_tells_the_channels_from_each_other():
    images = [image(channel) for channel in CHANNELS]
    apart = [np.abs(one - two).max() for n, one in enumerate(images) for two in images[:n]]
    assert min(apart) > 20 * TOLERANCE
    assert set(np.load(FILE)) == {*ALL, *(f"{name} version" for name in ALL), "decoded", "decoder version"}


if __name__ == "__main__":
    import tempfile

    arrays = {channel: image(channel).astype(np.float16) for channel in ALL}
    arrays |= {f"{name} version": np.array(channel_version(name)) for name in ALL}
    with tempfile.TemporaryDirectory() as folder:
        arrays |= {"decoded": decoded(Path(folder)), "decoder version": np.array(decode.VERSION)}
    before = dict(np.load(FILE)) if FILE.exists() else {}
    versions = {"decoded": "decoder version"} | {channel: f"{channel} version" for channel in ALL}
    same = {name for name, version in versions.items() if version in before and before[version] == arrays[version]}
    np.savez_compressed(FILE, **arrays | {name: before[name] for name in same})
