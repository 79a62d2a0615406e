"""The classifier on top of a feature map, shared by every body."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from audiotag_jax.models.layers import BatchNorm, Dropout, linear_init

POOLINGS = ("mean", "mean_std", "mean_max")  # over the positions of a feature map


class TaggingHead(nn.Module):
    """The head of fastai v1: pooling, batch norm, dropout, `hidden` units, ReLU, batch norm, dropout, K logits.

    Computes in float32 throughout. The first dropout has half the rate of the second.
    """

    num_classes: int
    dropout: float = 0.5
    hidden: int = 512
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, features: jax.Array, train: bool, mask: jax.Array | None = None, positions: jax.Array | None = None
    ) -> jax.Array:
        """Returns logits `[B, K]` float32 of features `[B, ..., C]`.

        `mask` `[B]` marks real rows (see `BatchNorm`), `positions` `[B]` numbers rows in the global batch (`Dropout`).
        """
        features = features.astype(jnp.float32)
        spatial = tuple(range(1, features.ndim - 1))
        x = jnp.concatenate([features.mean(spatial), global_max(features)], axis=-1)
        x = BatchNorm(axis_name=self.axis_name, name="bn1")(x, train, mask)
        x = Dropout(self.dropout / 2, name="dropout1")(x, train, positions)
        x = nn.relu(nn.Dense(self.hidden, kernel_init=linear_init, name="linear1")(x))
        x = BatchNorm(axis_name=self.axis_name, name="bn2")(x, train, mask)
        x = Dropout(self.dropout, name="dropout2")(x, train, positions)
        return nn.Dense(self.num_classes, kernel_init=linear_init, name="linear2")(x)


class ProbeHead(nn.Module):
    """A linear classifier on pooled features, raised to `power`, that were standardized over the training clips.

    All in float32.
    """

    num_classes: int
    pooling: str = "mean"
    power: float = 1.0

    @nn.compact
    def __call__(
        self, features: jax.Array, train: bool, mask: jax.Array | None = None, positions: jax.Array | None = None
    ) -> jax.Array:
        """Returns logits `[B, K]` float32 of features `[B, ..., C]`; the other arguments change nothing."""
        pooled = pool_features(features, self.pooling)
        if self.power != 1:
            pooled = jnp.sign(pooled) * jnp.abs(pooled) ** self.power
        mean = self.variable("batch_stats", "mean", jnp.zeros, pooled.shape[-1:])
        std = self.variable("batch_stats", "std", jnp.ones, pooled.shape[-1:])
        linear = nn.Dense(self.num_classes, kernel_init=nn.initializers.zeros, name="linear")
        return linear((pooled - mean.value) / std.value)


def pool_features(features: jax.Array, pooling: str) -> jax.Array:
    """Returns `[B, D]` float32 of features `[B, ..., C]`: the mean over positions, alone or beside another statistic.

    D is C for `mean` and 2 C for `mean_std` and `mean_max`. Raises ValueError, listing the choices, on another one.
    """
    features = features.astype(jnp.float32)
    positions = tuple(range(1, features.ndim - 1))
    mean = features.mean(positions)
    if pooling == "mean":
        return mean
    if pooling == "mean_std":
        return jnp.concatenate([mean, features.std(positions)], axis=-1)
    if pooling == "mean_max":
        return jnp.concatenate([mean, features.max(positions)], axis=-1)
    raise ValueError(f"Unknown pooling {pooling!r}; choose from {', '.join(POOLINGS)}.")


def global_max(x: jax.Array) -> jax.Array:
    """Returns the maximum `[B, C]` of x `[B, ..., C]` over all positions; the first of equal ones gets the gradient.

    The gradient of `x.max` searches the maximum by `==`; if the compiler computes x twice with different rounding, no
    value is equal and the gradient is silently zero (seen on CPU under jit, after batch norm and ReLU).
    """
    return nn.max_pool(x, x.shape[1:-1]).reshape(x.shape[0], x.shape[-1])
