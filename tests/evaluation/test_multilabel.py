"""Scores of clips with several labels, against scikit-learn and plain readings of their definitions."""

import numpy as np
import pytest
from sklearn import metrics as reference

from audiotag_jax.evaluation.multilabel import METRICS, label_precisions, score_table, scores
from audiotag_jax.evaluation.task import MULTI_LABEL, SINGLE_LABEL, has_label, is_scored, task_of


def draw(n=200, k=7, seed=0, ties=False):
    rng = np.random.default_rng(seed)
    truth = rng.random((n, k)) < np.linspace(0.05, 0.5, k)
    logits = rng.normal(size=(n, k)) + 1.2 * truth
    return (np.round(logits, 0) if ties else logits), truth


def plain_lwlrap(logits, truth):
    """For each label of each clip: of the classes that rank at least as high, the share that are labels of the clip."""
    found = [
        truth[i][logits[i] >= logits[i, k]].sum() / (logits[i] >= logits[i, k]).sum() for i, k in np.argwhere(truth)
    ]
    return np.mean(found)


@pytest.mark.parametrize("ties", [False, True])
def test_scores_are_those_of_scikit_learn(ties):
    logits, truth = draw(ties=ties)
    weights = np.random.default_rng(1).integers(0, 4, len(logits)).astype(float)
    found = scores(logits, truth, np.stack([np.ones(len(logits)), weights]))
    for row, own in enumerate((np.ones(len(logits)), weights)):
        for average, name in (("macro", "map"), ("micro", "micro_ap")):
            expected = reference.average_precision_score(truth, logits, average=average, sample_weight=own)
            assert found[name][row] == pytest.approx(expected, abs=1e-12)
        expected = reference.average_precision_score(truth, logits, average=None, sample_weight=own)
        np.testing.assert_allclose(found["average_precision"][row], expected, atol=1e-12)
        expected = reference.roc_auc_score(truth, logits, average=None, sample_weight=own)
        np.testing.assert_allclose(found["roc_auc"][row], expected, atol=1e-12)
        assert found["macro_auc"][row] == pytest.approx(expected.mean())
        num_labels = truth.sum(1)
        expected = reference.label_ranking_average_precision_score(
            truth[num_labels > 0], logits[num_labels > 0], sample_weight=(num_labels * own)[num_labels > 0]
        )
        assert found["lwlrap"][row] == pytest.approx(expected, abs=1e-12)
    assert found["lwlrap"][0] == pytest.approx(plain_lwlrap(logits, truth), abs=1e-12)


def test_label_precisions_by_hand():
    logits, truth = np.array([[3.0, 2, 1, 0], [0, 0, 1, 1]]), np.array([[0, 1, 0, 1], [1, 0, 0, 1]], bool)
    np.testing.assert_allclose(label_precisions(logits, truth), [[0, 1 / 2, 0, 1 / 2], [1 / 2, 0, 0, 1 / 2]])


def test_a_count_is_a_repetition():
    logits, truth = draw(40)
    counts = np.random.default_rng(2).integers(0, 3, 40)
    weighted = scores(logits, truth, counts[None].astype(float))
    repeated = np.repeat(np.arange(40), counts)
    plain = scores(logits[repeated], truth[repeated], np.ones((1, len(repeated))))
    for name, values in weighted.items():
        np.testing.assert_allclose(values, plain[name], atol=1e-12)


def test_what_is_not_defined_is_left_out():
    logits, truth = draw()
    truth[:, 0], truth[:, 1] = False, True
    found = scores(logits, truth, np.ones((1, len(logits))))
    assert np.isnan(found["average_precision"][0, 0]) and found["average_precision"][0, 1] == 1
    assert np.isnan(found["roc_auc"][0, :2]).all()
    assert found["map"][0] == pytest.approx(found["average_precision"][0, 1:].mean())
    assert found["macro_auc"][0] == pytest.approx(found["roc_auc"][0, 2:].mean())
    with pytest.raises(ValueError, match="diverged"):
        scores(np.full((2, 2), np.nan), truth[:2, :2], np.ones((1, 2)))


def predictions(n=200, copies=1, **fields):
    logits, truth = draw(n, **fields)
    ids = np.array([f"{i:04d}_{j}" for i in range(n) for j in range(copies)])
    recordings = np.array([f"r{i}" for i in range(n) for j in range(copies)])
    labels, logits = (np.repeat(each, copies, axis=0) for each in (truth.astype(np.int8), logits))
    return {
        "ids": ids,
        "labels": labels,
        "logits": logits,
        "verified": np.ones(len(ids), bool),
        "recordings": recordings,
    }


def test_the_table_has_scores_intervals_and_classes():
    saved = predictions()
    table = score_table(saved, [f"c{k}" for k in range(7)])
    assert table["num_clips"] == table["num_recordings"] == 200
    for name in METRICS:
        entry = table[name]
        assert 0 < entry["low"] < entry["value"] < entry["high"] < 1
    assert list(table["classes"]) == [f"c{k}" for k in range(7)]
    precisions = [entry["average_precision"]["value"] for entry in table["classes"].values()]
    assert np.mean(precisions) == pytest.approx(table["map"]["value"])
    assert [e["num_positive"] for e in table["classes"].values()] == (saved["labels"] == 1).sum(0).tolist()
    order = np.random.default_rng(0).permutation(200)
    assert score_table({name: values[order] for name, values in saved.items()}) == score_table(saved)


def test_copies_of_a_recording_do_not_narrow_the_interval():
    one, four = score_table(predictions(100)), score_table(predictions(100, copies=4))
    alone = score_table(predictions(100, copies=4) | {"recordings": np.full(400, "")})

    def width(table):
        return table["map"]["high"] - table["map"]["low"]

    assert width(four) == pytest.approx(width(one), rel=0.1) and width(alone) < 0.7 * width(one)


def test_the_interval_covers_the_true_value():
    """Of the mean average precision over many draws of the same kind, in about 95 of 100 samples."""
    logits, truth = draw(40_000, seed=5)
    true = scores(logits, truth, np.ones((1, len(logits))))["lwlrap"][0]
    inside = []
    for seed in range(40):
        entry = score_table(predictions(150, seed=100 + seed))["lwlrap"]
        inside.append(entry["low"] <= true <= entry["high"])
    assert np.mean(inside) >= 0.85


def test_without_clips_and_with_perfect_ones():
    saved = predictions(30)
    empty = score_table({name: values[:0] for name, values in saved.items()})
    assert empty["num_clips"] == 0 and all(empty[name]["value"] is None for name in METRICS)
    perfect = score_table(saved | {"logits": saved["labels"] * 2.0 - 1})
    assert perfect["lwlrap"]["value"] == perfect["lwlrap"]["high"] == 1 and 0.8 < perfect["lwlrap"]["low"] < 0.95
    unscored = saved | {"labels": np.where(np.arange(30)[:, None] < 10, -1, saved["labels"])}
    assert score_table(unscored)["num_clips"] == 20


def test_tasks():
    one, several = np.array([2, -1]), np.array([[1, 0, 1], [-1, -1, -1]])
    assert task_of(one) is SINGLE_LABEL and task_of(several) is MULTI_LABEL
    assert is_scored(one).tolist() == is_scored(several).tolist() == [True, False]
    assert has_label(one, np.array([2, 0])).tolist() == has_label(several, np.array([2, 0])).tolist() == [True, False]
    probabilities = np.array([[0.5, 0.3, 0.2], [0.1, 0.6, 0.55]])
    for task in (SINGLE_LABEL, MULTI_LABEL):
        shifted = task.probabilities(task.logits(np.array([[0.5, 0.25, 0.25], [0.1, 0.6, 0.3]])))
        np.testing.assert_allclose(shifted, [[0.5, 0.25, 0.25], [0.1, 0.6, 0.3]], rtol=1e-12)
        assert np.isfinite(task.logits(np.array([0.0, 1.0]))).all()
    assert SINGLE_LABEL.decide(probabilities).tolist() == [[True, False, False], [False, True, False]]
    assert not SINGLE_LABEL.decide(probabilities, 0.55)[0].any()
    assert MULTI_LABEL.decide(probabilities).tolist() == [[True, False, False], [False, True, True]]
    assert MULTI_LABEL.decide(probabilities, 0.2).sum() == 5
