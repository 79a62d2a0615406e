"""Averages of probabilities against small cases by hand, and against the submission's own average."""

import numpy as np
import pytest

from audiotag_jax.evaluation.predictions import average_predictions
from audiotag_jax.runtime.files import write_npz
from audiotag_jax.study.ensembles import entries
from audiotag_jax.study.results import Clips, Results, VariantLogits

SURE_OF_0, LEANING_TO_1 = np.log([0.90, 0.05, 0.05]), np.log([0.20, 0.79, 0.01])  # their mean says class 0
DOUBTFUL_1 = np.log([0.48, 0.51, 0.01])


def clips_of(labels):
    n = len(labels)
    ids = np.array([f"{k:03d}" for k in range(n)])
    return Clips(ids, np.array(labels), np.ones(n, bool), np.zeros(n, int))


def results_of(held_out, labels, test=None, test_labels=None, seeds=None):
    """Results of `{variant: [S, n, K]}` and, for test clips, `{variant: [S, J, m, K]}`."""
    variants = tuple(
        VariantLogits(name, (seeds or {}).get(name, tuple(range(len(each)))), np.asarray(each), (test or {}).get(name))
        for name, each in held_out.items()
    )
    return Results(("a", "b", "c"), clips_of(labels), clips_of(test_labels) if test else None, variants)


def random_logits(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_seeds_are_averaged_as_probabilities():
    results = results_of({"x": [[SURE_OF_0], [DOUBTFUL_1], [DOUBTFUL_1]]}, labels=[0])
    _, rows = entries(results)
    assert [(row.name, row.kind, row.seeds) for row in rows] == [
        ("x", "single", (0, 1, 2)),
        ("x, seeds averaged", "seeds", (0, 1, 2)),
    ]
    np.testing.assert_array_equal(rows[0].ranks, [[[0]], [[1]], [[1]]])
    np.testing.assert_array_equal(rows[1].ranks, [[[0]]])  # 0.62 to 0.36, though two of three say class 1


def test_probabilities_and_not_logits_are_averaged():
    certain = np.array([0.0, 30.0, 0.0])  # as logits this would outweigh any number of moderate networks
    moderate = np.log([0.8, 0.1, 0.1])
    _, rows = entries(results_of({"x": [[certain], [moderate], [moderate]]}, labels=[0]))
    assert np.mean([certain, moderate, moderate], axis=0).argmax() == 1
    np.testing.assert_array_equal(rows[1].ranks, [[[0]]])


def test_averages_of_variants_take_the_first_common_seed():
    held_out = {
        "log_db": [[LEANING_TO_1], [SURE_OF_0], [LEANING_TO_1]],
        "mel_db": [[DOUBTFUL_1], [LEANING_TO_1]],
        "hires_q2": [[DOUBTFUL_1], [DOUBTFUL_1]],
        "hires_q8": [[LEANING_TO_1]],
    }
    seeds = {"mel_db": (1, 2), "hires_q8": (7,)}
    _, rows = entries(results_of(held_out, labels=[0], seeds=seeds))
    rows = [row for row in rows if row.kind == "variants"]
    # no seed is common to all four, nor to the high-resolution ones; seeds 1 and 2 are to the standard ones
    assert [(row.name, row.variants, row.seeds) for row in rows] == [
        ("standard variants averaged (2)", ("log_db", "mel_db"), (1,)),
    ]
    np.testing.assert_array_equal(rows[0].ranks, [[[0]]])  # of seeds 0 and 2 it would be class 1


def test_variants_and_folds_are_averaged_together_on_test_clips():
    test = {name: random_logits(2, 3, 40, 3, seed=k) for k, name in enumerate(("log_db", "mel_db"))}
    held_out = {name: random_logits(2, 4, 3) for name in test}
    labels = np.arange(40) % 3
    clips, rows = entries(results_of(held_out, [0] * 4, test, labels), test=True)
    [row] = [row for row in rows if row.name == "all variants averaged (2), folds averaged"]
    assert (row.kind, row.seeds, row.ranks.shape) == ("variants", (0,), (1, 1, 40))
    exponentials = np.exp(np.stack([test[name][0] for name in test]).astype(np.float64))
    mean = (exponentials / exponentials.sum(-1, keepdims=True)).mean((0, 1))
    np.testing.assert_array_equal(row.ranks[0, 0] == 0, mean.argmax(1) == clips.labels)
    assert not any("folds" in row.name for row in entries(results_of(held_out, [0] * 4))[1])


def test_groups_of_variants():
    names = ("log_db", "mel_db", "hires_q1", "hires_q8", "mix_q1_q8_log")
    logits = {name: random_logits(1, 20, 3, seed=k) for k, name in enumerate(names)}
    labels = np.arange(20) % 3

    def groups(*chosen):
        _, rows = entries(results_of({name: logits[name] for name in chosen}, labels))
        return {row.name: row.variants for row in rows if row.kind == "variants"}

    assert groups("log_db") == {}
    assert groups("log_db", "mel_db") == {"all variants averaged (2)": ("log_db", "mel_db")}  # not once more
    assert groups("log_db", "hires_q1") == {"all variants averaged (2)": ("log_db", "hires_q1")}
    assert groups(*names) == {
        "all variants averaged (5)": names,
        "standard variants averaged (2)": names[:2],
        "high-resolution variants averaged (2)": names[2:4],
    }


def test_folds_are_averaged_as_in_a_submission(tmp_path):
    test = random_logits(2, 3, 40, 3)
    labels = np.arange(40) % 3
    _, rows = entries(results_of({"x": random_logits(2, 5, 3)}, [0] * 5, {"x": test}, labels), test=True)
    assert [(row.kind, row.ranks.shape) for row in rows] == [
        ("single", (2, 3, 40)),
        ("seeds", (1, 3, 40)),
        ("folds", (2, 1, 40)),
    ]
    files = [tmp_path / f"{fold}.npz" for fold in range(3)]
    for file, logits in zip(files, test[1], strict=True):
        write_npz(file, ids=labels.astype(str), labels=labels, verified=labels >= 0, logits=logits)
    order = np.argsort(-average_predictions(files)["logits"], axis=1)
    np.testing.assert_array_equal(rows[2].ranks[1, 0], np.argmax(order == labels[:, None], axis=1))


def test_clips_without_a_label_are_left_out():
    test = random_logits(1, 2, 4, 3)
    results = results_of({"x": random_logits(1, 3, 3)}, [0, -1, 2], {"x": test}, [-1, 1, -1, 2])
    clips, rows = entries(results)
    assert clips.ids.tolist() == ["000", "002"] and rows[0].ranks.shape == (1, 1, 2)
    clips, rows = entries(results, test=True)
    assert clips.ids.tolist() == ["001", "003"]
    expected = [[(fold[k] > fold[k, label]).sum() for k, label in ((1, 1), (3, 2))] for fold in test[0]]
    np.testing.assert_array_equal(rows[0].ranks[0], expected)


@pytest.mark.parametrize("shift", [0.0, 1e3])
def test_large_logits_do_not_overflow(shift):
    logits = (np.array([[SURE_OF_0], [DOUBTFUL_1], [DOUBTFUL_1]]) + shift).astype(np.float32)
    _, rows = entries(results_of({"x": logits}, labels=[0]))
    np.testing.assert_array_equal(rows[1].ranks, [[[0]]])
