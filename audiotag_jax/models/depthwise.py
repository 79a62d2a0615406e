"""Depthwise convolution: one filter a channel. XLA's own is far slower on CPU than sums of shifted products."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

depthwise_init = nn.initializers.variance_scaling(2.0, "fan_in", "normal")  # fan-in and fan-out of a channel are equal


class DepthwiseConv(nn.Module):
    """A depthwise convolution without bias, padded as TensorFlow's "SAME".

    Its parameter `kernel` `[size, size, 1, C]` equals that of `flax.linen.Conv` with as many groups as channels.
    `method` is "native", "shifts", or None: shifts on CPU, else native.
    """

    size: int
    stride: int = 1
    dtype: DTypeLike = jnp.float32
    method: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolves x `[B, H, W, C]` to `[B, H / stride, W / stride, C]`, rounded up.

        Raises ValueError on an unknown method.
        """
        method = self.method or ("shifts" if jax.default_backend() == "cpu" else "native")
        if method not in _METHODS:
            raise ValueError(f"Unknown method {method!r} of DepthwiseConv; choose from {', '.join(_METHODS)}.")
        kernel = self.param("kernel", depthwise_init, (self.size, self.size, 1, x.shape[-1]))
        return _METHODS[method](x.astype(self.dtype), kernel.astype(self.dtype), self.stride)


def depthwise_native(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """XLA's convolution with as many groups as channels."""
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", dimension_numbers=layout, feature_group_count=x.shape[-1]
    )


def depthwise_shifts(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Sums products of the shifted input and one row of the kernel each, which XLA fuses into one loop."""
    size = kernel.shape[0]
    pads = lax.padtype_to_pads(x.shape[1:3], (size, size), (stride, stride), "SAME")
    height, width = (-(-length // stride) for length in x.shape[1:3])
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    rows, columns = stride * (height - 1) + 1, stride * (width - 1) + 1
    total = jnp.zeros((), x.dtype)
    for i in range(size):
        for j in range(size):
            total += x[:, i : i + rows : stride, j : j + columns : stride] * kernel[i, j, 0]
    return total


_METHODS = {"native": depthwise_native, "shifts": depthwise_shifts}
