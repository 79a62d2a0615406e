"""Mode `predict`: tags for any recordings, window by window, by a trained run; its directory alone is needed."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from audiotag_jax.audio import MAX_DURATION_S, AudioError, crop_loudest, load_audio
from audiotag_jax.datasets.folder import AUDIO_SUFFIXES, audio_files
from audiotag_jax.errors import UserError
from audiotag_jax.files import locked
from audiotag_jax.progress import progress, say
from audiotag_jax.tagged import Naming, Tagged, Window, format_line, write_tables
from audiotag_jax.tagger import Tagger, load_tagger

BATCH_WINDOWS = 8  # tagged together: one compiled program, whatever comes
SILENCE_DBFS = -80.0  # a window that never gets further from its mean than this holds dither at most
LEAST_HOP_S = 0.01
_CHUNK_ITEMS = 1000  # at most wait for a batch to fill up
_LINES = 20  # of the table that is printed


@dataclasses.dataclass(frozen=True)
class Item:
    """A window to be tagged; of a recording that could not be read there is one without times."""

    number: int  # of the recording
    path: str
    duration_s: float | None
    note: str
    start_s: float | None = None
    end_s: float | None = None
    waveform: np.ndarray | None = None  # [N] float32; None: silent


def run(
    workdir: Path,
    audio: Sequence[str],
    *,
    top: int = 3,
    threshold: float = 0.0,
    hop_s: float = 0.0,
    out: Path | None = None,
) -> None:
    """Tags files, and all sound files below folders, and writes tables to `out`, by default `workdir/predicted`.

    A recording up to a clip's length is one window, as in training; a longer one is windows every `hop_s` (0: a clip's
    length), the last of which ends with the recording. A recording's answer is the mean over its windows that sound.
    A tag less probable than `threshold` becomes "none of these". Raises UserError if nothing can be read.
    """
    _check(top, threshold, hop_s)
    files = find_files(audio)
    tagger = load_tagger(workdir)
    out = out or workdir / "predicted"
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; name a folder for the tables.")
    naming = Naming(tagger.classes, min(top, len(tagger.classes)), threshold)
    hop_samples = max(1, round((hop_s or tagger.duration_s) * tagger.sample_rate_hz))
    say(_introduction(tagger))
    lines: list[str] = []
    with locked(out, "writing to"):
        recordings = _reported(tag_recordings(files, tagger, hop_samples), naming, lines)
        write_tables(out, recordings, naming, _about(tagger, naming, hop_samples))
    say("\n".join(lines))
    say(f"written to {out}: predictions.csv, windows.csv, predictions.json")


def find_files(audio: Sequence[str]) -> list[Path]:
    """The files named, and the sound files below the folders named, hidden ones left out; each once, in this order.

    Raises UserError if there are none.
    """
    found: list[Path] = []
    for name in audio:
        below = audio_files(Path(name)) if Path(name).is_dir() else [Path(name)]
        if not below:
            say(f"{name}: no sound files in this folder")
        found += below
    if not found:
        raise UserError(
            f"There is nothing to tag{' in ' + ', '.join(map(str, audio)) if audio else ''}.\n"
            f"Name files, or folders that hold files of the kinds {', '.join(AUDIO_SUFFIXES)}."
        )
    return list(dict.fromkeys(found))


def tag_recordings(files: Sequence[Path], tagger: Tagger, hop_samples: int) -> Iterator[Tagged]:
    """The files' recordings in order, each when all its windows are answered; memory does not grow with their number.

    At most two recordings are held as samples, of each no more than `audio.MAX_DURATION_S`.
    """
    items = itertools.chain.from_iterable(
        _items(number, *decoded, tagger, hop_samples)
        for number, decoded in enumerate(_decoded(files, tagger.sample_rate_hz))
    )
    total = sum(_expected_windows(file, tagger, hop_samples) for file in files)
    answered = progress(_answered(items, tagger), total, "tagging", "windows")
    for _, group in itertools.groupby(answered, key=lambda pair: pair[0].number):
        pairs = list(group)
        first = pairs[0][0]
        windows = tuple(Window(item.start_s, item.end_s, answer) for item, answer in pairs if item.start_s is not None)
        yield Tagged(first.path, first.duration_s, first.note, windows)


def window_starts(num_samples: int, length_samples: int, hop_samples: int) -> list[int]:
    """The first samples of a recording's windows: every hop, and one window that ends with the recording."""
    last = max(0, num_samples - length_samples)
    return [*range(0, last, hop_samples), last]


def is_silent(samples: np.ndarray) -> bool:
    """Whether `samples` [n] stay within `SILENCE_DBFS` of full scale around their mean: a constant is silent, too."""
    return bool(np.abs(samples - samples.mean(dtype=np.float64)).max() <= 10 ** (SILENCE_DBFS / 20))


def _decoded(files: Sequence[Path], rate_hz: int) -> Iterator[tuple[Path, np.ndarray | None, str]]:
    """Path, samples and note of each file, decoded one ahead; without samples the note says why."""

    def decode(path: Path):
        try:
            return path, *load_audio(path, rate_hz)
        except AudioError as error:
            return path, None, str(error)

    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(decode, files[0])
        for number in range(1, len(files) + 1):
            result = pending.result()
            pending = pool.submit(decode, files[number]) if number < len(files) else None
            yield result


def _items(
    number: int, path: Path, samples: np.ndarray | None, note: str, tagger: Tagger, hop_samples: int
) -> Iterator[Item]:
    if samples is None:
        yield Item(number, str(path), None, note)
        return
    rate_hz, length = tagger.sample_rate_hz, tagger.length_samples
    duration_s = len(samples) / rate_hz
    for start in window_starts(len(samples), length, hop_samples):
        window = samples[start : start + length]
        # As in training, whatever is shorter lies in the middle of silence. The copy lets go of the recording.
        waveform = None if is_silent(window) else crop_loudest(window, length, rate_hz // 2)
        end_s = (start + len(window)) / rate_hz
        yield Item(number, str(path), duration_s, note, start / rate_hz, end_s, waveform)


def _answered(items: Iterable[Item], tagger: Tagger) -> Iterator[tuple[Item, np.ndarray | None]]:
    """The items in order with probabilities [K], or None where there is no sound."""
    for chunk in _chunks(items):
        waveforms = np.zeros((BATCH_WINDOWS, tagger.length_samples), np.float32)
        sounding = [item.waveform for item in chunk if item.waveform is not None]
        answers = iter(())
        if sounding:
            waveforms[: len(sounding)] = sounding
            answers = iter(np.asarray(tagger.probabilities(waveforms)))
        for item in chunk:
            yield dataclasses.replace(item, waveform=None), None if item.waveform is None else next(answers).copy()


def _chunks(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Items in order, with a batch of sounding windows among them each; fewer where silence abounds, and at the end."""
    chunk, num_sounding = [], 0
    for item in items:
        chunk.append(item)
        num_sounding += item.waveform is not None
        if num_sounding == BATCH_WINDOWS or len(chunk) == _CHUNK_ITEMS:
            yield chunk
            chunk, num_sounding = [], 0
    if chunk:
        yield chunk


def _expected_windows(path: Path, tagger: Tagger, hop_samples: int) -> int:
    """By the file's header, which may be wrong: good enough for a progress bar."""
    try:
        info = soundfile.info(str(path))
        duration_s = min(info.frames / info.samplerate, MAX_DURATION_S)
    except (RuntimeError, OSError, TypeError, ValueError, ZeroDivisionError):
        return 1
    return len(window_starts(round(duration_s * tagger.sample_rate_hz), tagger.length_samples, hop_samples))


# What is checked, said and recorded.


def _check(top: int, threshold: float, hop_s: float) -> None:
    if top < 1:
        raise UserError(f"{top} tags are asked for; it must be at least 1.")
    if not 0 <= threshold <= 1:
        raise UserError(f"The threshold is {threshold}; it is a probability, 0 to 1.")
    if hop_s and not LEAST_HOP_S <= hop_s <= MAX_DURATION_S:
        raise UserError(
            f"The hop is {hop_s} s; it must be {LEAST_HOP_S} to {MAX_DURATION_S}, or 0 for a clip's length."
        )


def _introduction(tagger: Tagger) -> str:
    before, after = tagger.calibration_errors
    return (
        f"{tagger.name}: {len(tagger.classes)} classes, folds {', '.join(map(str, tagger.folds))}, windows of "
        f"{tagger.duration_s:g} s; temperature {tagger.temperature:.3f} (calibration error {before:.3f} → {after:.3f})"
    )


def _about(tagger: Tagger, naming: Naming, hop_samples: int) -> dict[str, Any]:
    """What the JSON says beside the recordings."""
    return {
        "run": tagger.name,
        "folds": list(tagger.folds),
        "classes": list(tagger.classes),
        "sample_rate_hz": tagger.sample_rate_hz,
        "window_s": tagger.duration_s,
        "hop_s": hop_samples / tagger.sample_rate_hz,
        "temperature": tagger.temperature,
        "threshold": naming.threshold,
        "silence_dbfs": SILENCE_DBFS,
    }


def _reported(recordings: Iterable[Tagged], naming: Naming, lines: list[str]) -> Iterator[Tagged]:
    """The recordings as they come; `lines` gets the table to print. Raises UserError at the end if none was read."""
    counts = {"tagged": 0, "silent": 0, "unreadable": 0}
    for tagged in recordings:
        kind = "unreadable" if tagged.duration_s is None else "silent" if tagged.probabilities is None else "tagged"
        counts[kind] += 1
        if sum(counts.values()) <= _LINES:
            lines.append(format_line(tagged, naming))
        yield tagged
    total = sum(counts.values())
    if counts["unreadable"] == total:
        raise UserError(f"None of {total} recordings could be read; the first:\n{lines[0]}")
    if total > _LINES:
        lines.append(f"… and {total - _LINES} more")
    lines.append(f"{total} recordings: {', '.join(f'{count} {kind}' for kind, count in counts.items())}")
