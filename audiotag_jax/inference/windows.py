"""The files to tag, and the windows that they are cut into, read in bounded memory."""

import dataclasses
import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from audiotag_jax.audio.crop import crop_loudest
from audiotag_jax.audio.decode import AudioError, expected_duration_s, stream_audio
from audiotag_jax.audio.files import describe_left_out, list_sounds, readable_suffixes
from audiotag_jax.audio.level import is_silent
from audiotag_jax.audio.stream import Noted
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.progress import log

_AHEAD = 16  # windows


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
    """A window to tag. The last one also describes the recording; an unreadable one has a single item without times."""

    path: str
    start_s: float | None = None
    end_s: float | None = None
    waveform: np.ndarray | None = None  # [N] float32; None: silent
    is_last: bool = False  # of the recording
    duration_s: float | None = None  # of the recording; None: it could not be read, or has more windows
    note: str = ""  # of the last


def find_files(audio: Sequence[str]) -> list[Path]:
    """The files named, and the sound files below the folders named, hidden ones left out; each once, in this order.

    Raises UserError if there are none.
    """
    found: list[Path] = []
    for name in audio:
        if not Path(name).is_dir():
            found.append(Path(name))
            continue
        listing = list_sounds(Path(name))
        for line in describe_left_out(listing):
            log(line)
        if not listing.files:
            log(f"{name}: no sound files in this folder")
        found += listing.files
    if not found:
        raise UserError(
            f"There is nothing to tag{' in ' + ', '.join(map(str, audio)) if audio else ': --audio is missing'}.\n"
            f"Name a file, or a folder of files of the kinds {', '.join(readable_suffixes())}."
        )
    return list(dict.fromkeys(found))


def read_windows(files: Sequence[Path], window_options: WindowOptions) -> Iterator[Item]:
    """Yields the windows of all files in order, one at least of each, decoded ahead of their use.

    Of a recording, however long, little more than the windows that are decoded ahead is in memory.
    """
    items = itertools.chain.from_iterable(_items(path, window_options) for path in files)
    with ThreadPoolExecutor(1) as pool:
        pending = deque(pool.submit(next, items, None) for _ in range(_AHEAD))
        try:
            while (item := pending.popleft().result()) is not None:
                pending.append(pool.submit(next, items, None))
                yield item
        finally:
            for future in pending:
                future.cancel()


def expected_windows(path: Path, window_options: WindowOptions) -> int:
    """Estimates a file's number of windows from its header, for a progress bar."""
    num_samples = round(expected_duration_s(path) * window_options.sample_rate_hz)
    last = max(0, num_samples - window_options.length_samples)
    return len(range(0, last, window_options.hop_samples)) + 1


def window_starts(num_samples: int, length_samples: int, hop_samples: int, first: int = 0) -> list[int]:
    """Returns the first samples of a recording's windows: every hop, and one window that ends with the recording.

    The latter replaces one that it differs from by less than a hundredth of its length. Those before `first`, a
    multiple of the hop, are left out.
    """
    last = max(0, num_samples - length_samples)
    starts = list(range(first, last, hop_samples))
    if starts and last - starts[-1] < length_samples / 100:
        starts.pop()
    return [*starts, last]


def _items(path: Path, window_options: WindowOptions) -> Iterator[Item]:
    rate_hz, length, hop = window_options.sample_rate_hz, window_options.length_samples, window_options.hop_samples
    samples, position, start = np.zeros(0, np.float32), 0, 0  # samples from `position` on; the next window's start
    new: list[np.ndarray] = []  # pieces behind them: joined one by one, a long window would be copied for each
    num_new = 0
    enough = length + -(-length // 100)  # from a window's start on, so that it is none of the last

    def item(begin: int, end: int, **last) -> Item:
        # One window is cropped as in training: what is shorter is centred in zeros.
        window = samples[begin - position : end - position]
        waveform = None if is_silent(window) else crop_loudest(window, length, rate_hz // 2)  # a copy
        return Item(str(path), begin / rate_hz, end / rate_hz, waveform, **last)

    stream, error = Noted(stream_audio(path, rate_hz)), ""
    try:
        for piece in stream:
            new.append(piece)
            num_new += len(piece)
            if num_new < length and position + len(samples) + num_new < start + enough:
                continue
            samples, new, num_new = np.concatenate([samples, *new]), [], 0
            while position + len(samples) >= start + enough:
                yield item(start, start + length)
                start += hop
            unused = max(0, min(start - position, len(samples) - length))
            samples, position = samples[unused:], position + unused
    except AudioError as each:
        error = str(each)
        if start == 0:
            yield Item(str(path), is_last=True, note=error)
            return
    samples = np.concatenate([samples, *new])
    total = position + len(samples)
    note = f"truncated: {total / rate_hz:.2f} s tagged, then {error}" if error else stream.note
    starts = window_starts(total, length, hop, start)
    if start == 0 and len(starts) == 1:
        starts, length_of_last = [0], total
    else:
        length_of_last = length
    for begin in starts[:-1]:
        yield item(begin, begin + length)
    yield item(starts[-1], starts[-1] + length_of_last, is_last=True, duration_s=total / rate_hz, note=note)
