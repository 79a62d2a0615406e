"""Depthwise convolution, one filter a channel: on CPU as sums of shifted products, as XLA's own is slow there."""

import functools
import operator
from collections.abc import Callable, Iterable
from functools import partial

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
    """Convolves x `[B, H, W, C]` by XLA's convolution with as many groups as channels."""
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", dimension_numbers=layout, feature_group_count=x.shape[-1]
    )


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def depthwise_shifts(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Sums products of the shifted x `[B, H, W, C]` with one weight a channel each, which XLA fuses into one loop."""
    size = kernel.shape[0]
    windows = _windows(x, size, stride)
    return _sum(windows[i][j] * kernel[i, j, 0] for i in range(size) for j in range(size))


def _forward(x, kernel, stride):
    return depthwise_shifts(x, kernel, stride), (x, kernel)


def _backward(stride, residuals, gradient):
    x, kernel = residuals
    return _input_gradient(gradient, kernel, stride, x.shape[1:3]), _kernel_gradient(x, gradient, kernel, stride)


depthwise_shifts.defvjp(_forward, _backward)


def _windows(x: jax.Array, size: int, stride: int) -> list[list[jax.Array]]:
    """Returns, by row and column of the kernel, the values `[B, H', W', C]` that its weight is multiplied with."""
    x = jnp.pad(x, ((0, 0), *_pads(x.shape[1:3], size, stride), (0, 0)))
    rows, columns = (stride * ((length - size) // stride) + 1 for length in x.shape[1:3])
    return [[x[:, i : i + rows : stride, j : j + columns : stride] for j in range(size)] for i in range(size)]


def _pads(shape: tuple[int, ...], size: int, stride: int) -> list[tuple[int, int]]:
    return lax.padtype_to_pads(shape, (size, size), (stride, stride), "SAME")


def _input_gradient(gradient: jax.Array, kernel: jax.Array, stride: int, shape: tuple[int, ...]) -> jax.Array:
    """Returns the gradient `[B, H, W, C]` by the inputs, of which every `stride`-th row or column shares its weights.

    So each of stride^2 interleaved images is a convolution without stride, and no product with a zero is computed.
    """
    size = kernel.shape[0]
    reach = (size - 1) // stride
    height, width = (length + reach for length in gradient.shape[1:3])
    gradient = lax.optimization_barrier(jnp.pad(gradient, ((0, 0), (reach, reach), (reach, reach), (0, 0))))

    def image(row, column):
        places = [(i, j) for i in range(row, size, stride) for j in range(column, size, stride)]
        starts = [(reach - i // stride, reach - j // stride) for i, j in places]
        return _sum(
            gradient[:, top : top + height, left : left + width] * kernel[i, j, 0]
            for (i, j), (top, left) in zip(places, starts, strict=True)
        )

    rows = [jnp.stack([image(row, column) for column in range(stride)], axis=3) for row in range(stride)]
    images = jnp.stack(rows, axis=2).reshape(-1, stride * height, stride * width, kernel.shape[-1])
    (top, _), (left, _) = _pads(shape, size, stride)
    return images[:, top : top + shape[0], left : left + shape[1]]


def _kernel_gradient(x: jax.Array, gradient: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Returns the gradient `[size, size, 1, C]` by the kernel: image by image, so that all windows lie in the cache."""

    def of_image(pair):
        image, factor = (values.astype(jnp.float32) for values in pair)
        rows = _windows(image[None], kernel.shape[0], stride)
        return jnp.stack([jnp.stack([jnp.sum(window * factor, (0, 1, 2)) for window in row]) for row in rows])

    return lax.map(of_image, (x, gradient)).sum(0)[:, :, None].astype(kernel.dtype)


def _sum(terms: Iterable[jax.Array]) -> jax.Array:
    return functools.reduce(operator.add, terms)


_METHODS: dict[str, Callable] = {"native": depthwise_native, "shifts": depthwise_shifts}
