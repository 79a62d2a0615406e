"""Predictions of recordings, and the tables that they are written to, one recording at a time."""

import csv
import dataclasses
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from audiotag_jax.evaluation.events import Event
from audiotag_jax.evaluation.task import MULTI_LABEL, SINGLE_LABEL, Task
from audiotag_jax.runtime.files import write_together

NONE = "none of these"  # the tag where no class reaches the threshold
UNCERTAIN = "uncertain"  # the tag where the run's probabilities are not reliable
TABLES = ("predictions.csv", "windows.csv", "predictions.json")
EVENTS = "events.csv"  # beside them, where events are looked for
SEPARATOR = "; "  # between several tags of a recording
_PATH_COLUMNS = 40  # of a terminal


@dataclasses.dataclass(frozen=True)
class Window:
    """A part of a recording; `probabilities` [K] float32, None where it is silent."""

    path: str
    start_s: float
    end_s: float
    probabilities: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class RecordingPrediction:
    """The prediction of a recording. One that could not be read has no duration and no windows."""

    path: str
    duration_s: float | None
    note: str  # problems with the file; empty without any
    probabilities: np.ndarray | None  # [K] float64: the mean over the windows that are not silent; None without any
    num_windows: int
    num_silent: int
    windows: tuple[Window, ...] = ()  # where they are collected
    events: tuple[Event, ...] = ()  # where they are looked for


@dataclasses.dataclass(frozen=True)
class TagOptions:
    """How probabilities become tags."""

    classes: tuple[str, ...]
    top: int  # number of likeliest tags to list
    threshold: float | tuple[float, ...]  # a tag must be at least so probable; one for each class, or for all
    is_uncertain: bool = False  # the run's probabilities are not reliable
    task: Task = SINGLE_LABEL

    def likeliest(self, probabilities: np.ndarray | None) -> list[tuple[str, float]]:
        """Returns the first `top` classes with their probabilities; of equal ones the earlier class first."""
        if probabilities is None:
            return []
        order = np.argsort(-probabilities, kind="stable")[: self.top]
        return [(self.classes[k], float(probabilities[k])) for k in order]

    def tags(self, probabilities: np.ndarray | None) -> list[tuple[str, float]]:
        """Returns the likeliest class if it reaches the threshold, of any number all that do, the likeliest first.

        Empty where everything is silent.
        """
        if probabilities is None:
            return []
        chosen = np.flatnonzero(self.task.decide(probabilities, self.threshold))
        order = chosen[np.argsort(-probabilities[chosen], kind="stable")]
        return [(self.classes[k], float(probabilities[k])) for k in order]

    def tag(self, probabilities: np.ndarray | None) -> str:
        """Returns the names of `tags`; `NONE` below the threshold, `UNCERTAIN` of such a run, "" if all is silent."""
        if probabilities is None:
            return ""
        if self.is_uncertain:
            return UNCERTAIN
        return SEPARATOR.join(name for name, _ in self.tags(probabilities)) or NONE


def format_line(prediction: RecordingPrediction, tag_options: TagOptions) -> str:
    """Formats a prediction as one line for a terminal: path, duration, tag, likeliest classes, problems."""
    path = "".join(c if c.isprintable() else "?" for c in prediction.path)
    path = path if len(path) <= _PATH_COLUMNS else "…" + path[1 - _PATH_COLUMNS :]
    if prediction.duration_s is None:
        return f"{path:{_PATH_COLUMNS}} not read: {prediction.note}"
    likeliest = ", ".join(
        f"{name} {probability:.2f}" for name, probability in tag_options.likeliest(prediction.probabilities)
    )
    tag = tag_options.tag(prediction.probabilities)
    if tag_options.task is MULTI_LABEL and tag not in ("", NONE, UNCERTAIN):
        likeliest = ", ".join(
            f"{name} {probability:.2f}" for name, probability in tag_options.tags(prediction.probabilities)
        )
    answer = "silent" if not tag else f"{tag} ({likeliest})" if tag in (NONE, UNCERTAIN) else likeliest
    some_silent = (
        f"{prediction.num_silent} of {prediction.num_windows} windows silent" if tag and prediction.num_silent else ""
    )
    notes = "; ".join(filter(None, (answer, some_silent, prediction.note)))
    return f"{path:{_PATH_COLUMNS}} {prediction.duration_s:8.2f} s  {notes}"


def write_tables(
    out: Path,
    predictions: Iterable[Window | RecordingPrediction],
    tag_options: TagOptions,
    about: dict[str, Any],
    with_events: bool = False,
) -> None:
    """Writes `predictions.csv` (a row a recording), `windows.csv` (a row a window) and `predictions.json` to `out`.

    The last contains `about` and every probability. `with_events` there is `events.csv` too, a row an event.
    `predictions` are the windows of a recording, then the recording, and so on; they are written one by one, in
    constant memory. If one raises, no file is replaced.
    """

    def write(recordings_csv: BinaryIO, windows_csv: BinaryIO, whole: BinaryIO, *events_csv: BinaryIO) -> None:
        ranks = [f"{what}_{rank}" for rank in range(1, tag_options.top + 1) for what in ("tag", "probability")]
        recordings_csv.write(_row("path", "duration_s", "windows", "silent_windows", "note", "tag", *ranks))
        windows_csv.write(_row("path", "start_s", "end_s", "note", "tag", *ranks))
        for file in events_csv:
            file.write(_row("path", "onset_s", "offset_s", "tag", "score"))
        whole.write((json.dumps(about, indent=2).removesuffix("\n}") + ',\n  "recordings": [').encode())
        before_recording, before_window = "\n    ", ""
        begins = True
        for prediction in predictions:
            text = ""
            if begins:
                text = f'{before_recording}{{"path": {json.dumps(prediction.path)}, "windows": ['
                before_recording, before_window = ",\n    ", ""
            if isinstance(prediction, Window):
                windows_csv.write(_window_row(prediction, tag_options))
                text += before_window + json.dumps(_window_as_json(prediction, tag_options))
                before_window = ", "
            else:
                recordings_csv.write(_recording_row(prediction, tag_options))
                for file in events_csv:
                    file.writelines(_event_row(prediction.path, event) for event in prediction.events)
                text += "], " + json.dumps(_recording_as_json(prediction, tag_options)).removeprefix("{")
            begins = isinstance(prediction, RecordingPrediction)
            whole.write(text.encode())
        whole.write(b"\n  ]\n}\n")

    write_together([out / name for name in (*TABLES, *([EVENTS] if with_events else []))], write)


def _recording_row(prediction: RecordingPrediction, tag_options: TagOptions) -> bytes:
    duration_s = "" if prediction.duration_s is None else f"{prediction.duration_s:.3f}"
    counts = (prediction.num_windows, prediction.num_silent)
    silent = "silent" if prediction.num_windows and prediction.probabilities is None else ""
    note = "; ".join(filter(None, (silent, prediction.note)))
    return _row(prediction.path, duration_s, *counts, note, *_tag_cells(prediction.probabilities, tag_options))


def _window_row(window: Window, tag_options: TagOptions) -> bytes:
    note = "silent" if window.probabilities is None else ""
    times = (f"{window.start_s:.3f}", f"{window.end_s:.3f}")
    return _row(window.path, *times, note, *_tag_cells(window.probabilities, tag_options))


def _event_row(path: str, event: Event) -> bytes:
    return _row(path, f"{event.onset_s:.3f}", f"{event.offset_s:.3f}", event.tag, f"{event.score:.6f}")


def _tag_cells(probabilities: np.ndarray | None, tag_options: TagOptions) -> list[str]:
    cells = [tag_options.tag(probabilities)]
    for name, probability in tag_options.likeliest(probabilities):
        cells += [name, f"{probability:.6f}"]
    return cells + [""] * (1 + 2 * tag_options.top - len(cells))


def _row(*cells: Any) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(map(inert, cells))
    return text.getvalue().encode(errors="backslashreplace")  # of names that are not UTF-8


def inert(cell: Any) -> Any:
    """Prefixes a text that a spreadsheet would run as a formula with an apostrophe; the JSON file has it unchanged."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell


def _recording_as_json(prediction: RecordingPrediction, tag_options: TagOptions) -> dict[str, Any]:
    """Returns all fields of a recording but its path and its windows, which are written before."""
    answer = _answer(prediction.probabilities, tag_options)
    return {"duration_s": prediction.duration_s, "note": prediction.note, **answer}


def _window_as_json(window: Window, tag_options: TagOptions) -> dict[str, Any]:
    times = {"start_s": round(window.start_s, 6), "end_s": round(window.end_s, 6)}
    return {**times, **_answer(window.probabilities, tag_options)}


def _answer(probabilities: np.ndarray | None, tag_options: TagOptions) -> dict[str, Any]:
    """Returns the tag and all probabilities in the order of the classes; None and None where everything is silent."""
    values = None if probabilities is None else [round(float(value), 6) for value in probabilities]
    answer: dict[str, Any] = {"tag": tag_options.tag(probabilities) or None}
    if tag_options.task is MULTI_LABEL:
        sure = probabilities is not None and not tag_options.is_uncertain
        answer["tags"] = [name for name, _ in tag_options.tags(probabilities)] if sure else None
    return answer | {"probabilities": values}
