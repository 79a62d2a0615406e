"""Reads with FFmpeg, through PyAV, what libsndfile does not read: AAC, WMA, MP4, WebM and others. PyAV is optional."""

import importlib.util
from collections.abc import Generator
from pathlib import Path

import numpy as np

from audiotag_jax.audio.stream import AudioError, Block

HINT = "`pip install av` to read more formats"
# Containers of sound only: others, such as playlists, name further files.
_CONTAINERS = (
    "aac,ac3,eac3,aiff,amr,ape,asf,au,avi,caf,dsf,flac,flv,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mp3,mpeg,mpegts,ogg,"
    "rm,tak,tta,voc,w64,wav,wv"
)


def is_installed() -> bool:
    """Returns whether PyAV can be imported."""
    return importlib.util.find_spec("av") is not None


def read_with_ffmpeg(path: Path) -> Generator[Block, None, str]:
    """Yields the samples of a file's first sound stream in blocks and returns a note. Raises AudioError, ImportError.

    Packets that cannot be decoded are left out, with a note.
    """
    import av

    num_frames, rate_hz, damaged, expected_s = 0, 0, 0, 0.0
    try:
        options = {"format_whitelist": _CONTAINERS}
        with path.open("rb") as file, av.open(file, options=options, metadata_errors="replace") as container:
            if not container.streams.audio:
                raise AudioError("unreadable (FFmpeg: no sound in it)")
            stream = container.streams.audio[0]
            if stream.duration and stream.time_base:
                expected_s = float(stream.duration * stream.time_base)
            for packet in container.demux(stream):
                try:
                    frames = packet.decode()
                except av.FFmpegError:
                    damaged += 1
                    continue
                for frame in frames:
                    num_frames, rate_hz = num_frames + frame.samples, frame.sample_rate
                    yield Block(_samples(frame), rate_hz, stream.codec_context.name)
    except av.FFmpegError as error:
        reason = error.strerror or type(error).__name__
        if num_frames == 0:
            raise AudioError(f"unreadable (FFmpeg: {reason})") from error
        return f"truncated: {num_frames / rate_hz:.2f} s decoded, then {reason}"
    if num_frames == 0:
        raise AudioError("nothing could be decoded (FFmpeg)" if damaged else "no audio frames")
    decoded_s = num_frames / rate_hz
    if expected_s - decoded_s > 0.1:
        return f"truncated: {decoded_s:.2f} s of {expected_s:.2f} s decoded"
    return f"truncated: {damaged} damaged packets left out" if damaged else ""


def _samples(frame) -> np.ndarray:
    """Converts a frame of any sample format to `[frames, channels]` float32, full scale at 1."""
    array, num_channels = frame.to_ndarray(), len(frame.layout.channels)
    array = array.T if frame.format.is_planar else array.reshape(-1, num_channels)
    if array.dtype == np.uint8:
        return (array.astype(np.float32) - 128) / 128
    if array.dtype.kind == "i":
        return array.astype(np.float32) / np.float32(2.0 ** (8 * array.itemsize - 1))
    return array.astype(np.float32)
