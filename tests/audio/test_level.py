"""The definition of silence, and channels that cancel."""

import numpy as np
import pytest
import soundfile

from audiotag_jax.audio.clip import load_clip
from audiotag_jax.audio.decode import load_audio
from audiotag_jax.audio.level import Level, Mix, is_silent
from audiotag_jax.datasets.records import Clip
from audiotag_jax.datasets.waveforms import decode_clip
from audiotag_jax.doctor.audit import findings, measure
from audiotag_jax.inference.windows import WindowOptions, read_windows
from audiotag_jax.settings.sections import ClipSettings

RATE_HZ = 8000


@pytest.mark.parametrize(
    ("samples", "silent"),
    [([0.0] * 9, True), ([-0.7] * 9, True), ([3e-5, -3e-5], True), ([0.0] * 99 + [1e-3], False), ([0.5, 0.6], False)],
)
def test_is_silent(samples, silent):
    assert is_silent(np.array(samples, np.float32)) == silent


def test_the_level_of_pieces_is_that_of_the_whole():
    rng = np.random.default_rng(0)
    for _ in range(100):
        samples = (0.5 + rng.normal(size=rng.integers(1, 300)) * 10 ** rng.uniform(-6, -3)).astype(np.float32)
        level = Level()
        for piece in np.array_split(samples, rng.integers(1, 1 + len(samples))):
            level.add(piece)
        deviation = np.abs(samples - samples.mean(dtype=np.float64)).max()
        assert level.is_silent == is_silent(samples) == (deviation <= 1e-4)
        assert level.peak == np.abs(samples).max()


SILENT = {
    "zeros": np.zeros(RATE_HZ),
    "constant": np.full(RATE_HZ, 0.25),
    "noise of 1e-6": 1e-6 * np.random.default_rng(0).standard_normal(RATE_HZ),
    "one sample": np.ones(1) * 0.5,
    "opposed": np.stack([np.sin(np.arange(RATE_HZ)), -np.sin(np.arange(RATE_HZ))], axis=1),
}
AUDIBLE = {
    "noise of 1e-3": 1e-3 * np.random.default_rng(0).standard_normal(RATE_HZ),
    "click": np.eye(1, RATE_HZ, 100)[0],
}


@pytest.mark.parametrize("duration_s", [0.5, 3.0])  # a clip longer than these recordings is padded with zeros
@pytest.mark.parametrize("name", [*SILENT, *AUDIBLE])
def test_prepare_doctor_and_predict_agree_on_silence(tmp_path, name, duration_s):
    path = tmp_path / "a.wav"
    soundfile.write(path, (SILENT | AUDIBLE)[name], RATE_HZ, "FLOAT")
    settings = ClipSettings(sample_rate_hz=RATE_HZ, duration_s=duration_s)
    clip = Clip("a", str(path), "x", 0, "train", verified=True)
    _, problem = decode_clip(clip, settings)
    in_prepare = problem is not None and "silent" in problem.reason.split("; ")
    in_doctor = "silent" in findings(measure(path, RATE_HZ), RATE_HZ)
    windows = read_windows([path], WindowOptions(RATE_HZ, settings.length_samples, settings.length_samples))
    in_predict = all(item.waveform is None for item in windows)
    assert in_prepare == in_doctor == in_predict == (name in SILENT)


def mixed(samples) -> str:
    mix = Mix()
    for block in np.array_split(np.asarray(samples, np.float32), 7):
        np.testing.assert_allclose(mix.add(block), block.mean(axis=1))
    return mix.note


def test_channels_that_cancel_are_reported(tmp_path):
    rng = np.random.default_rng(0)
    sound, other = rng.normal(0, 0.1, (2, RATE_HZ))
    assert mixed(np.stack([sound, -sound], 1)) == "channels cancel: nothing is left"
    assert mixed(np.stack([sound, 1e-3 * other - sound], 1)) == "channels cancel: the mono mix is 66 dB weaker"
    assert mixed(0.7 + np.stack([sound, -sound], 1)) == "channels cancel: nothing is left"  # whatever their mean
    centre = np.zeros((RATE_HZ, 6))
    centre[:, 2] = sound
    stereo = np.stack([sound, other], 1)
    quiet = 1e-5 * np.stack([sound, -sound], 1)
    for samples in (centre, stereo, np.stack([sound, -0.5 * sound], 1), sound[:, None], quiet, np.zeros((99, 2))):
        assert mixed(samples) == ""
    soundfile.write(tmp_path / "a.wav", np.stack([sound, -sound], 1), RATE_HZ, "FLOAT")
    assert load_audio(tmp_path / "a.wav", 16000)[1] == "channels cancel: nothing is left"
    assert load_clip(tmp_path / "a.wav", RATE_HZ, 1000)[1] == "channels cancel: nothing is left; silent"
