"""The classifier on top of a feature map, shared by every body."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from audiotag_jax.models.layers import BatchNorm, Dropout, linear_init


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


def global_max(x: jax.Array) -> jax.Array:
    """Returns the maximum `[B, C]` of x `[B, ..., C]` over all positions; the first of equal ones gets the gradient.

    The gradient of `x.max` searches the maximum by `==`; if the compiler computes x twice with different rounding, no
    value is equal and the gradient is silently zero (seen on CPU under jit, after batch norm and ReLU).
    """
    return nn.max_pool(x, x.shape[1:-1]).reshape(x.shape[0], x.shape[-1])
