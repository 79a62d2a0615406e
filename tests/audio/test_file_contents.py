"""Files whose headers are wrong, or that hold several streams: every sample, or a note."""

import io
import os
import struct
import sys
import time

import numpy as np
import pytest
import soundfile

from audiotag_jax.audio import decode, ffmpeg, sndfile
from audiotag_jax.audio.byte_view import ByteView
from audiotag_jax.audio.decode import AudioError, load_audio, read_blocks
from audiotag_jax.audio.sections import find_streams

RATE_HZ = 22050


def tone(duration_s=1.0, frequency_hz=440.0, rate_hz=RATE_HZ):
    """A tone in noise, so that no codec makes it tiny."""
    num_samples = round(duration_s * rate_hz)
    noise = np.random.default_rng(0).normal(0, 0.01, num_samples)
    return 0.5 * np.sin(2 * np.pi * frequency_hz * np.arange(num_samples) / rate_hz) + noise


def encoded(samples, container, subtype=None, rate_hz=RATE_HZ, **options) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, subtype, format=container, **options)
    return file.getvalue()


def patched(data: bytes, *fields: tuple[int, bytes]) -> bytes:
    changed = bytearray(data)
    for at, value in fields:
        changed[at : at + len(value)] = value
    return bytes(changed)


def load(tmp_path, name: str, data: bytes):
    path = tmp_path / name
    path.write_bytes(data)
    return load_audio(path, RATE_HZ)


def frequency_hz(samples) -> float:
    power = np.abs(np.fft.rfft(samples * np.hanning(len(samples)))) ** 2
    return float(power.argmax() * RATE_HZ / len(samples))


JOINED = {
    "a.ogg": ("OGG", "VORBIS"),
    "a.opus": ("OGG", "OPUS"),
    "a.flac": ("FLAC", "PCM_16"),
    "a.mp3": ("MP3", "MPEG_LAYER_III"),
    "a.wav": ("WAV", "PCM_16"),
    "a.aif": ("AIFF", "PCM_16"),
    "a.rf64": ("RF64", "PCM_16"),
}


@pytest.mark.parametrize("name", JOINED)
def test_streams_behind_each_other_are_all_decoded(tmp_path, name):
    """Of different rates and channels, too."""
    rates = (48000, 24000) if name.endswith("opus") else (RATE_HZ, 44100)
    parts = [(1.0, 440.0, rates[0]), (2.0, 880.0, rates[0]), (1.5, 1760.0, rates[1])]
    data = b""
    for n, (duration_s, frequency, rate_hz) in enumerate(parts):
        samples = tone(duration_s, frequency, rate_hz)
        data += encoded(np.stack([samples] * (1 + n % 2), axis=1), *JOINED[name], rate_hz)
    samples, note = load(tmp_path, name, data)
    assert note == ""
    assert len(samples) == pytest.approx(4.5 * RATE_HZ, abs=0.01 * RATE_HZ)
    for start, stop, frequency in ((0, 1, 440), (1, 3, 880), (3, 4.5, 1760)):
        part = samples[round((start + 0.1) * RATE_HZ) : round((stop - 0.1) * RATE_HZ)]
        assert frequency_hz(part) == pytest.approx(frequency, abs=3)


def fields_of(data: bytes, container: str) -> int:
    """Returns the offset of the length of the samples."""
    return {
        "WAV": data.find(b"data") + 4,
        "RF64": data.find(b"ds64") + 16,
        "AU": 8,
        "CAF": data.find(b"data") + 4,
        "AIFF": data.find(b"SSND") + 4,
        "W64": data.find(b"data") + 16,
    }[container]


@pytest.mark.parametrize(
    ("container", "length"),
    [
        *[("WAV", value) for value in (bytes(4), b"\xff" * 4, b"\xff\xff\xff\x7f", b"\xdb\xff\xff\xff")],
        *[(container, value * 8) for container in ("RF64", "CAF", "W64") for value in (b"\0", b"\xff")],
        *[(container, value * 4) for container in ("AU", "AIFF") for value in (b"\0", b"\xff")],
    ],
)
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_a_file_that_was_never_closed_is_read_to_its_end(tmp_path, container, length, subtype):
    data = encoded(tone(), container, subtype)
    whole, _ = load(tmp_path, "whole.wav", data)
    samples, note = load(tmp_path, "open.wav", patched(data, (fields_of(data, container), length)))
    assert note == ""
    np.testing.assert_array_equal(samples[: len(whole)], whole)
    assert len(samples) - len(whole) <= 2


@pytest.mark.parametrize("riff", [0, 8, 36, 4088, 2**32 - 1])
def test_the_length_of_the_riff_chunk_does_not_matter(tmp_path, riff):
    data = patched(encoded(tone(), "WAV", "PCM_16"), (4, struct.pack("<I", riff)), (40, bytes(4)))
    samples, note = load(tmp_path, "a.wav", data)
    assert (len(samples), note) == (RATE_HZ, "")


@pytest.mark.parametrize("container", ["WAV", "RF64", "AU", "CAF", "AIFF"])
def test_more_than_the_header_declares_is_noted(tmp_path, container):
    data = encoded(tone(2.0), container, "PCM_16")
    at = fields_of(data, container)
    size = struct.pack({"WAV": "<I", "RF64": "<Q", "CAF": ">Q"}.get(container, ">I"), RATE_HZ)  # a quarter of it
    samples, note = load(tmp_path, "a.wav", patched(data, (at, size)))
    assert len(samples) == pytest.approx(RATE_HZ / 2, abs=8)
    assert note == "longer than declared: 1.50 s behind the end by the header, not decoded"


def test_chunks_behind_the_samples_are_no_samples(tmp_path):
    data = encoded(tone(), "WAV", "PCM_16")
    chunk = b"id3 " + struct.pack("<I", 9000) + b"x" * 9000
    for tail in (chunk, chunk[:4000], b"LIST" + struct.pack("<I", 4) + b"INFO" + chunk, b"\0"):
        samples, note = load(tmp_path, "a.wav", data + tail)
        assert len(samples) == RATE_HZ
        assert note == ("" if tail != chunk[:4000] else note)
    samples, note = load(
        tmp_path, "a.wav", patched(data + chunk, (40, bytes(4)))
    )  # chunks follow samples that are some
    assert len(samples) >= RATE_HZ


def test_an_empty_file_with_chunks_has_no_samples(tmp_path):
    with pytest.raises(AudioError, match="no audio frames"):
        load(tmp_path, "a.wav", encoded(np.zeros(0), "WAV", "PCM_16") + b"LIST" + struct.pack("<I", 4) + b"INFO")


@pytest.mark.parametrize("size", [100, 2**32 - 1, 0])
def test_a_wav_past_4_gib(tmp_path, size):
    """Sparse on the disk; lengths modulo 2**32, or placeholders."""
    path, num_bytes = tmp_path / "a.wav", 2**32 + 100
    data = encoded(np.zeros(1), "WAV", "PCM_16")[:44]
    path.write_bytes(patched(data, (40, struct.pack("<I", size))))
    os.truncate(path, 44 + num_bytes)
    with path.open("rb") as file:
        view = ByteView(file.fileno(), 0, path.stat().st_size)
        (stream,) = find_streams(view)
        with sndfile.open_stream(view.part(stream.start, stream.stop, stream.patches)) as sound:
            assert sound.frames == num_bytes // 2
    assert len(next(read_blocks(path)).samples) == 4096


# MP3.


def without_xing(data: bytes) -> bytes:
    """Removes the first frame of an MP3 of libsndfile, which has the Xing or Info header."""
    first = data.find(data[:2], 36)
    assert b"Xing" in data[:first] or b"Info" in data[:first]
    return data[first:]


def id3(size: int) -> bytes:
    picture = np.random.default_rng(0).bytes(size)
    return b"ID3\x03\0\0" + bytes((size >> 21, size >> 14 & 127, size >> 7 & 127, size & 127)) + picture


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
@pytest.mark.parametrize("rate_hz", [8000, 22050, 44100])
def test_an_mp3_without_xing_is_intact(tmp_path, mode, rate_hz):
    sound = tone(3.0, rate_hz=rate_hz) * np.linspace(0, 1, round(3.0 * rate_hz))
    data = without_xing(encoded(sound, "MP3", rate_hz=rate_hz, bitrate_mode=mode))
    ape = b"APETAGEX" + struct.pack("<IIII", 2000, 50_032, 1, 0) + bytes(8)
    expected, _ = load(tmp_path, "a.mp3", data)
    assert len(expected) == pytest.approx(3 * RATE_HZ, abs=0.3 * RATE_HZ)
    for whole in (data, id3(2_000_000) + data, id3(1000) + id3(70_000) + data, data + bytes(50_000) + ape):
        samples, note = load(tmp_path, "a.mp3", whole)
        assert note == ""
        assert len(samples) == pytest.approx(len(expected), abs=3 * 1152)  # a decoder's delay
        assert np.abs(samples[-RATE_HZ // 2 :]).max() > 0.4  # the end is there
    samples, note = load(tmp_path, "a.mp3", id3(300) + bytes(100_000) + data)  # libmpg123 alone gives up
    assert (len(samples), note) == (len(expected), "")
    _, note = load(tmp_path, "a.mp3", data[:-100])
    assert note.endswith("decoded, the end is missing")


def test_a_xing_header_that_declares_less_or_more(tmp_path):
    data = encoded(tone(3.0), "MP3")
    at = max(data.find(b"Xing"), data.find(b"Info")) + 8
    count = struct.unpack(">I", data[at : at + 4])[0]
    samples, note = load(tmp_path, "a.mp3", patched(data, (at, struct.pack(">I", count // 3))))
    assert (len(samples), note) == (3 * RATE_HZ, "")
    samples, note = load(tmp_path, "a.mp3", patched(data, (at, struct.pack(">I", 3 * count))))
    assert note.startswith("truncated: 3.0")


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "ULAW"])
def test_a_cut_nist_file_is_noted(tmp_path, subtype):
    """libsndfile reports what is left as the length."""
    data = encoded(np.stack([tone(3.0)] * 2, axis=1), "NIST", subtype)
    samples, note = load(tmp_path, "a.wav", data)
    assert (len(samples), note) == (3 * RATE_HZ, "")
    samples, note = load(tmp_path, "a.wav", data[: len(data) // 2])
    assert note == f"truncated: {len(samples) / RATE_HZ:.2f} s of 3.00 s decoded"


@pytest.mark.parametrize(("suffix", "container"), [("mp3", "MP3"), ("ogg", "OGG"), ("opus", "OPUS"), ("flac", "FLAC")])
def test_damage_in_the_middle_is_noted(tmp_path, suffix, container):
    rate_hz = 48000 if suffix == "opus" else RATE_HZ
    options = ("OGG", "OPUS") if suffix == "opus" else (container, None)
    data = encoded(tone(4.0, rate_hz=rate_hz), *options, rate_hz)
    half = len(data) // 2
    damaged = data[:half] + np.random.default_rng(0).bytes(5000) + data[half + 3000 :]
    samples, note = load(tmp_path, f"a.{suffix}", damaged)
    assert len(samples) < 3.9 * RATE_HZ
    assert note.startswith("truncated: ")


def test_a_flac_that_declares_less(tmp_path):
    data = encoded(tone(3.0), "FLAC")
    data = patched(data, (21, bytes((data[21] & 0xF0,)) + struct.pack(">I", RATE_HZ)))
    samples, note = load(tmp_path, "a.flac", data)
    assert (len(samples), note) == (3 * RATE_HZ, "")


# What is not opened, and what cannot be read.


@pytest.mark.parametrize("name", JOINED)
def test_a_file_that_becomes_shorter_meanwhile(tmp_path, name):
    """The search for its streams ends."""
    data = encoded(tone(rate_hz=24000), *JOINED[name], rate_hz=24000)
    path = tmp_path / name
    path.write_bytes(data[: len(data) // 2])
    with path.open("rb") as file:
        start = time.monotonic()
        assert len(find_streams(ByteView(file.fileno(), 0, 100 * len(data)))) == 1
        assert time.monotonic() - start < 5


def test_pipes_and_devices_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    for path in (tmp_path / "pipe.wav", tmp_path, "/dev/zero", "/dev/null"):
        with pytest.raises(AudioError, match="not a regular file"):
            load_audio(path)
        assert decode.expected_duration_s(path) == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads all files")
def test_a_file_without_permission(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(encoded(tone(), "WAV"))
    path.chmod(0)
    with pytest.raises(AudioError, match=r"unreadable \(Permission denied\)"):
        load_audio(path)


@pytest.mark.parametrize("rate_hz", [0, 1, 10, 2**31 - 1, 2**32 - 1])
def test_absurd_rates_are_errors_at_once(tmp_path, rate_hz):
    data = patched(encoded(tone(), "WAV", "PCM_16"), (24, struct.pack("<I", rate_hz)))
    start = time.monotonic()
    with pytest.raises(AudioError, match="unreadable"):
        load(tmp_path, "a.wav", data)
    assert time.monotonic() - start < 1


def test_samples_above_full_scale_stay_as_they_are(tmp_path):
    for gain in (10.0, 32767.0, 1e6):
        samples, note = load(tmp_path, "a.wav", encoded(tone() * gain, "WAV", "FLOAT"))
        np.testing.assert_allclose(samples, tone() * gain, rtol=1e-6)
        assert note == ""


def test_what_libsndfile_does_not_read_is_decoded_with_pyav(tmp_path, monkeypatch):
    av = pytest.importorskip("av")
    samples = tone(2.0, rate_hz=44100).astype(np.float32)
    for name, container, codec in (("a.m4a", "mp4", "aac"), ("a.aac", "adts", "aac"), ("a.mka", "matroska", "flac")):
        kind = {"aac": "fltp", "flac": "s16"}[codec]
        path, values = tmp_path / name, samples if kind == "fltp" else (samples * 32767).astype(np.int16)
        with av.open(str(path), "w", format=container) as output:
            stream = output.add_stream(codec, rate=44100, layout="mono")
            for start in range(0, len(samples), 1024):
                frame = av.AudioFrame.from_ndarray(values[None, start : start + 1024], format=kind, layout="mono")
                frame.sample_rate, frame.pts = 44100, start
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
        decoded, note = load_audio(path, 44100)
        assert note == ""
        assert len(decoded) == pytest.approx(len(samples), abs=2048 + 1024)
        shift = len(decoded) - len(samples) if name == "a.aac" else 0  # no container notes the encoder's delay
        if codec == "flac":
            np.testing.assert_allclose(decoded, samples, atol=1e-4)
        elif not shift:
            assert np.corrcoef(decoded[:80000], samples[:80000])[0, 1] > 0.99
    monkeypatch.setattr(ffmpeg, "is_installed", lambda: False)
    with pytest.raises(AudioError, match="`pip install av` to read more formats"):
        load_audio(tmp_path / "a.m4a")


def test_a_broken_pyav_spoils_one_file_alone(tmp_path, monkeypatch):
    """It is installed, but its libraries cannot be loaded."""
    monkeypatch.setattr(ffmpeg, "is_installed", lambda: True)
    monkeypatch.setitem(sys.modules, "av", None)
    for name, content, words in (("a.wav", b"RIFF" + bytes(40), "unreadable"), ("a.m4a", b"xxxx", "PyAV cannot be")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(AudioError, match=words):
            load_audio(tmp_path / name, 44100)


def test_without_pyav_a_line_names_it_where_it_may_help(tmp_path, monkeypatch):
    monkeypatch.setattr(ffmpeg, "is_installed", lambda: False)
    for name, content in (
        ("a.m4a", b"xxxx"),
        ("a.wav", b"\0\0\0\x20ftypM4A " + bytes(99)),
        ("b.wav", b"\x1aE\xdf\xa3"),
    ):
        with pytest.raises(AudioError, match="`pip install av`"):
            load(tmp_path, name, content + bytes(1000))
    with pytest.raises(AudioError, match="unreadable") as caught:
        load(tmp_path, "page.wav", b"<!DOCTYPE html><html>404</html>")
    assert "pip" not in str(caught.value)
