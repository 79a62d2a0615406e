"""The files to tag, and the windows that they, or waveforms, are cut into, read in bounded memory."""

import dataclasses
import itertools
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from audiotag_jax.audio.crop import crop_loudest
from audiotag_jax.audio.decode import RATES_HZ, AudioError, expected_duration_s, stream_audio, stream_blocks
from audiotag_jax.audio.files import describe_left_out, list_sounds, readable_suffixes
from audiotag_jax.audio.level import is_silent
from audiotag_jax.audio.stream import Block, Noted
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.progress import log

_AHEAD = 16  # windows
_MOST_CHANNELS = 256  # of a waveform; more are samples in the wrong place
_SHOWN = 5  # wrong paths in an error


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
    """Returns the files named, and the sound files below the folders named, hidden ones left out; each once, in order.

    Raises UserError if there are none, or if one that is named does not exist.
    """
    missing = [name for name in audio if not Path(name).exists()]
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise UserError(
            f"There is no {', '.join(missing[:_SHOWN])}{more}: {len(missing)} of {len(audio)} paths of --audio.\n"
            "Correct them, or name a folder. (Quote a path with spaces.)"
        )
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
    rate_hz = window_options.sample_rate_hz
    items = itertools.chain.from_iterable(
        _items(str(path), stream_audio(path, rate_hz), window_options) for path in files
    )
    with ThreadPoolExecutor(1) as pool:
        pending = deque(pool.submit(next, items, None) for _ in range(_AHEAD))
        try:
            while (item := pending.popleft().result()) is not None:
                pending.append(pool.submit(next, items, None))
                yield item
        finally:
            for future in pending:
                future.cancel()


def waveform_windows(waveform: np.ndarray, rate_hz: int, window_options: WindowOptions) -> Iterator[Item]:
    """Yields the windows of samples in memory as `read_windows` yields those of a file.

    `waveform` is [n] or [n, channels], of floats or of int8, int16 or int32, which are divided by their range, at
    any `rate_hz`. Raises ValueError on other shapes, types and rates, and on NaN and infinity.
    """
    samples = np.asarray(waveform)
    if samples.dtype.kind not in "fi" or samples.dtype == np.int64 or samples.ndim not in (1, 2) or not samples.size:
        wanted = "samples [n] or [n, channels] of floats or of int8, int16 or int32"
        raise ValueError(f"expected {wanted}, not {samples.dtype} {list(samples.shape)}")
    if samples.ndim == 2 and samples.shape[1] > _MOST_CHANNELS:
        raise ValueError(f"expected samples [n, channels], not {list(samples.shape)}; transpose them")
    if not RATES_HZ[0] <= rate_hz <= RATES_HZ[1]:
        raise ValueError(f"rate_hz is {rate_hz}; it must be {RATES_HZ[0]} to {RATES_HZ[1]}")
    full_scale = 1.0 if samples.dtype.kind == "f" else -float(np.iinfo(samples.dtype).min)
    block = Block((samples / full_scale).astype(np.float32).reshape(len(samples), -1), int(rate_hz), "")

    def blocks() -> Generator[Block, None, str]:
        yield block
        return ""

    items = list(_items("", stream_blocks(blocks(), window_options.sample_rate_hz), window_options))
    if items[-1].duration_s is None or items[-1].note.startswith("truncated"):
        raise ValueError(f"cannot tag the waveform: {items[-1].note}")
    yield from items


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


def _items(path: str, pieces: Generator[np.ndarray, None, str], window_options: WindowOptions) -> Iterator[Item]:
    rate_hz, length, hop = window_options.sample_rate_hz, window_options.length_samples, window_options.hop_samples
    samples, position, start = np.zeros(0, np.float32), 0, 0  # samples from `position` on; the next window's start
    new: list[np.ndarray] = []  # pieces behind them: joined one by one, a long window would be copied for each
    num_new = 0
    enough = length + -(-length // 100)  # from a window's start on, so that it is none of the last

    def item(begin: int, end: int, **last) -> Item:
        # One window is cropped as in training: what is shorter is centred in zeros.
        window = samples[begin - position : end - position]
        waveform = None if is_silent(window) else crop_loudest(window, length, rate_hz // 2)  # a copy
        return Item(path, begin / rate_hz, end / rate_hz, waveform, **last)

    stream, error = Noted(pieces), ""
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
            yield Item(path, is_last=True, note=error)
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
