"""Mode `predict`: tags recordings window by window with a trained run; only its directory is needed."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from audiotag_jax.audio.level import SILENCE_DBFS
from audiotag_jax.evaluation.events import Event, Events
from audiotag_jax.evaluation.task import MULTI_LABEL
from audiotag_jax.inference import event_reference
from audiotag_jax.inference.batches import each_window
from audiotag_jax.inference.events import EventOptions, find_events, stack_windows
from audiotag_jax.inference.label_tracks import FORMATS, LabelTracks, check_formats
from audiotag_jax.inference.output import choose_folder, earlier_tables
from audiotag_jax.inference.published import open_tagger
from audiotag_jax.inference.tables import (
    EVENTS,
    TABLES,
    UNCERTAIN,
    RecordingPrediction,
    TagOptions,
    Window,
    format_line,
    write_tables,
)
from audiotag_jax.inference.tagger import Tagger, describe_decision
from audiotag_jax.inference.windows import WindowOptions, expected_windows, find_files, read_windows
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.files import locked, write_json
from audiotag_jax.runtime.progress import log, progress

HOPS_S = (0.01, 86400.0)
_LINES = 20  # of the table that is printed


def run(
    workdir: Path,
    audio: Sequence[str],
    *,
    top: int = 3,
    threshold: float | None = None,
    hop_s: float = 0.0,
    out: Path | None = None,
    tagger: str = "",
    formats: Sequence[str] = (),
    overwrite: bool = False,
    events: EventOptions | None = None,
    reference: Path | None = None,
    collars_s: Sequence[float] = event_reference.COLLARS_S,
) -> None:
    """Tags files, and all sound files below folders, and writes tables to `out`, by default `workdir/predicted`.

    The network is that of the run in `workdir`, or the published one that `tagger` names. Tables of an earlier call are
    replaced only if `overwrite`: else `out` must have none, and the default gets date and time behind its name.
    `formats` are those of `label_tracks`, which are written beside the tables.

    A recording up to a clip's length is one window, cropped as in training; a longer one is windows every `hop_s` (0: a
    clip's length), the last of which ends with the recording. Its probabilities are the mean over its windows that are
    not silent. A tag less probable than `threshold` becomes "none of these"; by default it is 0. Where any number of
    tags is possible, all that reach it are tags; by default that of their class, which the run's held-out clips chose.
    Raises UserError if no file can be read.

    With `events`, or with a `reference` table to compare them with, there is also a table of the tags with onsets and
    offsets, which the other formats have too, in place of windows; a window's hop is then at most a quarter of it.
    """
    events = events or (EventOptions() if reference else None)
    _check(top, threshold or 0.0, hop_s, collars_s)
    formats = check_formats(formats)
    files = find_files(audio)
    names = _names(formats, events, reference)
    out = choose_folder(out, workdir / "predicted", names, overwrite)
    opened = open_tagger(workdir, tagger)
    chosen = opened.thresholds if threshold is None else threshold
    top = min(top, len(opened.classes))
    tag_options = TagOptions(opened.classes, top, chosen, bool(opened.doubt), opened.task)
    events = events and events.with_thresholds(opened.event_thresholds)
    window_options = opened.event_windows(hop_s) if events else opened.window_options(hop_s)
    true_events = event_reference.read_reference(reference, files, opened.classes) if reference else {}
    log(_introduction(opened))
    if opened.doubt:
        log(f"warning: every tag is named {UNCERTAIN}, since the probabilities are not reliable: {opened.doubt}")
    lines: list[str] = []
    found: dict[str, tuple[Event, ...]] = {}  # of the recordings in the reference
    tracks = LabelTracks(out, formats, tag_options, opened.sample_rate_hz, of_events=events is not None)
    with locked(out, "writing to"), tracks:
        predictions = _tagged(files, opened, window_options)
        if events:
            predictions = _with_events(predictions, tag_options, events, true_events, found)
        predictions = tracks.passing(_with_report(predictions, tag_options, lines, events is not None))
        about = _about(opened, tag_options, window_options, events)
        write_tables(out, predictions, tag_options, about, with_events=events is not None)
        tracks.put_in_place()
        if reference:
            scores = event_reference.compare(true_events, found, collars_s)
            write_json(out / event_reference.SCORES, scores)
            lines += event_reference.describe(scores)
    log("\n".join(lines))
    log(f"written to {out}: {', '.join(names)}")
    if warning := earlier_tables(out, (EVENTS, event_reference.SCORES, *FORMATS), names):
        log(warning)


def tag_recordings(
    files: Sequence[Path], tagger: Tagger, window_options: WindowOptions
) -> Iterator[RecordingPrediction]:
    """Yields the predictions of the files in order, with their windows; memory does not grow with their number."""
    windows: list[Window] = []
    for prediction in _tagged(files, tagger, window_options):
        if isinstance(prediction, Window):
            windows.append(prediction)
        else:
            yield dataclasses.replace(prediction, windows=tuple(windows))
            windows = []


def _tagged(
    files: Sequence[Path], tagger: Tagger, window_options: WindowOptions
) -> Iterator[Window | RecordingPrediction]:
    """Yields the windows of each file, and behind them its prediction, in constant memory."""
    total = sum(expected_windows(file, window_options) for file in files)
    counts: Counter[bool] = Counter()  # of the windows of a recording, by whether they are silent
    probabilities_sum = np.zeros(len(tagger.classes))
    windows = each_window(read_windows(files, window_options), tagger.probabilities, tagger.length_samples)
    for item, values in progress(windows, total, "tagging", "windows"):
        if item.start_s is not None and item.end_s is not None:
            counts[values is None] += 1
            probabilities_sum += 0.0 if values is None else values
            yield Window(item.path, item.start_s, item.end_s, values)
        if item.is_last:
            mean = probabilities_sum / counts[False] if counts[False] else None
            yield RecordingPrediction(
                item.path, item.duration_s, item.note, mean, counts.total(), num_silent=counts[True]
            )
            counts, probabilities_sum = Counter(), np.zeros(len(tagger.classes))


def _with_events(
    predictions: Iterable[Window | RecordingPrediction],
    tag_options: TagOptions,
    event_options: EventOptions,
    reference: Events,
    found: dict[str, tuple[Event, ...]],
) -> Iterator[Window | RecordingPrediction]:
    """Passes predictions on, recordings with their events; puts into `found` those of recordings in the reference.

    The probabilities of one recording's windows are in memory: 4 bytes a window and class.
    """
    windows: list[tuple[float, float, np.ndarray | None]] = []
    for prediction in predictions:
        if isinstance(prediction, Window):
            windows.append((prediction.start_s, prediction.end_s, prediction.probabilities))
            yield prediction
            continue
        events = find_events(*stack_windows(windows), tag_options.classes, event_options)
        windows = []
        if prediction.path in reference:
            found[prediction.path] = tuple(events)
        if tag_options.is_uncertain:
            events = [event._replace(tag=f"{UNCERTAIN}: {event.tag}") for event in events]
        yield dataclasses.replace(prediction, events=tuple(events))


# Options and reports.


def _names(formats: Sequence[str], events: EventOptions | None, reference: Path | None) -> tuple[str, ...]:
    """Returns the names of the files that are written."""
    more = [EVENTS] if events else []
    return (*TABLES, *more, *([event_reference.SCORES] if reference else []), *formats)


def _check(top: int, threshold: float, hop_s: float, collars_s: Sequence[float]) -> None:
    if top < 1:
        raise UserError(f"{top} tags are asked for; it must be at least 1.")
    if not 0 <= threshold <= 1:
        raise UserError(f"The threshold is {threshold}; it is a probability, 0 to 1.")
    if not collars_s or not all(0 < each < float("inf") for each in collars_s):
        raise UserError("A collar is a number of seconds above 0.")
    check_hop(hop_s)


def check_hop(hop_s: float) -> None:
    """Raises UserError on a hop that cannot be."""
    if hop_s and not HOPS_S[0] <= hop_s <= HOPS_S[1]:
        raise UserError(f"The hop is {hop_s} s; it must be {HOPS_S[0]:g} to {HOPS_S[1]:g}, or 0 for a clip's length.")


def _introduction(tagger: Tagger) -> str:
    """Describes the network in a line."""
    if not tagger.folds:
        return f"{tagger.name}: {len(tagger.classes)} classes, windows of {tagger.duration_s:g} s"
    before, after = tagger.calibration_errors
    fitted = f"temperature {tagger.temperature:.3f}"
    if tagger.decision is not None:
        shared = len(tagger.classes) - int(tagger.decision.is_own.sum())
        fitted = "a calibration and a threshold for each class" + (f" ({shared} share one)" if shared else "")
    return (
        f"{tagger.name}: {len(tagger.classes)} classes, folds {', '.join(map(str, tagger.folds))}, windows of "
        f"{tagger.duration_s:g} s; {fitted} from {tagger.fitted_to} (calibration error "
        f"{before:.3f} → {after:.3f}, cross-fitted)"
    )


def _about(
    tagger: Tagger, tag_options: TagOptions, window_options: WindowOptions, events: EventOptions | None
) -> dict[str, Any]:
    """Returns the settings of the prediction, for the JSON file."""
    decision = describe_decision(tagger)
    if not isinstance(tag_options.threshold, tuple):  # one for all classes, maybe in place of their own
        decision.pop("thresholds", None)
        decision["threshold"] = tag_options.threshold
    return {
        "run": tagger.name,
        "folds": list(tagger.folds),
        "classes": list(tagger.classes),
        "sample_rate_hz": tagger.sample_rate_hz,
        "window_s": tagger.duration_s,
        "hop_s": window_options.hop_s,
        "temperature": tagger.temperature,
        "fitted_to": tagger.fitted_to,
        "doubt": tagger.doubt,
        **decision,
        "silence_dbfs": SILENCE_DBFS,
        **({"task": tagger.task.name} if tagger.task is MULTI_LABEL else {}),
        **({"events": dataclasses.asdict(events)} if events else {}),
    }


def _with_report(
    predictions: Iterable[Window | RecordingPrediction], tag_options: TagOptions, lines: list[str], with_events: bool
) -> Iterator[Window | RecordingPrediction]:
    """Passes predictions on, collecting a table to print in `lines`. Raises UserError at the end if none was read."""
    counts, num_events = {"tagged": 0, "silent": 0, "unreadable": 0}, 0
    for prediction in predictions:
        yield prediction
        if isinstance(prediction, Window):
            continue
        kind = (
            "unreadable"
            if prediction.duration_s is None
            else "silent"
            if prediction.probabilities is None
            else "tagged"
        )
        counts[kind] += 1
        num_events += len(prediction.events)
        if sum(counts.values()) <= _LINES:
            lines.append(format_line(prediction, tag_options))
    total = sum(counts.values())
    if counts["unreadable"] == total:
        raise UserError(f"None of the recordings could be read ({total}); the first:\n{lines[0]}")
    if total > _LINES:
        lines.append(f"… and {total - _LINES} more")
    lines.append(f"recordings: {total} ({', '.join(f'{count} {kind}' for kind, count in counts.items())})")
    lines += [f"events: {num_events:,}"] if with_events else []
