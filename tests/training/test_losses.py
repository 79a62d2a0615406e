"""Targets and their weights, and what they cost, against PyTorch and closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from optax import softmax_cross_entropy

from audiotag_jax.training.augmentation import mixup
from audiotag_jax.training.losses import example_weights, soft_targets, weighted_targets


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
