"""Decodes, downmixes and resamples sound files; safe to call from many threads at once."""

import os
import re
from pathlib import Path

import numpy as np
import soundfile
import soxr

VERSION = 1  # part of the names of prepared datasets: increment it when decoded or cropped samples change
MAX_DURATION_S = 600  # limits memory for long recordings and false headers; the rest is not decoded
_BLOCK_FRAMES = 4096
_UNKNOWN_FRAMES = 2**62  # libsndfile reports 2**63 - 1 if the header gives no length
_PLACEHOLDER_BYTES = 0x7FFF0000  # streaming writers put 2**31 - 1, 2**32 - 1 or slightly less as length
_CUT_CHUNK = re.compile(r"^\s*(?:data|SSND|Data Size)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)


class AudioError(ValueError):
    """A sound file without usable samples; the message is a one-line reason without the file's name."""


class SequentialFile(soundfile.SoundFile):
    """A sound file that is read sequentially, without seeking.

    soundfile seeks after every read of a seekable file, which corrupts MP3 and Opus, whose decoders keep state between
    frames, and fails at the end of a FLAC file of unknown length.
    """

    def seekable(self) -> bool:
        return False


def load_audio(path: str | Path, sample_rate_hz: int = 22050) -> tuple[np.ndarray, str]:
    """Decodes any file libsndfile reads to mono float32 `[N]`, N >= 1, the mean over channels, resampled by soxr HQ.

    Returns the samples and a note: empty, or what is missing, e.g. "truncated: 1.20 s of 3.00 s decoded". At most
    `MAX_DURATION_S` is decoded; memory use depends on the decoded length, not on the header.
    Raises AudioError if the file is missing, empty or unreadable, or contains NaN or infinite samples.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise AudioError("no such file")
        if path.stat().st_size == 0:
            raise AudioError("empty file")
        sound = SequentialFile(os.fsencode(path))  # bytes: names need not be UTF-8
    except soundfile.LibsndfileError as error:
        raise AudioError(f"unreadable (libsndfile: {error.error_string})") from error
    except (OSError, TypeError) as error:  # TypeError: headerless formats
        raise AudioError(f"unreadable ({getattr(error, 'strerror', None) or error})") from error
    with sound:
        samples, num_frames, broke_off = _decode(sound, sample_rate_hz)
        if not np.isfinite(samples).all():  # resampling passes them on
            raise AudioError("non-finite samples (NaN or infinity)")
        return samples, _note(sound, num_frames, broke_off)


def _decode(sound: soundfile.SoundFile, sample_rate_hz: int) -> tuple[np.ndarray, int, str]:
    """Returns mono samples at `sample_rate_hz`, the number of frames decoded, and what error ended it ("": none)."""
    rate_hz, num_frames, error = sound.samplerate, 0, ""
    resampler = None
    if rate_hz != sample_rate_hz:
        resampler = soxr.ResampleStream(rate_hz, sample_rate_hz, 1, dtype="float32", quality="HQ")
    block = np.empty((_BLOCK_FRAMES, sound.channels), np.float32)
    chunks = []
    while not error and num_frames < MAX_DURATION_S * rate_hz:
        decoded, error = _read_block(sound, block[: MAX_DURATION_S * rate_hz - num_frames])
        if len(decoded) == 0:
            break
        with np.errstate(over="ignore", invalid="ignore"):
            mono = decoded.mean(axis=1)
        num_frames += len(mono)
        chunks.append(mono if resampler is None else resampler.resample_chunk(mono))
    if num_frames == 0:
        raise AudioError(f"nothing could be decoded (libsndfile: {error})" if error else "no audio frames")
    if resampler is not None:
        # Input shorter than one output sample resamples to nothing, so it is padded with zeros to one sample.
        too_short = num_frames * sample_rate_hz < rate_hz
        padding = np.zeros(-(-rate_hz // sample_rate_hz) - num_frames if too_short else 0, np.float32)
        chunks.append(resampler.resample_chunk(padding, last=True))
        if too_short:
            chunks = [np.concatenate(chunks)[:1]]
    return np.concatenate(chunks), num_frames, error


def _read_block(sound: soundfile.SoundFile, block: np.ndarray) -> tuple[np.ndarray, str]:
    """Fills `block [frames, channels]`; returns the frames read and the error that stopped reading ("": none)."""
    block.fill(np.nan)  # libsndfile decodes up to an error without reporting how far: the frames after it stay NaN
    try:
        return sound.read(out=block), ""
    except soundfile.LibsndfileError as error:
        unread = np.isnan(block[:, 0])
        num_read = int(unread.argmax()) if unread.any() else len(block)
        return block[:num_read], error.error_string or "decoder error"


def _note(sound: soundfile.SoundFile, num_frames: int, error: str) -> str:
    """Returns what is missing from the decoded samples as text; "" if nothing is known to be missing."""
    decoded_s = num_frames / sound.samplerate
    declared = sound.frames if sound.frames < _UNKNOWN_FRAMES else num_frames
    info = sound.extra_info
    # libsndfile silently shortens a truncated WAV, AIFF or AU; only its log of the header has the declared length.
    cut = _CUT_CHUNK.search(info)
    if cut and int(cut[2]) < int(cut[1]) < _PLACEHOLDER_BYTES:
        declared = max(declared, round(declared * int(cut[1]) / max(int(cut[2]), 1)))
    declared_s = declared / sound.samplerate
    if num_frames >= MAX_DURATION_S * sound.samplerate:
        return f"long: the first {decoded_s:.2f} s of {declared_s:.2f} s decoded" if declared > num_frames else ""
    if declared_s - decoded_s > 0.01:  # less may be the encoder's padding in lossy formats
        return f"truncated: {decoded_s:.2f} s of {declared_s:.2f} s decoded"
    if error and sound.frames < _UNKNOWN_FRAMES:
        return f"truncated: {decoded_s:.2f} s decoded, then {error}"
    if "lacks an end-of-stream bit" in info:  # a truncated Ogg file has no total length
        return f"truncated: {decoded_s:.2f} s decoded, the end is missing"
    return ""
