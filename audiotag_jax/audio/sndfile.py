"""Reads streams with libsndfile."""

import os
from collections.abc import Generator
from pathlib import Path

import numpy as np
import soundfile

from audiotag_jax.audio.byte_view import ByteView
from audiotag_jax.audio.stream import AudioError, Block, NoFramesError, Stream

_BLOCK_FRAMES = 4096
UNKNOWN_FRAMES = 2**62  # libsndfile reports 2**63 - 1 if the header gives no length


class SequentialFile(soundfile.SoundFile):
    """A sound file that is read sequentially, without seeking.

    soundfile seeks after every read of a seekable file, which corrupts MP3 and Opus, whose decoders keep state between
    frames, and fails at the end of a FLAC file of unknown length.
    """

    def seekable(self) -> bool:
        return False


def open_stream(source: Path | ByteView) -> SequentialFile:
    """Opens a file by path, or a part of one. Raises AudioError if libsndfile does not read it."""
    try:  # bytes: names need not be UTF-8
        return SequentialFile(os.fsencode(source) if isinstance(source, Path) else source)
    except soundfile.LibsndfileError as error:
        raise AudioError(f"unreadable (libsndfile: {error.error_string})") from error
    except (OSError, TypeError) as error:  # TypeError: headerless formats
        raise AudioError(f"unreadable ({getattr(error, 'strerror', None) or error})") from error


def read_stream(sound: soundfile.SoundFile, stream: Stream) -> Generator[Block, None, str]:
    """Yields the samples of a stream in blocks, whose arrays are overwritten by the next, and returns a note.

    The note is empty, or what is missing. Raises AudioError if there are no samples.
    """
    num_frames, error = 0, ""
    buffer = np.empty((_BLOCK_FRAMES, sound.channels), np.float32)
    while not error:
        decoded, error = _read_block(sound, buffer)
        if len(decoded) == 0:
            break
        num_frames += len(decoded)
        yield Block(decoded, sound.samplerate, sound.subtype)
    if num_frames == 0:
        raise (
            AudioError(f"nothing could be decoded (libsndfile: {error})") if error else NoFramesError("no audio frames")
        )
    return _note(sound, stream, num_frames, error)


def _read_block(sound: soundfile.SoundFile, block: np.ndarray) -> tuple[np.ndarray, str]:
    """Fills `block [frames, channels]`; returns the frames read and the error that stopped reading ("": none)."""
    block.fill(np.nan)  # libsndfile decodes up to an error without reporting how far: the frames after it stay NaN
    try:
        return sound.read(out=block), ""
    except soundfile.LibsndfileError as error:
        unread = np.isnan(block[:, 0])
        num_read = int(unread.argmax()) if unread.any() else len(block)
        return block[:num_read], error.error_string or "decoder error"


def _note(sound: soundfile.SoundFile, stream: Stream, num_frames: int, error: str) -> str:
    decoded_s = num_frames / sound.samplerate
    has_length = sound.frames < UNKNOWN_FRAMES and not stream.is_estimated
    declared = round(sound.frames * stream.cut_share) if has_length else num_frames
    expected_s, held_s = declared / sound.samplerate, stream.held_s or 0.0
    if expected_s - decoded_s > 0.01:  # less may be the encoder's padding in lossy formats
        return f"truncated: {decoded_s:.2f} s of {expected_s:.2f} s decoded"
    if held_s - decoded_s > stream.slack_s:
        return f"truncated: {decoded_s:.2f} s of {held_s:.2f} s decoded"
    if error and has_length:
        return f"truncated: {decoded_s:.2f} s decoded, then {error}"
    if stream.is_cut or "lacks an end-of-stream bit" in sound.extra_info:  # Ogg
        return f"truncated: {decoded_s:.2f} s decoded, the end is missing"
    if decoded_s * stream.rest_share > 0.01:
        return f"longer than declared: {decoded_s * stream.rest_share:.2f} s behind the end by the header, not decoded"
    return ""
