"""When a recording's tags sound: events with onsets and offsets, from the probabilities of overlapping windows."""

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.ndimage
from numpy.typing import ArrayLike

from audiotag_jax.audio.decode import AudioError
from audiotag_jax.evaluation.events import Event
from audiotag_jax.inference.batches import each_window
from audiotag_jax.inference.windows import WindowOptions, read_windows, waveform_windows

ON_THRESHOLD = 0.5
_LEAST = 1e-6  # threshold of a class, since 0 would make every window an event
HOPS_A_WINDOW = 4  # by default, so that edges are placed to an eighth of a window
_FILTERS = {"median": scipy.ndimage.median_filter, "mean": scipy.ndimage.uniform_filter}


@dataclasses.dataclass(frozen=True)
class EventOptions:
    """How probabilities of windows become events. Raises ValueError for values that cannot work."""

    # An event reaches it in one window at least: one for all classes, or one for each; None: 0.5, or a tagger's own
    # thresholds where recordings get any number of tags.
    on_threshold: float | tuple[float, ...] | None = None
    off_threshold: float | None = None  # and this one in all, where it is below the former; None: half of the former
    smooth_windows: int = 1  # odd number of windows over which probabilities are smoothed first; 1: none
    smoothing: str = "median"  # or mean
    min_duration_s: float = 0.0  # shorter events are left out
    min_gap_s: float = 0.0  # events of a tag with a shorter gap between them become one

    def __post_init__(self) -> None:
        highest = 1.0 if isinstance(self.on_threshold, tuple) else float(self.on)
        if not (np.all((self.on > 0) & (self.on <= 1)) and np.min(self.off) > 0 and np.max(self.off) <= highest):
            raise ValueError(
                f"the thresholds are on {np.max(self.on):g}, off {np.max(self.off):g}; they must be above 0 and at "
                "most 1, and off at most on"
            )
        if self.smooth_windows < 1 or self.smooth_windows % 2 == 0:
            raise ValueError(f"smoothing is over {self.smooth_windows} windows; it must be an odd number of them")
        if self.smoothing not in _FILTERS:
            raise ValueError(f"unknown smoothing {self.smoothing!r}; choose from {', '.join(_FILTERS)}")
        if not (self.min_duration_s >= 0 and self.min_gap_s >= 0):
            raise ValueError(f"durations and gaps are 0 s or more, not {self.min_duration_s} and {self.min_gap_s}")

    @property
    def on(self) -> np.ndarray:
        """[] or [K]."""
        return np.asarray(ON_THRESHOLD if self.on_threshold is None else self.on_threshold, np.float64)

    @property
    def off(self) -> np.ndarray:
        """[] or [K], not above `on` where that is by class."""
        if self.off_threshold is None:
            return self.on / 2
        low = np.asarray(self.off_threshold, np.float64)
        return np.minimum(low, self.on) if self.on.ndim else low

    def with_thresholds(self, thresholds: float | Sequence[float]) -> "EventOptions":
        """Returns the options with `thresholds` by class, unless `on_threshold` is given or they are one number."""
        if self.on_threshold is not None or isinstance(thresholds, int | float):
            return self
        return dataclasses.replace(self, on_threshold=tuple(np.clip(thresholds, _LEAST, 1.0).tolist()))


class WindowScores(NamedTuple):
    """Probabilities [W, K] float32 of a recording's windows in order, NaN in the rows of silent ones, and times [W].

    They are [W, 0] where all windows are silent.
    """

    scores: np.ndarray
    starts_s: np.ndarray
    ends_s: np.ndarray


def find_events(
    scores: ArrayLike,
    starts_s: ArrayLike,
    ends_s: ArrayLike,
    classes: Sequence[str],
    options: EventOptions | None = None,
) -> list[Event]:
    """Returns the events of a recording by onset, of its windows' probabilities `[W, K]`, softmax or sigmoid.

    A window represents the time around its centre, to the middles between its own and the neighbours' centres; the
    first from its start, the last to its end. So an edge lies on a grid of one hop, and half a hop off at best: a
    shorter hop gives finer edges. It is unbiased where a sound that fills half of a window reaches the threshold; a
    window that recognizes less of a sound places onsets earlier and offsets later, by up to half its length, so that
    short windows give finer edges too.

    In this order: smoothing over windows (silent ones count as 0, and stay 0); for each class, the stretches of
    `off_threshold` or more in which a window has `on_threshold` or more; those with a gap below `min_gap_s` between
    them become one; those below `min_duration_s` are left out. Raises ValueError on shapes that do not fit, and on
    thresholds of other classes.
    """
    options = options or EventOptions()
    values, starts, ends = np.asarray(scores, np.float32), np.asarray(starts_s, float), np.asarray(ends_s, float)
    if values.ndim == 2 and values.shape[1] == 0:  # all is silent
        return []
    if values.ndim != 2 or values.shape != (len(starts), len(classes)) or starts.shape != ends.shape:
        raise ValueError(
            f"expected scores [windows, classes] and times [windows], not {list(values.shape)}, {list(starts.shape)} "
            f"and {list(ends.shape)} of {len(classes)} classes"
        )
    if options.on.shape not in ((), (len(classes),)):
        raise ValueError(f"there are {options.on.size} thresholds of {len(classes)} classes")
    if not len(values):
        return []
    values = smooth_scores(values, options)
    on, off = (np.broadcast_to(each, len(classes)) for each in (options.on, options.off))
    centres = (starts + ends) / 2
    edges_s = np.concatenate([starts[:1], (centres[1:] + centres[:-1]) / 2, ends[-1:]])
    events = [
        Event(classes[k], float(edges_s[first]), float(edges_s[last]), float(values[first:last, k].max()))
        for k in np.flatnonzero((values >= on).any(axis=0)).tolist()
        for first, last in _stretches(values[:, k], edges_s, on[k], off[k], options)
    ]
    return sorted(events, key=lambda event: (event.onset_s, event.offset_s, event.tag))


def smooth_scores(scores: np.ndarray, options: EventOptions) -> np.ndarray:
    """Returns scores [W, K] smoothed over windows; silent ones, NaN, count as 0, and are 0."""
    silent = np.isnan(scores).any(axis=1, keepdims=True)
    values = np.where(silent, np.float32(0), scores)
    if options.smooth_windows == 1:
        return values
    smooth = _FILTERS[options.smoothing](values, (options.smooth_windows, 1), mode="nearest")
    return np.where(silent, np.float32(0), smooth)


def _stretches(
    values: np.ndarray, edges_s: np.ndarray, on: float, off: float, options: EventOptions
) -> list[tuple[int, int]]:
    """Returns the windows, from first to behind the last, of the events of one class."""
    is_on = np.concatenate([[False], values >= off, [False]])
    found: list[tuple[int, int]] = []
    for first, last in np.flatnonzero(is_on[1:] != is_on[:-1]).reshape(-1, 2):
        if values[first:last].max() < on:
            continue
        if found and edges_s[first] - edges_s[found[-1][1]] < options.min_gap_s:
            first = found.pop()[0]
        found.append((int(first), int(last)))
    return [(first, last) for first, last in found if edges_s[last] - edges_s[first] >= options.min_duration_s]


def window_scores(
    sound: str | Path | ArrayLike,
    probabilities: Callable[[np.ndarray], Any],
    window_options: WindowOptions,
    rate_hz: int = 0,
) -> WindowScores:
    """Returns the probabilities of the windows of a recording: a file, or samples at `rate_hz`.

    `probabilities` maps waveforms `[B, N]` float32 to `[B, K]`: `tagger.probabilities`, or an exported program. Raises
    ValueError where the recording cannot be read, and warns where a part of it is missing.
    """
    if isinstance(sound, str | Path):
        items = read_windows([Path(sound)], window_options)
    else:
        items = waveform_windows(np.asarray(sound), rate_hz, window_options)
    rows = []
    for item, values in each_window(items, probabilities, window_options.length_samples):
        if item.start_s is None or item.end_s is None:
            raise AudioError(f"{item.path}: {item.note}")
        rows.append((item.start_s, item.end_s, values))
        if item.note.startswith("truncated"):
            warnings.warn(f"{item.path}: {item.note}", stacklevel=3)
    return stack_windows(rows)


def stack_windows(rows: Sequence[tuple[float, float, np.ndarray | None]]) -> WindowScores:
    """Stacks starts, ends and probabilities [K], None of silent windows."""
    num_classes = next((len(values) for *_, values in rows if values is not None), 0)
    scores = np.full((len(rows), num_classes), np.nan, np.float32)
    for row, (*_, values) in zip(scores, rows, strict=True):
        if values is not None:
            row[:] = values
    return WindowScores(scores, *(np.array([row[i] for row in rows], float) for i in (0, 1)))
