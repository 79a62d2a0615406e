"""Decoding against closed-form sines and damaged files."""

import math
import os
import struct
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile

from audiotag_jax.audio import decode
from audiotag_jax.audio.decode import AudioError, load_audio

FORMATS = {"wav": "PCM_24", "flac": "PCM_24", "ogg": "VORBIS", "opus": "OPUS", "mp3": "MPEG_LAYER_III", "aiff": "FLOAT"}


def sine(rate_hz, duration_s=1.0, frequency_hz=440.0, channels=1):
    wave = 0.5 * np.sin(2 * np.pi * frequency_hz * np.arange(round(rate_hz * duration_s)) / rate_hz)
    return wave if channels == 1 else np.stack([wave * (n + 1) / channels for n in range(channels)], axis=1)


def write(path, samples, rate_hz, subtype=None):
    soundfile.write(path, samples, rate_hz, format="OGG" if path.suffix == ".opus" else None, subtype=subtype)
    return path


def test_file_names_need_not_be_utf_8(tmp_path):
    plain = write(tmp_path / "a.wav", sine(8000), 8000)
    non_utf8 = tmp_path / os.fsdecode(b"latin\xe9.wav")
    non_utf8.write_bytes(plain.read_bytes())
    samples, note = load_audio(non_utf8, 8000)
    np.testing.assert_array_equal(samples, load_audio(plain, 8000)[0])
    assert note == ""


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(("rate_hz", "channels"), [(8000, 1), (16000, 2), (48000, 2)])
def test_every_format_decodes_to_the_sine(tmp_path, suffix, rate_hz, channels):
    path = write(tmp_path / f"a.{suffix}", sine(rate_hz, channels=channels), rate_hz, FORMATS[suffix])
    samples, note = load_audio(path)
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert note == ""
    gain = (channels + 1) / (2 * channels)  # the mean over channels
    assert abs(len(samples) - 22050) < (1 if suffix in ("wav", "flac", "aiff") else 30)
    inner = slice(4000, 18000)  # away from the ends, where any resampler rings
    tolerance = 1e-4 if suffix in ("wav", "flac", "aiff") else 0.1
    np.testing.assert_allclose(samples[:22050][inner], gain * sine(22050)[inner], atol=tolerance)


@pytest.mark.parametrize("suffix", FORMATS)
def test_decoding_in_blocks_equals_decoding_in_one_piece(tmp_path, suffix):
    """Decoders that keep state between frames must not lose it between blocks."""
    rng = np.random.default_rng(0)
    for rate_hz in (8000, 24000, 48000):
        wave = sine(rate_hz, 3.0) + rng.normal(0, 0.05, rate_hz * 3) * (np.arange(rate_hz * 3) % rate_hz < rate_hz / 4)
        path = write(tmp_path / f"a.{suffix}", wave, rate_hz, FORMATS[suffix])
        whole, _ = soundfile.read(path, dtype="float32")
        np.testing.assert_allclose(load_audio(path, sample_rate_hz=rate_hz)[0], whole, atol=1e-6)


def test_equal_rates_copy_the_samples_and_other_rates_resample(tmp_path):
    wave = np.random.default_rng(0).uniform(-1, 1, 5000).astype(np.float32)
    path = write(tmp_path / "a.wav", wave, 22050, "FLOAT")
    np.testing.assert_array_equal(load_audio(path)[0], wave)
    assert len(load_audio(path, sample_rate_hz=44100)[0]) == 10000


@pytest.mark.parametrize("rate_hz", [8000, 11025, 22050, 44100, 48000, 96000])
def test_tiny_files_give_at_least_one_sample(tmp_path, rate_hz):
    for num_samples in (*range(1, 12), 4095, 4096, 4097):
        path = write(tmp_path / "a.wav", np.full(num_samples, 0.5), rate_hz)
        samples, note = load_audio(path)
        assert len(samples) == max(1, math.floor(num_samples * 22050 / rate_hz + 0.5)), num_samples
        assert np.abs(samples).max() > 0.05, num_samples
        assert np.isfinite(samples).all()
        assert note == ""


@pytest.mark.parametrize("suffix", ["wav", "aiff", "au", "flac", "ogg", "mp3"])
def test_a_truncated_file_is_decoded_in_part_with_a_note(tmp_path, suffix):
    noise = np.random.default_rng(0).normal(0, 0.1, 3 * 22050)
    path = write(tmp_path / f"a.{suffix}", noise, 22050)
    whole, note = load_audio(path)
    assert note == ""
    data = path.read_bytes()
    path.write_bytes(data[: int(0.6 * len(data))])
    samples, note = load_audio(path)
    assert 0.35 * len(whole) < len(samples) < 0.65 * len(whole)
    np.testing.assert_allclose(samples, whole[: len(samples)], atol=1e-6)
    seconds = f"{len(samples) / 22050:.2f} s"
    expected = f"{seconds} decoded, the end is missing" if suffix == "ogg" else f"{seconds} of 3.00 s decoded"
    assert note == f"truncated: {expected}"


def set_flac_length(path, num_frames):
    """Overwrites the 36-bit frame count in a FLAC file's header."""
    data = bytearray(path.read_bytes())
    data[21] = (data[21] & 0xF0) | (num_frames >> 32)
    data[22:26] = struct.pack(">I", num_frames & 0xFFFFFFFF)
    path.write_bytes(data)
    return path


def test_a_false_length_in_the_header_allocates_no_memory(tmp_path):
    flac = set_flac_length(write(tmp_path / "a.flac", sine(22050), 22050), 2**36 - 1)
    wav = write(tmp_path / "a.wav", sine(22050), 22050, "PCM_16")
    wav.write_bytes(wav.read_bytes()[:40] + struct.pack("<I", 2**31 - 2**20) + wav.read_bytes()[44:])
    for path in (flac, wav):
        tracemalloc.start()
        samples, note = load_audio(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2e6
        np.testing.assert_allclose(samples, sine(22050), atol=1e-4)
        assert note.startswith("truncated: 1.00 s of ")


def test_a_header_without_a_length_is_not_reported_as_truncated(tmp_path):
    flac = set_flac_length(write(tmp_path / "a.flac", sine(22050), 22050), 0)
    wav = write(tmp_path / "a.wav", sine(22050), 22050, "PCM_16")
    wav.write_bytes(wav.read_bytes()[:40] + b"\xff\xff\xff\xff" + wav.read_bytes()[44:])
    for path in (flac, wav):
        samples, note = load_audio(path)
        np.testing.assert_allclose(samples, sine(22050), atol=1e-4)
        assert note == ""


def test_a_long_recording_is_decoded_up_to_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "MAX_DURATION_S", 1)
    path = write(tmp_path / "a.wav", sine(44100, 2.5), 44100)
    samples, note = load_audio(path)
    assert len(samples) == 22050
    assert note == "long: the first 1.00 s of 2.50 s decoded"


def test_files_without_samples_raise_a_one_line_error(tmp_path):
    wav = write(tmp_path / "ok.wav", sine(22050), 22050).read_bytes()
    flac = write(tmp_path / "ok.flac", np.random.default_rng(0).normal(0, 0.1, 22050), 22050).read_bytes()
    bad = {
        "empty.wav": (b"", "empty file"),
        "header.wav": (wav[:44], "no audio frames"),
        "short.wav": (wav[:20], "unreadable"),
        "noise.wav": (np.random.default_rng(0).bytes(5000), "unreadable"),
        "zeros.mp3": (bytes(5000), "unreadable"),
        "headerless.raw": (bytes(5000), "unreadable"),
        "cut.flac": (flac[:4000], "nothing could be decoded"),
    }
    for name, (content, reason) in bad.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(AudioError, match=f"^{reason}") as caught:
            load_audio(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(AudioError, match="not a regular file"):
        load_audio(tmp_path)
    for path in (tmp_path / "missing.wav", tmp_path / "missing" / "a.wav"):
        with pytest.raises(AudioError, match="no such file"):
            load_audio(str(path))
    with pytest.raises(AudioError, match="unreadable"):
        load_audio(tmp_path / ("long" * 100 + ".wav"))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rate_hz", [8000, 22050, 44100, 96000])
def test_one_non_finite_sample_raises(tmp_path, value, rate_hz):
    for position in (0, rate_hz // 2, -1):
        wave = sine(rate_hz).astype(np.float32)
        wave[position] = value
        with pytest.raises(AudioError, match="non-finite"):
            load_audio(write(tmp_path / "a.wav", wave, rate_hz, "FLOAT"))


def test_decoding_in_many_threads_equals_one_thread(tmp_path):
    rng = np.random.default_rng(0)
    paths = [
        write(tmp_path / f"{n}.{suffix}", rng.normal(0, 0.1, (20000 + n, 2)), 44100, subtype)
        for n, (suffix, subtype) in enumerate(item for item in FORMATS.items() if item[0] != "opus")
    ]
    alone = [load_audio(path) for path in paths]
    with ThreadPoolExecutor(8) as pool:
        for n, (samples, note) in enumerate(pool.map(load_audio, paths * 10)):
            np.testing.assert_array_equal(samples, alone[n % len(paths)][0])
            assert note == alone[n % len(paths)][1]
