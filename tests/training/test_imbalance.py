"""Weights of classes against scikit-learn, and epochs that draw every class as often."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from audiotag_jax.runtime.errors import UserError
from audiotag_jax.settings.settings import parse_settings
from audiotag_jax.training.imbalance import balanced_class_weights, balanced_epoch, strata_of
from audiotag_jax.training.input_pipeline import TrainingOrder
from audiotag_jax.training.train import check_fold
from configs import log_db


def test_class_weights_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    labels = rng.choice(5, 200, p=[0.5, 0.3, 0.1, 0.07, 0.03])
    expected = compute_class_weight("balanced", classes=np.arange(5), y=labels)
    np.testing.assert_allclose(balanced_class_weights(labels, 5), expected, rtol=1e-6)
    several = (rng.random((200, 3)) < [0.02, 0.3, 0.7]).astype(np.int8)
    found = balanced_class_weights(several, 3)
    for k in range(3):
        expected = compute_class_weight("balanced", classes=np.array([1, 0]), y=several[:, k])
        np.testing.assert_allclose(found[k], expected, rtol=1e-6)
    assert balanced_class_weights(np.array([0, 0, 2]), 3)[1] == 1
    assert balanced_class_weights(np.zeros((4, 1), np.int8), 1).tolist() == [[1, 0.5]]


def test_every_class_is_drawn_as_often_and_every_clip_of_it():
    labels = np.repeat([0, 1, 2, 3], [60, 25, 10, 1])
    drawn = balanced_epoch(strata_of(labels), 97, seed=0, fold=1, epoch=2)
    counts = np.bincount(labels[drawn])
    assert len(drawn) == 97 and counts.max() - counts.min() <= 1
    for k in range(4):
        own = np.bincount(drawn, minlength=96)[labels == k]
        assert own.max() - own.min() <= 1
    assert not np.array_equal(np.sort(drawn), drawn)


def test_of_several_labels_every_class_and_clips_without_any_are_drawn():
    rng = np.random.default_rng(0)
    labels = (rng.random((300, 4)) < [0.01, 0.05, 0.2, 0.4]).astype(np.int8)
    drawn = np.concatenate([balanced_epoch(strata_of(labels), 300, 0, 0, epoch) for epoch in range(20)])
    shares = labels[drawn].mean(axis=0)
    assert (shares > 0.18).all() and (~labels[drawn].any(axis=1)).mean() == pytest.approx(0.2, abs=0.01)


def test_an_order_is_keyed_by_its_step_alone():
    labels = np.random.default_rng(0).integers(0, 5, 50)
    clips = np.arange(100, 150)
    order = TrainingOrder(clips, 4, 12, seed=3, fold=1, strata=strata_of(labels))
    steps = [order[step] for step in range(12)]
    again = pickle.loads(pickle.dumps(order))  # as a worker process gets it
    for step in (11, 5, 0):
        np.testing.assert_array_equal(again[step], steps[step])
    for epoch in range(3):
        drawn = np.concatenate(steps[4 * epoch : 4 * epoch + 4])
        assert len(drawn) == 50 and set(np.bincount(labels[drawn - 100])) == {10}
    assert not np.array_equal(np.concatenate(steps[:4]), np.concatenate(steps[4:8]))
    other = TrainingOrder(clips, 4, 12, seed=4, fold=1, strata=strata_of(labels))
    assert not np.array_equal(other[0], steps[0])


@pytest.mark.parametrize("balanced", [False, True])
def test_the_first_epochs_draw_from_verified_clips_alone(balanced):
    """As many draws as in any epoch, every verified clip about as often; the later epochs are as without them."""
    rng = np.random.default_rng(0)
    labels, verified, clips = rng.choice(3, 60, p=[0.6, 0.3, 0.1]), rng.random(60) < 0.4, np.arange(100, 160)
    strata = strata_of(labels) if balanced else None
    plain = TrainingOrder(clips, 4, 16, seed=3, fold=1, strata=strata)
    order = TrainingOrder(
        clips, 4, 16, 3, 1, strata, verified=strata_of(labels, verified, balanced=balanced), verified_epochs=2
    )
    for epoch in range(4):
        drawn = np.concatenate([order[step] for step in range(4 * epoch, 4 * epoch + 4)]) - 100
        assert len(drawn) == 60
        if epoch >= 2:
            assert [*drawn + 100] == [n for step in range(4 * epoch, 4 * epoch + 4) for n in plain[step]]
            continue
        assert verified[drawn].all()
        counts = np.bincount(labels[drawn]) if balanced else np.bincount(drawn, minlength=60)[verified]
        assert counts.max() - counts.min() <= 1
    again = pickle.loads(pickle.dumps(order))
    np.testing.assert_array_equal(again[5], order[5])
    assert not np.array_equal(order[0], order[4])


@pytest.mark.parametrize(("field", "value"), [("unverified_weight", 0.0), ("verified_epochs", 2)])
def test_without_verified_clips_is_one_error(tmp_path, field, value):
    config = log_db.get_config("folder")
    config.train[field] = value
    verified = np.array([False, False, True])
    experiment = SimpleNamespace(
        settings=parse_settings(config),
        examples=SimpleNamespace(verified=verified),
        training_clips=lambda fold: np.flatnonzero(np.arange(3) != fold),
        scored_clips=lambda fold: {},
    )
    check_fold(experiment, tmp_path, 0)
    with pytest.raises(UserError, match=f"config.train.{field} is {value:g}, and fold 2 leaves no verified clip"):
        check_fold(experiment, tmp_path, 2)


@pytest.mark.parametrize(("field", "value"), [("loss", "focal"), ("sampling", "balanced"), ("verified_epochs", 1)])
def test_a_probe_has_neither_another_loss_nor_sampling(field, value):
    config = log_db.get_config("folder_probe")
    config.train[field] = value
    with pytest.raises(UserError, match=f"config.train.{field} {value} is not for a probe"):
        parse_settings(config)
