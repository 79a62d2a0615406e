"""The records of a clips dataset, a shard at a time: waveforms that are copied, and waveforms that are decoded.

These are functions of their arguments alone, which can be pickled: any process can make any shard.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from audiotag_jax.audio.clip import load_clip
from audiotag_jax.audio.decode import AudioError
from audiotag_jax.datasets.contents import content_hash
from audiotag_jax.datasets.copies import Copies, Origin
from audiotag_jax.datasets.prepared import record_source
from audiotag_jax.datasets.records import KEPT, LEFT_OUT, SILENCE, Clip
from audiotag_jax.evaluation.task import MULTI_LABEL, SINGLE_LABEL
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.files import write_json
from audiotag_jax.runtime.progress import progress
from audiotag_jax.runtime.threads import ordered_map
from audiotag_jax.settings.sections import ClipSettings


@dataclasses.dataclass(frozen=True)
class Problem:
    """A defect of a recording, and how the clips dataset treats that recording."""

    id: str
    split: str
    reason: str
    outcome: str  # LEFT_OUT, SILENCE or KEPT


def decode_clip(clip: Clip, settings: ClipSettings) -> tuple[np.ndarray | None, Problem | None]:
    """Returns a clip's waveform `[stored_samples]` float32, and the problem of its recording, None if it has none.

    An unreadable training clip has no waveform (None); an unreadable test clip is silence, so that a submission stays
    complete.
    """
    try:
        waveform, note = load_clip(clip.path, settings.sample_rate_hz, settings.length_samples, settings.margin_samples)
    except AudioError as error:
        if clip.split == "train":
            return None, Problem(clip.id, clip.split, str(error), LEFT_OUT)
        return np.zeros(settings.stored_samples, np.float32), Problem(clip.id, clip.split, str(error), SILENCE)
    return waveform, Problem(clip.id, clip.split, note, KEPT) if note else None


def clip_examples(
    split: str,
    clips: Sequence[Clip],
    sounds: Sequence[str],
    copies: Copies,
    settings: ClipSettings,
    classes: Sequence[str],
    num_threads: int,
    problems_file: Path,
    task: str = SINGLE_LABEL.name,
) -> Iterator[tuple[str, dict]]:
    """Yields id and example of the readable clips of a shard; then writes their problems to `problems_file`.

    `sounds` are the hashes of their files, "" of one that cannot be read. Raises UserError if a file with a hash cannot
    be read now, or is another one: the clip would be lost, or cut, for good.
    """
    problems, labels = [], {name: number for number, name in enumerate(classes)}
    items = ((clip, sounds[number], copies.of(number)) for number, clip in enumerate(clips))
    waveforms = ordered_map(partial(_copy_or_decode, settings=settings), items, num_threads)
    what = "decoding" if (copies.which < 0).any() else "copying"
    pairs = zip(clips, waveforms, strict=True)
    for clip, (waveform, problem) in progress(pairs, len(clips), f"{what} {split} clips", "clips"):
        if problem:
            problems.append(dataclasses.asdict(problem))
        if waveform is not None:
            yield clip_example(clip, waveform, labels, task)
    write_json(problems_file, problems)


def clip_example(
    clip: Clip, waveform: np.ndarray, labels: Mapping[str, int], task: str = SINGLE_LABEL.name
) -> tuple[str, dict]:
    """Returns id and example of a clip with its waveform `[stored_samples]` float32; `labels` are numbers by class.

    Where a clip has any number of labels, the example has `labels` `[K]` int8, all -1 if it is not scored.
    """
    if task == MULTI_LABEL.name:
        several = np.full(len(labels), -1 if clip.labels is None else 0, np.int8)
        several[[labels[name] for name in clip.all_labels]] = 1
        target: dict[str, Any] = {"labels": several}
    else:
        target = {"label": -1 if clip.label is None else labels[clip.label]}
    known = {"fold": clip.fold, "verified": clip.verified}
    return clip.id, {"id": clip.id, "waveform": waveform, **target, **known}


def _copy_or_decode(
    item: tuple[Clip, str, tuple[Origin, int, str] | None], settings: ClipSettings
) -> tuple[np.ndarray | None, Problem | None]:
    clip, sound, copy = item
    if copy is None:
        waveform, problem = decode_clip(clip, settings)
        return _decode_again(clip, sound, settings, problem) if problem and sound else (waveform, problem)
    origin, row, note = copy
    waveform = record_source(origin.directory, origin.split, ("waveform",))[row]["waveform"]
    return waveform, Problem(clip.id, clip.split, note, KEPT) if note else None


def _decode_again(
    clip: Clip, sound: str, settings: ClipSettings, problem: Problem
) -> tuple[np.ndarray | None, Problem | None]:
    """Returns what `decode_clip` returns of a file that had a problem, which may have been a transient read error.

    So files with lasting problems, such as silent ones, are read three times.
    """
    if content_hash(clip.path) != sound:
        raise UserError(
            f"{clip.path} cannot be read any more, or was changed, while being prepared ({problem.reason}).\n"
            "Run the same command again; if that does not help, replace or delete the file (a deleted one is left out)."
        )
    return decode_clip(clip, settings)
