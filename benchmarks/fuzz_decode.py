"""Damages sound files of all formats and checks that decoding reports what it loses, without a crash or a hang.

    python benchmarks/fuzz_decode.py [--files=1000] [--seed=0] [--keep=FOLDER]

Headers get wrong bytes and lengths; files are cut, joined, overwritten, lengthened. Decoding runs in a process of its
own. A file fails if that process ends, if decoding takes more than 2 s or raises anything but AudioError, or if fewer
seconds come out than FFmpeg decodes (by PyAV, where it is installed) and neither a note nor an error reports it.
"""

import argparse
import collections
import contextlib
import io
import multiprocessing
import os
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).parents[1]))

from audiotag_jax.audio.decode import AudioError, load_audio  # noqa: E402

MOST_S = 2.0  # to decode a file
SLACK_S = 0.4  # between two decoders: delays and padding of lossy formats, most at 8 kHz
FORMATS = {  # by suffix: libsndfile's format, sample formats, rates
    "wav": ("WAV", ("PCM_16", "PCM_24", "FLOAT", "PCM_U8", "ULAW", "IMA_ADPCM", "MS_ADPCM"), (8000, 22050, 44100)),
    "wavex.wav": ("WAVEX", ("PCM_16", "PCM_32"), (16000, 48000)),
    "rf64": ("RF64", ("PCM_16",), (22050,)),
    "w64": ("W64", ("PCM_16",), (22050,)),
    "aif": ("AIFF", ("PCM_16", "PCM_24"), (22050, 44100)),
    "au": ("AU", ("PCM_16", "ULAW"), (8000, 22050)),
    "caf": ("CAF", ("PCM_16", "ALAC_16"), (22050, 44100)),
    "flac": ("FLAC", ("PCM_16", "PCM_24"), (16000, 44100)),
    "mp3": ("MP3", ("MPEG_LAYER_III",), (8000, 22050, 44100)),
    "ogg": ("OGG", ("VORBIS",), (22050, 44100)),
    "opus": ("OGG", ("OPUS",), (16000, 48000)),
}
FFMPEG_FORMATS = {  # by suffix: FFmpeg's container and encoder, rate
    "m4a": ("mp4", "aac", 44100),
    "webm": ("webm", "libopus", 48000),
    "aac": ("adts", "aac", 44100),
    "mka": ("matroska", "flac", 22050),
    "noxing.mp3": ("mp3", "libmp3lame", 22050),
    "ac3": ("ac3", "ac3", 48000),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the files that fail")
    options = parser.parse_args()
    outcomes: collections.Counter[str] = collections.Counter()
    longest_s, failures = 0.0, 0
    with tempfile.TemporaryDirectory(prefix="fuzz.") as folder, Worker() as worker:
        for path, what in damaged_files(Path(folder), options.files, options.seed):
            outcome, note, seconds = worker.decode(path)
            longest_s = max(longest_s, seconds)
            outcomes[outcome] += 1
            if outcome.startswith("FAILED"):
                failures += 1
                print(f"{path.name}, {what}: {outcome}: {note}", flush=True)
                if options.keep:
                    options.keep.mkdir(parents=True, exist_ok=True)
                    (options.keep / path.name).write_bytes(path.read_bytes())
            path.unlink()
    for outcome, count in outcomes.most_common():
        print(f"{count:6d} {outcome}")
    print(f"{options.files} files, {failures} failed; the longest took {longest_s:.2f} s")
    sys.exit(failures > 0)


# Files.


def damaged_files(folder: Path, count: int, seed: int) -> Iterator[tuple[Path, str]]:
    """Writes files one by one to `folder`; yields their paths and what was done to them."""
    rng = np.random.default_rng(seed)
    wholes = list(whole_files(rng))
    for number in range(count):
        name, data = wholes[number % len(wholes)]
        damage = DAMAGES[(number // len(wholes)) % len(DAMAGES)]
        others = [other for suffix, other in wholes if suffix == name]
        path = folder / f"{number:04d}.{name}"
        path.write_bytes(damage(rng, data, others))
        yield path, damage.__name__


def whole_files(rng: np.random.Generator, *, one_each: bool = False) -> Iterator[tuple[str, bytes]]:
    """Yields suffixes and contents of intact files of 0.5 to 3 s; with `one_each` one of each suffix."""
    for suffix, (kind, subtypes, rates) in FORMATS.items():
        for subtype in subtypes[:1] if one_each else subtypes:
            for rate_hz in rates[:1] if one_each else rates:
                channels = 1 if "ADPCM" in subtype else int(rng.integers(1, 3))
                sound, file = noise(rng, rate_hz, channels), io.BytesIO()
                soundfile.write(file, sound, rate_hz, subtype, format=kind)
                yield suffix, file.getvalue()
    with contextlib.suppress(ImportError):
        for suffix, (kind, codec, rate_hz) in FFMPEG_FORMATS.items():
            yield suffix, encode(noise(rng, rate_hz, 1)[:, 0], kind, codec, rate_hz)


def noise(rng: np.random.Generator, rate_hz: int, channels: int) -> np.ndarray:
    """Returns noise and a tone, `[frames, channels]`."""
    num_frames = int(rng.uniform(0.5, 3) * rate_hz)
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(num_frames) / rate_hz)
    return (tone[:, None] + rng.normal(0, 0.05, (num_frames, channels))).astype(np.float32)


def encode(samples: np.ndarray, container: str, codec: str, rate_hz: int) -> bytes:
    """Encodes samples with FFmpeg. Raises ImportError without PyAV."""
    import av

    file = io.BytesIO()
    options = {"write_xing": "0", "id3v2_version": "0"} if container == "mp3" else {}
    with av.open(file, "w", format=container, options=options) as output:
        stream = output.add_stream(codec, rate=rate_hz, layout="mono")
        kind = stream.codec_context.codec.audio_formats[0].name
        full_scale, dtype = {"s16": (32767, np.int16), "s32": (2**31 - 1, np.int32)}.get(kind[:3], (1, np.float32))
        scaled = (samples * full_scale).astype(dtype)
        size = stream.codec_context.frame_size or 1024
        for start in range(0, len(samples) - size + 1, size):
            frame = av.AudioFrame.from_ndarray(scaled[None, start : start + size], format=kind, layout="mono")
            frame.sample_rate, frame.pts = rate_hz, start
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return file.getvalue()


# Damages: functions of a generator, the file, and all files of its kind.


def nothing(rng, data: bytes, others) -> bytes:
    return data


def cut(rng, data: bytes, others) -> bytes:
    return data[: rng.integers(1, len(data))]


def cut_in_the_header(rng, data: bytes, others) -> bytes:
    return data[: rng.integers(1, min(len(data), 300))]


def bytes_of_the_header(rng, data: bytes, others) -> bytes:
    changed = bytearray(data)
    for at in rng.integers(0, min(len(data), 120), rng.integers(1, 6)):
        changed[at] = rng.integers(256)
    return bytes(changed)


def length_of_the_header(rng, data: bytes, others) -> bytes:
    changed, at = bytearray(data), int(rng.integers(0, min(len(data), 100)))
    value = int(rng.choice([0, 1, 2**32 - 1, 2**31 - 1, len(data) // 2, len(data) * 2, rng.integers(2**32)]))
    changed[at : at + 4] = struct.pack(rng.choice(["<I", ">I"]), value)
    return bytes(changed[: len(data)])


def false_lengths(rng, data: bytes, others) -> bytes:
    """Replaces the length of a chunk that contains the samples, or the count of frames."""
    changed = bytearray(data)
    fields = ((b"data", 4), (b"SSND", 4), (b"COMM", 10), (b".snd", 8), (b"RIFF", 4), (b"Xing", 8), (b"Info", 8))
    for marker, offset in (*fields, (b"ds64", 16), (b"mdat", -4), (b"fLaC", 22)):
        at = data.find(marker)
        if at >= 0 and at + offset + 4 <= len(data):
            value = int(rng.choice([0, 2**32 - 1, len(data) // 3, len(data) * 3]))
            changed[at + offset : at + offset + 4] = struct.pack(rng.choice(["<I", ">I"]), value)
    return bytes(changed)


def overwritten(rng, data: bytes, others) -> bytes:
    at, size = rng.integers(0, len(data)), rng.integers(1, 2000)
    return data[:at] + rng.bytes(min(size, len(data) - at)) + data[at + size :]


def zeros_in_the_middle(rng, data: bytes, others) -> bytes:
    at, size = rng.integers(0, len(data)), rng.integers(1, 9000)
    return data[:at] + bytes(min(size, len(data) - at)) + data[at + size :]


def a_part_is_missing(rng, data: bytes, others) -> bytes:
    at = rng.integers(0, len(data))
    return data[:at] + data[at + rng.integers(1, 5000) :]


def junk_in_the_middle(rng, data: bytes, others) -> bytes:
    at = rng.integers(0, len(data))
    return data[:at] + rng.bytes(rng.integers(1, 9000)) + data[at:]


def junk_before(rng, data: bytes, others) -> bytes:
    return rng.bytes(rng.integers(1, 3000)) + data


def junk_behind(rng, data: bytes, others) -> bytes:
    return data + rng.bytes(rng.integers(1, 60_000))


def joined(rng, data: bytes, others) -> bytes:
    return data + others[rng.integers(len(others))]


def the_end_only(rng, data: bytes, others) -> bytes:
    return data[rng.integers(1, len(data)) :]


DAMAGES: tuple[Callable, ...] = (
    *(nothing, false_lengths, cut, bytes_of_the_header, joined, length_of_the_header, overwritten, cut_in_the_header),
    *(junk_in_the_middle, a_part_is_missing, junk_behind, zeros_in_the_middle, junk_before, the_end_only),
)


# Decoding.


def check(path: Path) -> tuple[str, str, float]:
    """Decodes a file; returns the outcome, a text and how long it took."""
    start = time.monotonic()
    try:
        samples, note = load_audio(path, 16000)
        outcome, decoded_s = "with a note" if note else "whole", len(samples) / 16000
    except AudioError as error:
        outcome, decoded_s, note = "error", 0.0, str(error)
    except Exception as error:  # what must not happen
        return f"FAILED with {type(error).__name__}", str(error), time.monotonic() - start
    seconds = time.monotonic() - start
    if "\n" in note:
        return "FAILED: several lines", note, seconds
    if seconds > MOST_S:
        return "FAILED: too slow", f"{seconds:.1f} s", seconds
    if outcome == "whole":
        other_s = ffmpeg_s(path)
        if other_s - decoded_s > SLACK_S:
            return "FAILED: shorter than by FFmpeg", f"{decoded_s:.2f} s, not {other_s:.2f} s, and no note", seconds
    return outcome, note, seconds


def ffmpeg_s(path: Path) -> float:
    """Returns how many seconds FFmpeg decodes up to its first error; 0 without PyAV."""
    try:
        import av
    except ImportError:
        return 0.0
    seconds = 0.0
    with contextlib.suppress(av.FFmpegError, IndexError, ValueError), av.open(str(path)) as container:
        for frame in container.decode(container.streams.audio[0]):
            seconds += frame.samples / frame.sample_rate
    return seconds


def _serve(connection) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libmpg123 writes to it
    while path := connection.recv():
        connection.send(check(path))


class Worker:
    """Decodes in another process, which is started again after a crash or a hang."""

    def __enter__(self):
        self._start()
        return self

    def __exit__(self, *_):
        self._process.kill()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other,), daemon=True)
        self._process.start()
        other.close()

    def decode(self, path: Path) -> tuple[str, str, float]:
        self._connection.send(path)
        try:
            if self._connection.poll(60):
                return self._connection.recv()
            reason = "FAILED: it hangs"
        except (EOFError, ConnectionError):
            reason = "FAILED: the process has ended"
        self._process.kill()
        self._start()
        return reason, "", 60.0


if __name__ == "__main__":
    main()
