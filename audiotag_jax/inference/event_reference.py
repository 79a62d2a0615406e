"""Events compared with a reference table: CSV with columns file, onset_s, offset_s and label, a row an event."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from audiotag_jax.evaluation.events import Event, Events, event_scores, segment_scores
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.progress import log
from audiotag_jax.runtime.tables import read_table

COLUMNS = ("file", "onset_s", "offset_s", "label")
COLLARS_S = (0.2, 0.5)
SCORES = "event_scores.json"


def read_reference(path: Path, files: Sequence[Path], classes: Sequence[str]) -> dict[str, list[Event]]:
    """Returns the events of the recordings `files` that the table names, by their paths.

    A recording is named by its path, or by the end of it, such as its name alone; a row without a label and times names
    one without events. Raises UserError on times that are none, and on names that are not those of one recording.
    """
    reference: dict[str, list[Event]] = {}
    by_name: dict[str, list[Path]] = {}
    for file in files:
        by_name.setdefault(file.name, []).append(file)
    for row in read_table(path, COLUMNS):
        events = reference.setdefault(_recording(row["file"], by_name, path), [])
        if any(row[column] for column in COLUMNS[1:]):
            events.append(_event(row, path))
    unknown = sorted({event.tag for events in reference.values() for event in events} - {*classes})
    if unknown:
        log(f"warning: {path} has labels that the run does not have; their events count as missed: {unknown}")
    if left_out := len({*map(str, files)} - reference.keys()):
        log(f"{left_out} of {len(files)} recordings are not in {path}; they are not scored")
    return reference


def compare(reference: Events, found: Events, collars_s: Sequence[float]) -> dict[str, Any]:
    """Scores the recordings in the reference: their events, for each collar in seconds, and segments of a second."""
    found = {recording: found.get(recording, ()) for recording in reference}
    scores: dict[str, Any] = {}
    for collar_s in collars_s:
        for name, with_offset in (("onset", False), ("onset_and_offset", True)):
            table = event_scores(reference, found, collar_s=collar_s, with_offset=with_offset)
            scores[f"{name}_within_{collar_s:g}_s"] = table
    return scores | {"segments_of_1_s": segment_scores(reference, found)}


def describe(scores: Mapping[str, Any]) -> list[str]:
    """Describes each kind of score in a line."""

    def shown(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    return [
        f"{name.replace('_', ' ')}: F1 {shown(each['f1'])} (precision {shown(each['precision'])}, recall "
        f"{shown(each['recall'])}; {each['correct']} of {each['reference']}, {each['estimated']} found), mean over "
        f"tags {shown(each['macro_f1'])}"
        for name, each in scores.items()
    ]


def _recording(name: str, by_name: Mapping[str, Sequence[Path]], table: Path) -> str:
    """Returns the path that ends in `name`, of files by the last part of theirs; raises UserError unless it is one."""
    parts = PurePath(name).parts
    found = [path for path in by_name.get(PurePath(name).name, ()) if path.parts[-len(parts) :] == parts]
    if len(found) != 1:
        number = f"{len(found)} recordings" if found else "no recording"
        raise UserError(f"{table}: '{name}' is the name of {number} of --audio; it must be that of one.")
    return str(found[0])


def _event(row: Mapping[str, str], table: Path) -> Event:
    try:
        onset_s, offset_s = float(row["onset_s"]), float(row["offset_s"])
    except ValueError:
        onset_s = offset_s = math.nan
    if not (0 <= onset_s < offset_s < math.inf and row["label"]):
        listed = ", ".join(f"{column} '{row[column]}'" for column in COLUMNS)
        raise UserError(f"{table}: {listed}: a label is needed, and times in seconds, the offset behind the onset.")
    return Event(row["label"], onset_s, offset_s)
