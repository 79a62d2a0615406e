"""Losses of a batch, one value an example."""

import jax
import jax.numpy as jnp


def soft_targets(labels: jax.Array, num_classes: int, smoothing: float = 0.0) -> jax.Array:
    """One-hot rows `[B, K]` of labels `[B]`, a share `smoothing` spread over all classes; -1 gives a row near zero."""
    one_hot = jax.nn.one_hot(labels, num_classes)
    return one_hot * (1 - smoothing) + smoothing / num_classes


def cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Cross-entropy in nats `[B]` of logits `[B, K]` against target distributions `[B, K]`."""
    return -jnp.sum(targets * jax.nn.log_softmax(logits), axis=-1)
