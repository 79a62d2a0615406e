"""Decodes, downmixes and resamples sound files of any length; safe to call from many threads at once.

libsndfile decodes; what it does not read, FFmpeg does, where PyAV is installed. What a file contains is determined from
its own bytes (`sections`), not from the decoder's end of file.
"""

import contextlib
import os
import stat
from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np
import soxr

from audiotag_jax.audio import ffmpeg, sndfile
from audiotag_jax.audio.byte_view import ByteView
from audiotag_jax.audio.files import AUDIO_SUFFIXES
from audiotag_jax.audio.level import Mix
from audiotag_jax.audio.sections import find_streams, is_foreign
from audiotag_jax.audio.stream import AudioError as AudioError  # the name that others import
from audiotag_jax.audio.stream import Block, NoFramesError, Noted, Stream

VERSION = 2  # part of the names of prepared datasets: increment it when decoded or cropped samples change
MAX_DURATION_S = 600  # limits the memory of what is decoded in one piece
RATES_HZ = (100, 10_000_000)  # resampling from rates outside takes seconds, or makes minutes of a few samples


def load_audio(path: str | Path, sample_rate_hz: int = 22050) -> tuple[np.ndarray, str]:
    """Decodes a file to mono float32 `[N]`, N >= 1, the mean over channels, resampled by soxr HQ.

    Returns the samples and a note: empty, or what is missing, e.g. "truncated: 1.20 s of 3.00 s decoded". At most
    `MAX_DURATION_S` is decoded; `stream_audio` has no such limit. Memory use depends on the decoded length, not on the
    header. Raises AudioError if the file is missing, empty or unreadable, or contains NaN or infinite samples.
    """
    pieces, num_samples, limit = [], 0, MAX_DURATION_S * sample_rate_hz
    for piece in (stream := Noted(stream_audio(path, sample_rate_hz))):
        pieces.append(piece)
        num_samples += len(piece)
        if num_samples > limit:
            break
    if num_samples <= limit:
        return np.concatenate(pieces), stream.note
    total_s = expected_duration_s(path)
    total = f" of {total_s:.2f} s" if total_s > MAX_DURATION_S else ""
    return np.concatenate(pieces)[:limit], f"long: the first {MAX_DURATION_S:.2f} s{total} decoded"


def stream_audio(path: str | Path, sample_rate_hz: int) -> Generator[np.ndarray, None, str]:
    """Yields a file of any length as `load_audio` decodes it, in pieces of one or more samples; returns the note.

    Raises AudioError, also after some pieces: non-finite samples are found when they are reached.
    """
    return (yield from stream_blocks(read_blocks(path), sample_rate_hz))


def stream_blocks(sound: Generator[Block, None, str], sample_rate_hz: int) -> Generator[np.ndarray, None, str]:
    """Yields blocks of samples as `stream_audio` yields those of a file."""
    resampler, mix = None, Mix()
    for block in (blocks := Noted(sound)):
        mono = mix.add(block.samples)
        if resampler is None or resampler.rate_hz != block.rate_hz:
            if resampler is not None:
                yield from _checked(resampler.finish())
            resampler = _Resampler(block.rate_hz, sample_rate_hz)
        yield from _checked(resampler.add(mono))
    if resampler is not None:
        yield from _checked(resampler.finish())
    return "; ".join(filter(None, (blocks.note, mix.note)))


def read_blocks(path: str | Path) -> Generator[Block, None, str]:
    """Yields a file's samples in its own rates and channels, block by block; returns a note.

    A block's array is overwritten by the next. Streams behind each other, as in chained Ogg files, follow each other.
    Raises AudioError if the file is missing, no regular file, empty or unreadable.
    """
    path = Path(path)
    notes, error, has_samples = [], AudioError(""), False
    with _opened(path) as view:
        streams = find_streams(view)
        for number, stream in enumerate(streams, 1):
            try:
                with _open_stream(path, view, stream, len(streams) == 1) as sound:
                    for block in (blocks := Noted(sndfile.read_stream(sound, stream))):
                        _check_rate(block)
                        has_samples = True
                        yield block
                    notes.append(blocks.note)
            except AudioError as each:
                error = each
                notes.append(f"truncated: part {number} of {len(streams)} is not decoded, {each}")
        if not has_samples and isinstance(error, NoFramesError):
            raise error
        if not has_samples:
            return (yield from _read_with_ffmpeg(path, view, error))
    return "; ".join(filter(None, dict.fromkeys(notes)))


def expected_duration_s(path: str | Path) -> float:
    """Returns a file's length by its header; 0 if there is none, or libsndfile does not read it."""
    path = Path(path)
    with contextlib.suppress(AudioError), _opened(path), sndfile.open_stream(path) as sound:
        return sound.frames / sound.samplerate if sound.frames < sndfile.UNKNOWN_FRAMES else 0.0
    return 0.0


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[ByteView]:
    """Opens a regular file; pipes and devices are not opened, since reading them may wait for ever."""
    try:
        if not path.exists():
            raise AudioError("no such file")
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK) if stat.S_ISREG(path.stat().st_mode) else None
    except OSError as error:
        raise AudioError(f"unreadable ({error.strerror})") from error
    if descriptor is None:
        raise AudioError("unreadable (not a regular file)")
    try:
        size = os.fstat(descriptor).st_size
        if size == 0:
            raise AudioError("empty file")
        yield ByteView(descriptor, 0, size)
    except OSError as error:
        raise AudioError(f"unreadable ({error.strerror or error})") from error
    finally:
        os.close(descriptor)


def _open_stream(path: Path, view: ByteView, stream: Stream, is_only: bool) -> sndfile.SequentialFile:
    part = view.part(stream.start, stream.stop, stream.patches)  # without the tags before it
    if not is_only or stream.patches:
        sound = sndfile.open_stream(part)
    else:
        try:
            sound = sndfile.open_stream(path)
        except AudioError:
            if stream.start == 0:
                raise
            sound = sndfile.open_stream(part)
    if stream.header and sound.frames / sound.samplerate < (stream.held_s or 0):
        sound.close()
        return sndfile.open_stream(view.part(stream.start, stream.stop, stream.patches, stream.header))
    return sound


def _read_with_ffmpeg(path: Path, view: ByteView, error: AudioError) -> Generator[Block, None, str]:
    """Reads with FFmpeg what libsndfile has refused with `error`, or raises that error, with a hint if it may help."""
    may_help = is_foreign(view.read_at(0, 12)) or path.suffix.lower() not in AUDIO_SUFFIXES
    if not ffmpeg.is_installed():
        raise AudioError(f"{error}; {ffmpeg.HINT}" if may_help else str(error)) from error
    try:
        for block in (blocks := Noted(ffmpeg.read_with_ffmpeg(path))):
            _check_rate(block)
            yield block
        return blocks.note
    except AudioError as also:
        raise (also if may_help else error) from also
    except ImportError as broken:  # such as its libraries of FFmpeg are missing
        raise AudioError(f"{error}; PyAV cannot be loaded ({broken})" if may_help else str(error)) from broken


def _check_rate(block: Block) -> None:
    if not RATES_HZ[0] <= block.rate_hz <= RATES_HZ[1]:
        raise AudioError(f"unreadable (a sampling rate of {block.rate_hz} Hz)")


def _checked(samples: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the samples if there are any. Raises AudioError for non-finite ones, which resampling passes on."""
    if not np.isfinite(samples).all():
        raise AudioError("non-finite samples (NaN or infinity)")
    if len(samples):
        yield samples


class _Resampler:
    """Resamples mono pieces from one rate to another; equal rates pass."""

    def __init__(self, rate_hz: int, sample_rate_hz: int):
        self.rate_hz, self._to_hz, self._num_frames, self._soxr = rate_hz, sample_rate_hz, 0, None
        if rate_hz != sample_rate_hz:
            self._soxr = soxr.ResampleStream(rate_hz, sample_rate_hz, 1, dtype="float32", quality="HQ")

    def add(self, mono: np.ndarray) -> np.ndarray:
        self._num_frames += len(mono)
        return mono if self._soxr is None else self._soxr.resample_chunk(mono)

    def finish(self) -> np.ndarray:
        """Returns the last samples. Input shorter than one of them is padded with zeros to one."""
        if self._soxr is None:
            return np.zeros(0, np.float32)
        too_short = self._num_frames * self._to_hz < self.rate_hz
        padding = np.zeros(-(-self.rate_hz // self._to_hz) - self._num_frames if too_short else 0, np.float32)
        rest = self._soxr.resample_chunk(padding, last=True)
        return rest[:1] if too_short else rest
