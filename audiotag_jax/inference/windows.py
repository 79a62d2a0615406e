"""The files to tag, and the windows that they are cut into, read in bounded memory."""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import soundfile

from audiotag_jax.audio.crop import crop_loudest
from audiotag_jax.audio.decode import MAX_DURATION_S, AudioError, load_audio
from audiotag_jax.audio.files import AUDIO_SUFFIXES, audio_files
from audiotag_jax.audio.level import is_silent
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.progress import log


@dataclasses.dataclass(frozen=True)
class WindowOptions:
    """How recordings become windows."""

    sample_rate_hz: int
    length_samples: int  # N
    hop_samples: int

    @property
    def hop_s(self) -> float:
        return self.hop_samples / self.sample_rate_hz


@dataclasses.dataclass(frozen=True)
class Item:
    """A window to tag; a recording that could not be read has one without times."""

    number: int  # of the recording
    path: str
    duration_s: float | None
    note: str
    start_s: float | None = None
    end_s: float | None = None
    waveform: np.ndarray | None = None  # [N] float32; None: silent


def find_files(audio: Sequence[str]) -> list[Path]:
    """The files named, and the sound files below the folders named, hidden ones left out; each once, in this order.

    Raises UserError if there are none.
    """
    found: list[Path] = []
    for name in audio:
        below = audio_files(Path(name)) if Path(name).is_dir() else [Path(name)]
        if not below:
            log(f"{name}: no sound files in this folder")
        found += below
    if not found:
        raise UserError(
            f"There is nothing to tag{' in ' + ', '.join(map(str, audio)) if audio else ''}.\n"
            f"Name files, or folders that hold files of the kinds {', '.join(AUDIO_SUFFIXES)}."
        )
    return list(dict.fromkeys(found))


def read_windows(files: Sequence[Path], window_options: WindowOptions) -> Iterator[Item]:
    """The windows of all files in order, one at least of each; decoded ahead of their use.

    At any time one or two recordings are in memory, of each no more than `audio.decode.MAX_DURATION_S`.
    """
    for number, (path, samples, note) in enumerate(_decoded(files, window_options.sample_rate_hz)):
        yield from _items(number, path, samples, note, window_options)


def expected_windows(path: Path, window_options: WindowOptions) -> int:
    """Estimates a file's number of windows from its header, for a progress bar."""
    try:
        info = soundfile.info(os.fsencode(path))
        duration_s = min(info.frames / info.samplerate, MAX_DURATION_S)
    except (RuntimeError, OSError, TypeError, ValueError, ZeroDivisionError):
        return 1
    return len(
        window_starts(
            round(duration_s * window_options.sample_rate_hz), window_options.length_samples, window_options.hop_samples
        )
    )


def window_starts(num_samples: int, length_samples: int, hop_samples: int) -> list[int]:
    """The first samples of a recording's windows: every hop, and one window that ends with the recording.

    The latter takes the place of one that it differs from by less than a hundredth of its length.
    """
    last = max(0, num_samples - length_samples)
    starts = list(range(0, last, hop_samples))
    if starts and last - starts[-1] < length_samples / 100:
        starts.pop()
    return [*starts, last]


def _decoded(files: Sequence[Path], rate_hz: int) -> Iterator[tuple[Path, np.ndarray | None, str]]:
    """Path, samples and note of each file, decoded one ahead; without samples the note has the reason."""

    def decode(path: Path):
        try:
            return path, *load_audio(path, rate_hz)
        except AudioError as error:
            return path, None, str(error)

    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(decode, files[0])
        for file in files[1:]:
            result = pending.result()
            pending = pool.submit(decode, file)
            yield result
        yield pending.result()


def _items(
    number: int, path: Path, samples: np.ndarray | None, note: str, window_options: WindowOptions
) -> Iterator[Item]:
    if samples is None:
        yield Item(number, str(path), None, note)
        return
    rate_hz, length = window_options.sample_rate_hz, window_options.length_samples
    duration_s = len(samples) / rate_hz
    starts = window_starts(len(samples), length, window_options.hop_samples)
    for start in starts:
        # One window is cropped as in training: what is shorter lies in the middle of silence.
        window = samples[start : start + length] if len(starts) > 1 else samples
        waveform = (
            None if is_silent(window) else crop_loudest(window, length, rate_hz // 2)
        )  # a copy, so that the recording can be freed
        start_s = start / rate_hz if len(starts) > 1 else 0.0
        yield Item(number, str(path), duration_s, note, start_s, start_s + len(window) / rate_hz, waveform)
