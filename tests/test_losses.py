"""Losses against PyTorch and closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from audiotag_jax.losses import cross_entropy, soft_targets


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
    np.testing.assert_allclose(cross_entropy(jnp.full((7, 7), 5.0), targets), np.log(7), rtol=1e-6)


def test_soft_target_costs_its_entropy_at_best():
    rng = np.random.default_rng(0)
    targets = rng.dirichlet(np.ones(5), 20)
    best = cross_entropy(jnp.log(jnp.asarray(targets)), jnp.asarray(targets))
    np.testing.assert_allclose(best, scipy.special.entr(targets).sum(1), rtol=1e-5)
    grads = jax.grad(lambda logits: cross_entropy(logits, targets).sum())(jnp.log(jnp.asarray(targets)))
    np.testing.assert_allclose(grads, 0, atol=1e-6)


def test_large_logits_stay_finite():
    logits = jnp.array([[1e4, 0.0, -1e4]])
    targets = jnp.eye(3)
    np.testing.assert_allclose(cross_entropy(jnp.repeat(logits, 3, 0), targets), [0, 1e4, 2e4], rtol=1e-6)


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
        losses = cross_entropy(logits, soft_targets(jnp.asarray(labels), 8, smoothing))
        return losses.sum(), losses

    grads, losses = jax.grad(loss, has_aux=True)(jnp.asarray(logits))
    np.testing.assert_allclose(losses, expected.detach(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(grads, inputs.grad, rtol=1e-5, atol=1e-6)
