"""Cuts the clip of a recording of any length: the part around its loudest half second."""

from pathlib import Path

import numpy as np

from audiotag_jax.audio.crop import LoudestWindow, cut
from audiotag_jax.audio.decode import MAX_DURATION_S, stream_audio
from audiotag_jax.audio.level import is_silent
from audiotag_jax.audio.stream import Noted


def load_clip(
    path: str | Path, sample_rate_hz: int, length_samples: int, margin_samples: int = 0
) -> tuple[np.ndarray, str]:
    """Decodes and crops a file as `crop_loudest` does with a window of half a second, wherever in it that is.

    Returns float32 `[length_samples + 2 margin_samples]` and the note of the decoder, with "silent" if all samples of
    the recording in the crop are. Up to `MAX_DURATION_S` of a recording is in memory; a longer one is decoded twice.
    Raises AudioError.
    """
    limit = MAX_DURATION_S * sample_rate_hz
    loudest, num_samples = LoudestWindow(max(1, sample_rate_hz // 2)), 0
    kept: list[np.ndarray] | None = []
    for piece in (stream := Noted(stream_audio(path, sample_rate_hz))):
        num_samples += len(piece)
        if kept is not None:
            kept.append(piece)
        if num_samples > limit:
            loudest.add(np.concatenate(kept) if kept is not None else piece)
            kept = None
    if kept is not None:
        loudest = LoudestWindow(min(max(1, sample_rate_hz // 2), num_samples))
        loudest.add(np.concatenate(kept))
    start = loudest.crop_start(length_samples, num_samples)
    first, last = start - margin_samples, start + length_samples + margin_samples
    again = Noted(stream_audio(path, sample_rate_hz))
    crop = cut(again if kept is None else kept, first, last)
    inside = crop[max(0, -first) : num_samples - first]
    notes = (stream.note, again.note, "silent" if is_silent(inside) else "")
    return crop, "; ".join(filter(None, dict.fromkeys(notes)))
