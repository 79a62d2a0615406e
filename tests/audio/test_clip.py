"""Clips of recordings of any length are those of `crop_loudest` on the whole."""

import tracemalloc

import numpy as np
import pytest
import soundfile

from audiotag_jax.audio import clip as clip_module
from audiotag_jax.audio.clip import load_clip
from audiotag_jax.audio.crop import LoudestWindow, crop_loudest
from audiotag_jax.audio.decode import load_audio

RATE_HZ = 4000


def bursts(duration_s, seed=0):
    rng = np.random.default_rng(seed)
    samples = 0.05 * rng.standard_normal(round(duration_s * RATE_HZ))
    for start in rng.integers(0, len(samples), 5):
        samples[start : start + 3000] *= rng.uniform(1, 8)
    return samples


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize("rate_hz", [4000, 11025])
def test_a_long_recording_is_cropped_as_a_short_one(tmp_path, monkeypatch, suffix, rate_hz):
    for seed in range(2):
        path = tmp_path / f"a.{suffix}"
        soundfile.write(path, bursts(10, seed), 8000)
        whole, _ = load_audio(path, rate_hz)
        for length, margin in ((rate_hz, 0), (7 * rate_hz, 50), (20 * rate_hz, 50), (100, 5)):
            expected = crop_loudest(whole, length, rate_hz // 2, margin)
            for limit_s in (600, 1):
                monkeypatch.setattr(clip_module, "MAX_DURATION_S", limit_s)
                crop, note = load_clip(path, rate_hz, length, margin)
                np.testing.assert_array_equal(crop, expected)
                assert note == ""


def test_the_loudest_window_does_not_depend_on_the_pieces():
    rng = np.random.default_rng(0)
    for n in range(120):
        samples = rng.normal(size=rng.integers(1, 500)).astype(np.float32)
        if n % 3 == 0:
            samples = np.sign(samples)  # all windows are equally loud
        window = int(rng.integers(1, 1 + len(samples)))
        whole, pieces = LoudestWindow(window), LoudestWindow(window)
        whole.add(samples)
        for piece in np.array_split(samples, rng.integers(1, 1 + len(samples))):
            pieces.add(piece)
        energies = np.convolve(np.square(samples, dtype=np.float64), np.ones(window), "valid")
        first = int(np.argmax(energies >= energies.max() * (1 - 1e-9)))
        length = int(rng.integers(1, 1 + len(samples)))
        start = min(max(first + window // 2 - length // 2, 0), len(samples) - length)
        for loudest in (whole, pieces):
            assert loudest.crop_start(length, len(samples)) == start


def test_memory_is_that_of_the_limit(tmp_path, monkeypatch):
    path = tmp_path / "a.wav"
    soundfile.write(path, bursts(600), RATE_HZ)
    monkeypatch.setattr(clip_module, "MAX_DURATION_S", 10)
    load_clip(path, RATE_HZ, RATE_HZ)
    tracemalloc.start()
    load_clip(path, RATE_HZ, RATE_HZ)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3e6  # the recording has 9.6e6 bytes as float32


def test_what_is_lacking_when_a_long_recording_is_read_again_is_noted(tmp_path, monkeypatch):
    path, stream, calls = tmp_path / "a.wav", clip_module.stream_audio, []
    soundfile.write(path, bursts(10), RATE_HZ)
    monkeypatch.setattr(clip_module, "MAX_DURATION_S", 1)

    def cut_short(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            yield np.ones(10, np.float32)
            return "truncated: 0.00 s of 10.00 s decoded"
        return (yield from stream(*arguments))

    monkeypatch.setattr(clip_module, "stream_audio", cut_short)
    assert load_clip(path, RATE_HZ, RATE_HZ)[1].startswith("truncated: 0.00 s of 10.00 s")
    assert load_clip(path, RATE_HZ, RATE_HZ)[1] == ""
