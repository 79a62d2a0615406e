"""Scores of events, sounds with a tag, an onset and an offset, against a reference: event-based and segment-based F1.

The definitions are those of Mesaros, Heittola and Virtanen, Metrics for Polyphonic Sound Event Detection (2016).
Events come by recording: `{recording: [Event, …]}`; the counts of all recordings are added.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching

COLLAR_S = 0.2
OFFSET_SHARE = 0.5  # of an event's length, by which an offset may differ where that is more than the collar
_ROUNDING_S = 1e-9  # times written in decimals differ by exactly a collar


class Event(NamedTuple):
    """A sound in a recording; `score` is the highest probability of its windows, NaN of a reference."""

    tag: str
    onset_s: float
    offset_s: float
    score: float = math.nan


Events = Mapping[str, Sequence[Event]]  # by recording


def match_events(
    reference: Sequence[Event],
    estimated: Sequence[Event],
    *,
    collar_s: float = COLLAR_S,
    with_offset: bool = True,
    offset_share: float = OFFSET_SHARE,
) -> list[tuple[int, int]]:
    """Returns pairs of places in `reference` and `estimated` of one recording that match: as many as can be.

    They have the same tag and onsets at most `collar_s` apart and, `with_offset`, offsets at most `collar_s` or
    `offset_share` of the reference's length apart, whichever is more. Each event is in one pair at most.
    """
    if not reference or not estimated:
        return []
    (tags, onsets, offsets), (their_tags, their_onsets, their_offsets) = map(_columns, (reference, estimated))
    fits = tags[:, None] == their_tags
    fits &= np.abs(onsets[:, None] - their_onsets) <= collar_s + _ROUNDING_S
    if with_offset:
        allowed = np.maximum(collar_s, offset_share * (offsets - onsets))[:, None]
        fits &= np.abs(offsets[:, None] - their_offsets) <= allowed + _ROUNDING_S
    found = maximum_bipartite_matching(csr_matrix(fits), perm_type="column")
    return [(place, int(other)) for place, other in enumerate(found) if other >= 0]


def event_scores(
    reference: Events,
    estimated: Events,
    *,
    collar_s: float = COLLAR_S,
    with_offset: bool = True,
    offset_share: float = OFFSET_SHARE,
) -> dict:
    """Returns `{"f1", "precision", "recall", "reference", "estimated", "correct", "macro_f1", "classes"}` of events.

    The first six are over all events (micro); "classes" has them by tag, "macro_f1" is the mean of the tags' F1. What
    would be 0 / 0 is None. The parameters are those of `match_events`.
    """
    counts: dict[str, np.ndarray] = {}  # by tag: reference, estimated, correct
    for recording in dict.fromkeys([*reference, *estimated]):
        true, found = reference.get(recording, ()), estimated.get(recording, ())
        for place, events in enumerate((true, found)):
            for event in events:
                counts.setdefault(event.tag, np.zeros(3, int))[place] += 1
        pairs = match_events(true, found, collar_s=collar_s, with_offset=with_offset, offset_share=offset_share)
        for number, _ in pairs:
            counts[true[number].tag][2] += 1
    return _scores(counts)


def segment_scores(reference: Events, estimated: Events, *, segment_s: float = 1.0) -> dict:
    """Computes the `event_scores` of segments of `segment_s`: one has a tag where an event of it covers any part."""
    counts: dict[str, np.ndarray] = {}
    for recording in dict.fromkeys([*reference, *estimated]):
        true, found = (_segments(events.get(recording, ()), segment_s) for events in (reference, estimated))
        for tag in true.keys() | found.keys():
            ours, theirs = true.get(tag, set()), found.get(tag, set())
            counts.setdefault(tag, np.zeros(3, int))[:] += len(ours), len(theirs), len(ours & theirs)
    return _scores(counts)


def _columns(events: Sequence[Event]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    tags, onsets, offsets, _ = zip(*events, strict=True)
    return np.array(tags), np.array(onsets, float), np.array(offsets, float)


def _segments(events: Sequence[Event], segment_s: float) -> dict[str, set[int]]:
    """Returns the numbers of the segments of each tag."""
    found: dict[str, set[int]] = {}
    for event in events:
        first = math.floor(event.onset_s / segment_s + _ROUNDING_S)
        last = math.ceil(event.offset_s / segment_s - _ROUNDING_S)
        found.setdefault(event.tag, set()).update(range(first, last))
    return found


def _scores(counts: Mapping[str, np.ndarray]) -> dict:
    by_tag = {tag: _from_counts(counts[tag]) for tag in sorted(counts)}
    each = [scores["f1"] for scores in by_tag.values()]
    macro = float(np.mean(each)) if each else None
    return {**_from_counts(sum(counts.values(), np.zeros(3, int))), "macro_f1": macro, "classes": by_tag}


def _from_counts(counts: np.ndarray) -> dict:
    reference, estimated, correct = map(int, counts)

    def share(part: int, whole: int) -> float | None:
        return part / whole if whole else None

    return {
        "f1": share(2 * correct, reference + estimated),
        "precision": share(correct, estimated),
        "recall": share(correct, reference),
        "reference": reference,
        "estimated": estimated,
        "correct": correct,
    }
