"""Logits of several runs come together by clip id, whatever their order on disk."""

import numpy as np
import pytest

from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.files import write_npz
from audiotag_jax.study.results import Run, read_results

IDS = np.array(["e", "a", "d", "b", "c", "f"])  # as they lie on disk; the first three are held out by fold 0
LABELS = np.array([1, 0, 2, 0, 1, 2])


def write_run(folder, offset=0.0, *, order=None, labels=LABELS, test=True):
    for fold, clips in enumerate(np.split(np.arange(6), 2)):
        clips = clips if order is None else clips[order]
        logits = np.stack(
            [100.0 * fold + np.array([ord(name) for name in IDS[clips]]) + offset + k for k in range(3)], 1
        )
        fields = {"ids": IDS[clips], "labels": labels[clips], "verified": IDS[clips] != "a"}
        (folder / f"fold_{fold}").mkdir(parents=True)
        write_npz(folder / f"fold_{fold}" / "predictions.npz", logits=logits, **fields)
        if test:
            fields = {"ids": np.array(["z", "y"]), "labels": np.array([0, -1]), "verified": np.array([True, False])}
            test_logits = np.array([[1.0, 2, 3], [4, 5, 6]]) + 10 * fold + offset
            write_npz(folder / f"fold_{fold}" / "test_predictions.npz", logits=test_logits, **fields)
    return dict.fromkeys((0, 1), folder)


def test_clips_are_aligned_by_id_over_folds_seeds_and_variants(tmp_path):
    runs = [
        Run("mel_db", 1, write_run(tmp_path / "1", offset=0.5, order=[2, 0, 1])),
        Run("mel_db", 0, write_run(tmp_path / "0")),
        Run("log_db", 0, write_run(tmp_path / "2", offset=0.25)),
    ]
    results = read_results(runs, ("x", "y", "z"))
    assert [variant.variant for variant in results.variants] == ["mel_db", "log_db"]
    assert results["mel_db"].seeds == (0, 1)
    assert results.held_out.ids.tolist() == list("abcdef")
    assert results.held_out.folds.tolist() == [0, 1, 1, 0, 0, 1]
    assert results.held_out.labels.tolist() == [0, 0, 1, 2, 1, 2]
    assert results.held_out.verified.tolist() == [False] + [True] * 5
    expected = np.array([ord(name) for name in "abcdef"]) + 100.0 * results.held_out.folds
    np.testing.assert_allclose(results["mel_db"].held_out[0, :, 0], expected)
    np.testing.assert_allclose(results["mel_db"].held_out[1, :, 2], expected + 2.5)
    assert results.test.ids.tolist() == ["y", "z"] and results.test.labels.tolist() == [-1, 0]
    assert results["mel_db"].test.shape == (2, 2, 2, 3)
    np.testing.assert_allclose(results["mel_db"].test[0, 1], [[14.0, 15, 16], [11, 12, 13]])


def test_folds_of_one_run_may_lie_in_several_directories(tmp_path):
    first, second = write_run(tmp_path / "0"), write_run(tmp_path / "1", offset=0.5)
    mixed = read_results([Run("log_db", 0, {0: first[0], 1: second[1]})], "xyz")["log_db"]
    whole = read_results([Run("log_db", 0, first)], "xyz")["log_db"]
    np.testing.assert_allclose((mixed.held_out - whole.held_out)[0, :, 0], [0, 0.5, 0.5, 0, 0, 0.5])


def test_other_labels_or_other_clips_are_an_error(tmp_path):
    first = write_run(tmp_path / "0")
    with pytest.raises(UserError, match=r"mel_db, seed 3 and log_db, seed 0 differ in the labels"):
        read_results([Run("log_db", 0, first), Run("mel_db", 3, write_run(tmp_path / "1", labels=LABELS[::-1]))], "xyz")
    with pytest.raises(UserError, match="two folds hold out the same clip"):
        (tmp_path / "2" / "fold_1").mkdir(parents=True)
        source = tmp_path / "0" / "fold_0" / "predictions.npz"
        (tmp_path / "2" / "fold_1" / "predictions.npz").write_bytes(source.read_bytes())
        read_results([Run("log_db", 0, {0: tmp_path / "0", 1: tmp_path / "2"})], "xyz")
    with pytest.raises(UserError, match="do not both have test predictions"):
        read_results([Run("log_db", 0, first), Run("mel_db", 0, write_run(tmp_path / "3", test=False))], "xyz")
