"""Targets of a batch, and how much each of its examples counts; the loss is `optax.softmax_cross_entropy`."""

import jax
import jax.numpy as jnp
import optax


def soft_targets(labels: jax.Array, num_classes: int, smoothing: float = 0.0) -> jax.Array:
    """One-hot rows `[B, K]` of labels `[B]`, a share `smoothing` spread over all classes; -1 gives a row near zero."""
    return optax.smooth_labels(jax.nn.one_hot(labels, num_classes), smoothing)


def example_weights(verified: jax.Array, labels: jax.Array, unverified_weight: float) -> jax.Array:
    """Weights `[B]` float32: 1 where `verified` `[B]`, `unverified_weight` elsewhere, 0 where labels `[B]` are -1.

    Trusts labels that nobody checked less. Raises ValueError unless `unverified_weight`, a plain number, is 0 to 1.
    """
    if not 0 <= unverified_weight <= 1:
        raise ValueError(f"unverified_weight is {unverified_weight}; it must be 0 to 1.")
    weights = jnp.where(verified, 1.0, unverified_weight)
    return jnp.where(labels >= 0, weights, 0.0).astype(jnp.float32)


def weighted_targets(targets: jax.Array, weights: jax.Array) -> jax.Array:
    """Targets `[B, K]` with each row scaled by its weight `[B]`, so that its cross-entropy is weighted.

    Scale before mixup: it mixes rows, and so weights, and cross-entropy is linear in the row. The loss of a share p of
    example i with 1 - p of j is then p w_i CE_i + (1 - p) w_j CE_j, and the row's sum is its weight, p w_i + (1 - p)
    w_j: the weighted mean of a batch is the sum of its real rows' losses over the sum of those rows' targets. The
    largest entry of a mixed row need no longer be the label of the example that has the larger share.
    """
    return targets * weights[:, None]
