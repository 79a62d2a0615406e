"""A small residual network for training on CPU: ResNet's stage names, a stem of stride 4, one block per stage."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from audiotag_jax.models.layers import BatchNorm, square_conv


class SmallBody(nn.Module):
    """A 7x7 stem of stride 4, then four stages of one basic block: width, 2 width, 4 width and 8 width channels."""

    width: int = 24
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None = None) -> jax.Array:
        """Maps images `[B, T, F, C]` to features `[B, T/32, F/32, 8 width]`; `mask` `[B]` is nonzero in real rows."""
        x = square_conv(self.width, 7, 4, self.dtype, "conv1")(x.astype(self.dtype))
        x = nn.relu(BatchNorm(axis_name=self.axis_name, name="bn1")(x, train, mask))
        for stage in range(4):
            features, stride = self.width * 2**stage, 1 if stage == 0 else 2
            block = SmallBlock(features, stride, self.dtype, self.axis_name, name=f"layer{stage + 1}")
            x = block(x, train, mask)
        return x


class SmallBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut; a strided shortcut averages before it projects (He et al., 2019)."""

    features: int
    stride: int
    dtype: DTypeLike
    axis_name: str | None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None = None) -> jax.Array:
        """Maps x `[B, H, W, Cin]` to `[B, H / stride, W / stride, features]`."""
        y = square_conv(self.features, 3, self.stride, self.dtype, "conv1")(x)
        y = nn.relu(BatchNorm(axis_name=self.axis_name, name="bn1")(y, train, mask))
        y = square_conv(self.features, 3, 1, self.dtype, "conv2")(y)
        y = BatchNorm(axis_name=self.axis_name, name="bn2")(y, train, mask)
        if self.stride > 1 or x.shape[-1] != self.features:
            x = nn.avg_pool(x, (self.stride,) * 2, (self.stride,) * 2, padding="SAME")
            x = square_conv(self.features, 1, 1, self.dtype, "downsample_conv")(x)
            x = BatchNorm(axis_name=self.axis_name, name="downsample_bn")(x, train, mask)
        return nn.relu(x + y)
