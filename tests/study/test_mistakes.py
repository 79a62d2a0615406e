"""What a report looks at closely, on constructed logits and against scikit-learn."""

import numpy as np
import sklearn.metrics

from audiotag_jax.study.mistakes import (
    Mistake,
    confident_mistakes,
    confusion,
    disputed_clips,
    errors_by_class,
    extremes,
    most_confused,
    scored_predictions,
)
from audiotag_jax.study.results import Clips, Results, VariantLogits


def results(held_out, labels, test=None, test_labels=None):
    """`held_out[variant]` [S, n, K]"""

    def clips(given):
        ids = np.array([f"{i:03d}" for i in range(len(given))])
        return Clips(ids, np.array(given), np.ones(len(given), bool), np.zeros(len(given), int))

    variants = [
        VariantLogits(name, tuple(range(len(logits))), logits, None if test is None else test[name])
        for name, logits in held_out.items()
    ]
    classes = tuple("abcdefgh"[: next(iter(held_out.values())).shape[2]])
    return Results(classes, clips(labels), None if test is None else clips(test_labels), tuple(variants))


def probable(rows):
    """Logits [1, n, K] whose softmax is the given probabilities."""
    return np.log(np.array([rows]))


def test_confusions_and_class_errors_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    labels, logits = rng.integers(0, 5, 200), rng.normal(size=(3, 200, 6))
    given = scored_predictions(results({"x": logits}, labels))
    shares, counts = confusion(given, "x")
    every, predicted = np.tile(labels, 3), logits.argmax(axis=2).ravel()
    expected = sklearn.metrics.confusion_matrix(every, predicted, labels=range(6), normalize="true")
    np.testing.assert_allclose(shares[:5], expected[:5])
    assert np.isnan(shares[5]).all() and counts.tolist() == np.bincount(labels, minlength=6).tolist()
    errors = errors_by_class(given, "x")
    np.testing.assert_allclose(errors["first"][:5], 1 - np.diag(expected)[:5])
    right = sklearn.metrics.top_k_accuracy_score(every, logits.reshape(-1, 6), k=3, labels=range(6))
    np.testing.assert_allclose(np.nansum(errors["top3"] * counts) / 200, 1 - right)
    assert np.isnan(errors["top3"][5])


def test_mistakes_come_in_the_order_of_their_confidence():
    rows = [[0.9, 0.1], [0.3, 0.7], [0.2, 0.8], [0.4, 0.6], [0.3, 0.7]]
    given = scored_predictions(results({"x": probable(rows)}, [0, 0, 0, 1, 0]))
    assert confident_mistakes(given, "x", 2) == [Mistake("x", 2, 0), Mistake("x", 1, 1)]
    assert [each.index for each in confident_mistakes(given, "x", 9)] == [2, 1, 4]


def test_mistakes_are_those_of_the_mean_over_seeds():
    one, other = probable([[0.05, 0.95], [0.4, 0.6]]), probable([[0.8, 0.2], [0.9, 0.1]])
    given = scored_predictions(results({"x": np.concatenate([one, other])}, [0, 0]))
    assert [each.index for each in confident_mistakes(given, "x", 9)] == [0]


def test_clips_are_disputed_where_variants_differ_and_one_a_class_is_shown():
    one = probable([[0.9, 0.1], [0.8, 0.2], [0.5, 0.5], [0.3, 0.7]])
    other = probable([[0.1, 0.9], [0.3, 0.7], [0.5, 0.5], [0.5, 0.5]])
    given = scored_predictions(results({"x": one, "y": other}, [0, 0, 1, 1]))
    assert disputed_clips(given, 4) == [0, 3] and disputed_clips(given, 1) == [0]


def test_test_clips_are_judged_where_any_is_scored():
    held_out = {"x": probable([[0.9, 0.1]])}
    test = {"x": np.stack([probable([[0.5, 0.5], [0.2, 0.8], [0.6, 0.4]])[0]] * 2)[None]}  # [1 seed, 2 folds, 3, 2]
    given = scored_predictions(results(held_out, [0], test, [-1, 1, 0]))
    assert given.part == "test" and given.clips.ids.tolist() == ["001", "002"]
    np.testing.assert_allclose(given.networks["x"], [[[0.2, 0.8], [0.6, 0.4]]] * 2)
    assert scored_predictions(results(held_out, [0], test, [-1, -1, -1])).part == "held out"


def test_the_most_frequent_confusions_come_first():
    shares = np.array([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0], [np.nan] * 3])
    assert most_confused(shares, 5) == [(0, 1, 0.25), (0, 2, 0.25)] and len(most_confused(shares, 1)) == 1


def test_the_baseline_the_best_and_the_worst_are_looked_at():
    def row(name, value, kind="single", part="test", clips="all"):
        return {"name": name, "kind": kind, "part": part, "clips": clips, "scores": {"top3_error": {"value": value}}}

    rows = [row("a", 0.2), row("b", 0.1), row("c", 0.3), row("none", None), row("d", 0.0, "seeds")]
    rows += [row("e", 0.0, part="public"), row("f", 0.0, clips="verified")]
    assert extremes(rows, "test", "a") == ["a", "b", "c"] and extremes(rows, "test", "c") == ["c", "b"]
