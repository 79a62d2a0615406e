"""When an accuracy is no better than naming the most frequent class."""

import numpy as np
import pytest
import scipy.stats

from audiotag_jax.evaluation.guessing import describe_guessing, guessing_of, majority_share
from audiotag_jax.evaluation.intervals import score_table


def predictions(labels: np.ndarray, right: int) -> dict[str, np.ndarray]:
    """Of clips with these labels, the first `right` are named rightly."""
    named = np.where(np.arange(len(labels)) < right, labels, (labels + 1) % 4)
    ids, alone = np.array([f"{n:03d}" for n in range(len(labels))]), np.full(len(labels), "")
    return {"ids": ids, "labels": labels, "recordings": alone, "logits": np.eye(4)[named]}


LABELS = np.repeat(np.arange(4), (40, 20, 20, 20))


def test_the_share_of_the_most_frequent_class():
    assert majority_share(LABELS) == pytest.approx(0.4)
    assert np.isnan(majority_share(np.zeros(0, int)))


def test_close_to_the_share_and_well_above_it():
    """Independent of the bootstrap: by the exact binomial interval 45 of 100 includes 0.4, 60 of 100 does not."""
    for right, guesses in ((10, True), (45, True), (60, False), (100, False)):
        low = scipy.stats.binomtest(right, 100).proportion_ci().low
        assert (low <= 0.4) == guesses
        text = guessing_of(predictions(LABELS, right))
        assert bool(text) == guesses
        table = score_table(predictions(LABELS, right))
        assert text == describe_guessing(table["accuracy"], 0.4)
    assert "no better than guessing: accuracy 0.450 (0.360 to 0.550)" in guessing_of(predictions(LABELS, 45))


def test_clips_of_one_recording_count_as_one():
    """60 of 100 right, but they are cut from five recordings, of which three are right."""
    saved = predictions(LABELS, 60)
    assert not guessing_of(saved)
    assert guessing_of(saved | {"recordings": np.repeat([*"abcde"], 20)})


def test_without_clips_nothing_is_known():
    assert guessing_of(predictions(LABELS[:0], 0)) == ""
