"""Targets and their weights, and what they cost, against PyTorch and closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
from optax import softmax_cross_entropy

from audiotag_jax.training.augmentation import mixup
from audiotag_jax.training.losses import (
    Loss,
    binary_masses,
    example_weights,
    losses_of,
    right_first,
    row_weights,
    soft_targets,
    target_masses,
    weighted_targets,
)


def test_soft_targets():
    labels = jnp.array([2, 0, 3])
    np.testing.assert_array_equal(soft_targets(labels, 4), np.eye(4)[[2, 0, 3]])
    smooth = soft_targets(labels, 4, 0.2)
    np.testing.assert_allclose(smooth, 0.8 * np.eye(4)[[2, 0, 3]] + 0.05, rtol=1e-6)
    np.testing.assert_allclose(smooth.sum(1), 1, rtol=1e-6)


def test_no_label_gives_no_class():
    np.testing.assert_array_equal(soft_targets(jnp.array([-1, 1]), 3), [[0, 0, 0], [0, 1, 0]])
    np.testing.assert_allclose(soft_targets(jnp.array([-1]), 4, 0.2), np.full((1, 4), 0.05), rtol=1e-6)


def test_uniform_logits_cost_log_k():
    targets = soft_targets(jnp.arange(7), 7, 0.3)
    np.testing.assert_allclose(softmax_cross_entropy(jnp.full((7, 7), 5.0), targets), np.log(7), rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_matches_torch(smoothing):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(0, 3, (30, 8)).astype(np.float32), rng.integers(0, 8, 30)
    inputs = torch.tensor(logits, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(
        inputs, torch.tensor(labels), label_smoothing=smoothing, reduction="none"
    )
    expected.sum().backward()

    def loss(logits):
        losses = softmax_cross_entropy(logits, soft_targets(jnp.asarray(labels), 8, smoothing))
        return losses.sum(), losses

    grads, losses = jax.grad(loss, has_aux=True)(jnp.asarray(logits))
    np.testing.assert_allclose(losses, expected.detach(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(grads, inputs.grad, rtol=1e-5, atol=1e-6)


# Weights.


def test_weights_trust_what_was_verified():
    verified, labels = jnp.array([True, False, True, False]), jnp.array([3, 0, -1, -1])
    weights = example_weights(verified, labels, 0.25)
    np.testing.assert_array_equal(weights, [1, 0.25, 0, 0])
    assert weights.dtype == jnp.float32
    np.testing.assert_array_equal(example_weights(verified, labels, 0), [1, 0, 0, 0])
    np.testing.assert_array_equal(example_weights(verified.astype(jnp.uint8), labels, 1), [1, 1, 0, 0])


@pytest.mark.parametrize("weight", [-0.1, 1.5, float("nan")])
def test_bad_weight_raises(weight):
    with pytest.raises(ValueError, match="unverified_weight is .*; it must be 0 to 1"):
        example_weights(jnp.array([True]), jnp.array([0]), weight)


def test_weighted_rows_weigh_the_loss_and_its_gradient():
    """And where all count fully, not a bit changes."""
    rng = np.random.default_rng(0)
    logits, weights = jnp.asarray(rng.normal(0, 3, (6, 4)), jnp.float32), jnp.asarray(rng.uniform(0, 1, 6), jnp.float32)
    targets = soft_targets(jnp.asarray(rng.integers(0, 4, 6)), 4, 0.1)
    rows = weighted_targets(targets, weights)
    np.testing.assert_allclose(rows.sum(1), weights, rtol=1e-6)
    np.testing.assert_allclose(
        softmax_cross_entropy(logits, rows), weights * softmax_cross_entropy(logits, targets), rtol=1e-5
    )
    grads = jax.grad(lambda logits: softmax_cross_entropy(logits, rows).sum())(logits)
    softmax = scipy.special.softmax(np.asarray(logits, np.float64), axis=1)
    np.testing.assert_allclose(grads, np.asarray(weights)[:, None] * (softmax - np.asarray(targets)), atol=1e-6)
    np.testing.assert_array_equal(weighted_targets(targets, jnp.ones(6)), targets)


def test_mixup_mixes_weights():
    """Two clips in shares p and 1 - p cost p w_1 CE_1 + (1 - p) w_2 CE_2."""
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(0, 2, (8, 4)), jnp.float32)
    labels, verified = jnp.array([0, 1, 2, 3, 1, 0, 3, 2]), jnp.array([1, 0, 0, 1, 1, 1, 0, 0])
    weights = example_weights(verified, labels, 0.3)
    targets = soft_targets(labels, 4, 0.1)
    keys = jax.random.split(jax.random.key(0), 8)
    images = jnp.arange(8.0).reshape(8, 1, 1, 1)
    mixed_images, mixed = mixup(keys, images, weighted_targets(targets, weights), jnp.ones(8), 1.0)
    partners = np.arange(8) ^ 1
    share = 1 - np.abs(np.asarray(mixed_images - images))[:, 0, 0, 0]
    assert share.std() > 0.05
    costs = np.stack([softmax_cross_entropy(logits, targets), softmax_cross_entropy(logits, targets[partners])])
    both = np.stack([share * weights, (1 - share) * weights[partners]])
    np.testing.assert_allclose(softmax_cross_entropy(logits, mixed), (both * costs).sum(0), rtol=1e-5)
    np.testing.assert_allclose(mixed.sum(1), both.sum(0), rtol=1e-5)


# Any number of labels a clip.


def test_binary_masses():
    labels = jnp.array([[1, 0, 0], [-1, -1, -1]], jnp.int8)
    expected = [[[1, 0], [0, 1], [0, 1]], np.zeros((3, 2))]
    np.testing.assert_array_equal(binary_masses(labels), expected)
    smooth = binary_masses(labels, 0.2)
    np.testing.assert_allclose(smooth[0], [[0.9, 0.1], [0.1, 0.9], [0.1, 0.9]], rtol=1e-6)
    assert not smooth[1].any()


def several(seed=0, n=8, k=5):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (n, k)).astype(np.float32)
    return logits, (rng.random((n, k)) < 0.4).astype(np.int8), rng.random(n) < 0.5


def test_weighted_binary_cross_entropy_is_that_of_optax():
    logits, labels, verified = several()
    masses = target_masses(jnp.asarray(labels), jnp.asarray(verified), 5, smoothing=0.1, unverified_weight=0.3)
    weights = np.where(verified, 1, 0.3)
    reference = optax.sigmoid_binary_cross_entropy(logits, 0.9 * labels + 0.05).mean(1)
    np.testing.assert_allclose(row_weights(masses), weights, rtol=1e-6)
    np.testing.assert_allclose(losses_of(jnp.asarray(logits), masses), weights * reference, rtol=1e-5)


def test_mixed_masses_cost_what_their_examples_cost():
    """Also where one of the two weighs less."""
    logits, labels, verified = several()
    masses = target_masses(jnp.asarray(labels), jnp.asarray(verified), 5, unverified_weight=0.3)
    images = jnp.eye(8)
    keys = jax.random.split(jax.random.key(0), 8)
    shares, mixed = mixup(keys, images, masses, jnp.ones(8), 1.0)  # images show the shares
    alone = np.array([[losses_of(logits[i : i + 1], masses[j : j + 1])[0] for j in range(8)] for i in range(8)])
    np.testing.assert_allclose(losses_of(logits, mixed), (np.asarray(shares) * alone).sum(1), rtol=1e-5)


def test_right_first():
    logits = jnp.array([[0.0, 2, 1], [3, 2, 1]])
    assert right_first(logits, jnp.array([1, 2])).tolist() == [True, False]
    assert right_first(logits, jnp.array([[1, 1, 0], [0, 1, 1]])).tolist() == [True, False]


# Losses by name.


def test_losses_by_name_are_their_closed_forms():
    logits, labels, verified = several(1)
    one = jnp.array([0, 1, 2, 3, 4, 0, 1, 2])
    p = np.asarray(jax.nn.softmax(logits))[np.arange(8), one]
    q = scipy.special.expit(np.where(labels == 1, logits, -logits))
    masses, binary = soft_targets(one, 5), binary_masses(jnp.asarray(labels))
    for loss, closed in [
        (Loss(), lambda p: -np.log(p)),
        (Loss("focal", focal_gamma=2.0), lambda p: -((1 - p) ** 2) * np.log(p)),
        (Loss("focal", focal_gamma=0.5), lambda p: -np.sqrt(1 - p) * np.log(p)),
        (Loss("lq", lq_exponent=0.7), lambda p: (1 - p**0.7) / 0.7),
        (Loss("lq", lq_exponent=1.0), lambda p: 1 - p),
    ]:
        np.testing.assert_allclose(losses_of(logits, masses, loss), closed(p), rtol=2e-4, atol=1e-6)
        np.testing.assert_allclose(losses_of(logits, binary, loss), closed(q).mean(1), rtol=2e-4, atol=1e-6)
    with pytest.raises(ValueError, match="choose from cross_entropy, focal, lq"):
        Loss("hinge").costs(jnp.zeros(1))


def test_focal_loss_is_that_of_optax():
    logits, labels, _ = several(2)
    reference = optax.sigmoid_focal_loss(jnp.asarray(logits), jnp.asarray(labels, jnp.float32), gamma=2.0).mean(1)
    found = losses_of(jnp.asarray(logits), binary_masses(jnp.asarray(labels)), Loss("focal", focal_gamma=2.0))
    np.testing.assert_allclose(found, reference, rtol=1e-4)


@pytest.mark.parametrize("loss", [Loss("focal", focal_gamma=0.5), Loss("lq", lq_exponent=0.1)])
def test_gradients_are_finite_where_logits_are_large(loss):
    logits = jnp.array([[200.0, -200.0], [0.0, 0.0]])
    for masses in (soft_targets(jnp.array([0, 1]), 2), binary_masses(jnp.array([[1, 0], [0, 1]]))):
        assert jnp.isfinite(jax.grad(lambda x, m=masses: losses_of(x, m, loss).sum())(logits)).all()
        wrong = jax.grad(lambda x, m=masses: losses_of(-x, m, loss).sum())(logits)
        assert jnp.isfinite(wrong).all()


def test_class_weights_scale_what_clips_of_a_class_cost():
    logits, labels, verified = several(3)
    one, weights = jnp.array([0, 1, 2, 3, 4, 0, -1, 2]), jnp.array([1.0, 2, 3, 4, 5])
    plain = target_masses(one, jnp.asarray(verified), 5, smoothing=0.1)
    weighted = target_masses(one, jnp.asarray(verified), 5, smoothing=0.1, class_weights=weights)
    expected = np.where(one >= 0, weights[one], 0)
    np.testing.assert_allclose(losses_of(logits, weighted), expected * losses_of(logits, plain), rtol=1e-6)
    of_both = jnp.stack([weights, jnp.ones(5)], axis=-1)
    weighted = target_masses(jnp.asarray(labels), jnp.ones(8, bool), 5, class_weights=of_both)
    reference = optax.sigmoid_binary_cross_entropy(logits, labels.astype(np.float32))
    expected = (np.where(labels == 1, np.asarray(weights), 1) * reference).mean(1)
    np.testing.assert_allclose(losses_of(jnp.asarray(logits), weighted), expected, rtol=1e-5)
