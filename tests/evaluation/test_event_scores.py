"""Scores of events against sed_eval, the reference implementation, and against examples counted by hand.

sed_eval 0.2.1 needs a setuptools with `pkg_resources`, below 81, so its scores are saved in `sed_eval.json`. Where it
is installed, they are compared with it; `python tests/evaluation/test_event_scores.py` writes them again.
"""

import json
import math
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from audiotag_jax.evaluation.events import Event, event_scores, match_events, segment_scores

SAVED = Path(__file__).with_name("sed_eval.json")
TAGS = ("bell", "dog", "rain")


def random_events(rng: np.random.Generator, num_events: int) -> list[Event]:
    onsets = rng.uniform(0, 20, num_events)
    return [Event(TAGS[rng.integers(3)], onset, onset + rng.uniform(0.1, 3)) for onset in onsets]


def near(events: list[Event], rng: np.random.Generator) -> list[Event]:
    """The events with other edges, some with another tag, some left out, and others."""
    moved = [
        Event(event.tag if rng.random() < 0.8 else "rain", max(0, event.onset_s + onset), event.offset_s + offset)
        for event, onset, offset in zip(events, *rng.normal(0, 0.25, (2, len(events))), strict=True)
        if rng.random() < 0.8 and event.onset_s + onset < event.offset_s + offset
    ]
    return [*moved, *random_events(rng, 4)]


def make_recordings() -> tuple[dict, dict]:
    """Many events close to each other, so that matching one by one would not find the most pairs."""
    rng = np.random.default_rng(0)
    reference = {f"{n}.wav": random_events(rng, 25) for n in range(4)}
    return reference, {name: near(events, rng) for name, events in reference.items()}


def rounded(events: list[Event]) -> list[tuple[str, float, float]]:
    """Times with four decimals, the last of which is 5: on no edge of a segment."""
    return [(tag, *(round(math.floor(1000 * each) / 1000 + 0.0005, 4) for each in times)) for tag, *times, _ in events]


def by_sed_eval(recordings: list[dict], kind: str, **options) -> dict[str, list[float]]:
    """F1, precision and recall over all events, and for each tag."""
    import sed_eval

    metrics = getattr(sed_eval.sound_event, kind)(list(TAGS), **options)

    def rows(name: str, events: list[Event]) -> list[dict]:
        named = ({"event_label": each.tag, "onset": each.onset_s, "offset": each.offset_s} for each in events)
        return [{"filename": name, **each} for each in named]

    reference, estimated = recordings
    for name, events in reference.items():
        metrics.evaluate(rows(name, events), rows(name, estimated[name]))
    found = {"all": metrics.results_overall_metrics(), **metrics.results_class_wise_metrics()}
    names = ("f_measure", "precision", "recall")
    return {tag: [float(each["f_measure"][name]) for name in names] for tag, each in found.items()}


CASES = {
    "events, collar 0.2 s": ("EventBasedMetrics", {"t_collar": 0.2, "percentage_of_length": 0.5}),
    "onsets, collar 0.2 s": ("EventBasedMetrics", {"t_collar": 0.2, "evaluate_offset": False}),
    "events, collar 0.5 s": ("EventBasedMetrics", {"t_collar": 0.5, "percentage_of_length": 0.5}),
    "onsets, collar 0.5 s": ("EventBasedMetrics", {"t_collar": 0.5, "evaluate_offset": False}),
    "segments of 1 s": ("SegmentBasedMetrics", {"time_resolution": 1.0}),
    "segments of 0.1 s": ("SegmentBasedMetrics", {"time_resolution": 0.1}),
}


def ours(recordings: list[dict], kind: str, **options) -> dict[str, list[float]]:
    if kind == "SegmentBasedMetrics":
        scores = segment_scores(*recordings, segment_s=options["time_resolution"])
    else:
        with_offset = options.get("evaluate_offset", True)
        scores = event_scores(*recordings, collar_s=options["t_collar"], with_offset=with_offset)
    assert scores["macro_f1"] == pytest.approx(np.mean([each["f1"] for each in scores["classes"].values()]))
    found = {"all": scores, **scores["classes"]}
    return {tag: [each[name] for name in ("f1", "precision", "recall")] for tag, each in found.items()}


@pytest.fixture(scope="module")
def saved() -> dict:
    return json.loads(SAVED.read_text())


def recordings_of(saved: dict) -> list[dict]:
    parts = (saved["reference"], saved["estimated"])
    return [{name: [Event(*each) for each in events] for name, events in part.items()} for part in parts]


@pytest.mark.parametrize("case", CASES)
def test_as_sed_eval_scores_them(saved, case):
    kind, options = CASES[case]
    found = ours(recordings_of(saved), kind, **options)
    assert found.keys() == saved["scores"][case].keys() == {"all", *TAGS}
    for tag, scores in saved["scores"][case].items():
        assert found[tag] == pytest.approx(scores)
    assert 0.2 < found["all"][0] < 0.9


@pytest.mark.parametrize("case", CASES)
def test_the_saved_scores_are_those_of_sed_eval(saved, case):
    pytest.importorskip("sed_eval", reason="sed_eval is not installed", exc_type=ImportError)
    kind, options = CASES[case]
    for tag, scores in by_sed_eval(recordings_of(saved), kind, **options).items():
        assert saved["scores"][case][tag] == pytest.approx(scores)


def test_as_many_pairs_as_can_be():
    """The first event fits both, the second one only the first: matched in order, one pair would be lost."""
    reference = [Event("dog", 1.0, 2.0), Event("dog", 1.3, 2.0)]
    estimated = [Event("dog", 1.15, 2.0), Event("dog", 0.9, 2.0)]
    assert match_events(reference, estimated) == [(0, 1), (1, 0)]


def test_an_offset_may_differ_by_half_of_the_length():
    reference, short = [Event("dog", 1.0, 5.0)], [Event("dog", 1.0, 1.2)]
    assert match_events(reference, [Event("dog", 1.0, 3.0)]) == [(0, 0)]
    assert match_events(reference, [Event("dog", 1.0, 2.9)]) == []
    assert match_events(reference, [Event("dog", 1.0, 2.9)], with_offset=False) == [(0, 0)]
    assert match_events(short, [Event("dog", 1.0, 1.4)]) == [(0, 0)]  # by the collar
    assert match_events(short, [Event("cat", 1.0, 1.2)]) == []


def test_a_difference_of_the_collar_counts_however_it_is_rounded():
    assert 3.2 - 3.0 > 0.2
    assert match_events([Event("dog", 3.0, 4.0)], [Event("dog", 3.2, 4.2)]) == [(0, 0)]


def test_nothing_to_find_and_nothing_found():
    assert event_scores({}, {})["f1"] is None
    missed = event_scores({"a": [Event("dog", 0, 1)]}, {})
    assert (missed["f1"], missed["precision"], missed["recall"]) == (0, None, 0)
    invented = event_scores({"a": []}, {"a": [Event("dog", 0, 1)]})
    assert (invented["f1"], invented["precision"], invented["recall"]) == (0, 0, None)


def test_events_of_different_recordings_are_never_the_same():
    assert event_scores({"a": [Event("dog", 0, 1)]}, {"b": [Event("dog", 0, 1)]})["correct"] == 0


def write_saved() -> None:
    parts = [{name: rounded(events) for name, events in part.items()} for part in make_recordings()]
    content: dict = {"sed_eval": version("sed_eval"), **dict(zip(("reference", "estimated"), parts, strict=True))}
    recordings = recordings_of(content)
    content["scores"] = {case: by_sed_eval(recordings, kind, **options) for case, (kind, options) in CASES.items()}
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in content.items()]
    SAVED.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    write_saved()
