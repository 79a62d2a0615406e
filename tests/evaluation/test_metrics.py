"""Metrics against plain readings of their definitions and scikit-learn."""

import numpy as np
import pytest

from audiotag_jax.evaluation.metrics import METRICS, average_precisions_at_3, hits, label_ranks, top3_errors


def random_case(seed, num_clips=60, num_classes=6, tied=False):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(num_clips, num_classes))
    if tied:
        logits = rng.integers(0, 3, logits.shape).astype(np.float64)
    return logits.astype(np.float32), rng.integers(0, num_classes, num_clips)


def map_at_3(logits, labels):
    """The challenge's definition, read plainly: the mean over clips of sum over k <= 3 of P(k) rel(k).

    P(k) is the precision of the first k predictions, rel(k) is 1 where the k-th is right; a clip has one true label.
    Of two classes with the same score the one with the smaller index is predicted first.
    """
    total = 0.0
    for scores, label in zip(logits.tolist(), labels.tolist(), strict=True):
        predictions = sorted(range(len(scores)), key=lambda k: (-scores[k], k))[:3]
        right = 0
        for k, prediction in enumerate(predictions, start=1):
            if prediction == label:
                right += 1
                total += right / k
    return total / len(labels)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("num_classes", [2, 3, 41])
def test_map_at_3_by_its_definition(num_classes, tied):
    for seed in range(5):
        logits, labels = random_case(seed, num_classes=num_classes, tied=tied)
        value = average_precisions_at_3(label_ranks(logits, labels)).mean()
        assert value == pytest.approx(map_at_3(logits, labels), abs=1e-12)


def test_map_at_3_by_hand():
    logits = np.array([[4, 3, 2, 1, 0]] * 5, np.float32)
    np.testing.assert_allclose(average_precisions_at_3(label_ranks(logits, np.arange(5))), [1, 1 / 2, 1 / 3, 0, 0])


def test_accuracy_and_top3_error():
    logits, labels = random_case(0, 500)
    ranks = label_ranks(logits, labels)
    assert hits(ranks).mean() == np.mean(logits.argmax(1) == labels)
    first_three = np.argpartition(-logits, 2, axis=1)[:, :3]
    assert top3_errors(ranks).mean() == 1 - np.mean((first_three == labels[:, None]).any(1))
    assert set(np.unique(top3_errors(ranks))) == {0.0, 1.0}


def test_scores_agree_with_sklearn():
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    logits, labels = random_case(1, 300)
    expected = sklearn_metrics.top_k_accuracy_score(labels, logits, k=3, labels=range(6))
    assert top3_errors(label_ranks(logits, labels)).mean() == pytest.approx(1 - expected)


def test_ranks_of_equal_logits():
    logits = np.zeros((4, 4), np.float32)
    np.testing.assert_array_equal(label_ranks(logits, np.arange(4)), [0, 1, 2, 3])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_raise(bad):
    logits, labels = random_case(0)
    logits[7, 2] = bad
    with pytest.raises(ValueError, match="diverged"):
        label_ranks(logits, labels)


@pytest.mark.parametrize("label", [-1, 6])
def test_labels_outside_the_classes_raise(label):
    logits, labels = random_case(0)
    labels[3] = label
    with pytest.raises(ValueError, match="0 to 5"):
        label_ranks(logits, labels)


@pytest.mark.parametrize("num_classes", [2, 3, 4, 41])
def test_what_guessing_gives(num_classes):
    """The mean of each metric over the ranks that a guess is equally likely to have."""
    for metric in METRICS:
        assert metric.guessing(num_classes) == pytest.approx(metric.values(np.arange(num_classes)).mean()), metric.name


def test_names_are_of_one_metric_each_and_right_clips_agree_with_values():
    assert len({metric.name for metric in METRICS}) == len({metric.label for metric in METRICS}) == len(METRICS)
    ranks = np.arange(10)
    for metric in METRICS:
        if metric.is_right is not None:
            expected = metric.values(ranks) == (0 if metric.lower_is_better else 1)
            np.testing.assert_array_equal(metric.is_right(ranks), expected)
    assert [metric.label_in_text for metric in METRICS] == ["top-3 error", "accuracy", "MAP@3"]
