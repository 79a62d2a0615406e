"""Layers shared by the networks, with equal results for padded batches and any number of devices."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from audiotag_jax.models.gradients import conv1x1, conv3x3


class BatchNorm(nn.Module):
    """Batch normalization over real rows, averaged over devices (Ioffe & Szegedy, 2015), numerically as PyTorch's.

    Variables are those of `flax.linen.BatchNorm`: params `scale`, `bias`; batch_stats `mean`, `var`, all float32 `[C]`.
    Training normalizes with the biased variance of the batch and moves the running variance towards the unbiased one.
    `momentum` is PyTorch's: the weight of the new value. `axis_name` names the pmapped axis; None means one device.
    """

    momentum: float = 0.1
    epsilon: float = 1e-5
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None = None) -> jax.Array:
        """Normalizes x `[B, ..., C]`; `mask` `[B]` is nonzero (or True) in real rows, None if all are real.

        Padding rows are normalized too, but enter no statistic, nor its gradient. With fewer than two real values per
        channel the running statistics stay unchanged.
        """
        channels = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, channels)
        bias = self.param("bias", nn.initializers.zeros, channels)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels)
        x32 = x.astype(jnp.float32)
        if train:
            axis_name = None if self.is_initializing() else self.axis_name  # init runs outside of pmap
            mean, var, count = masked_moments(x32, mask, axis_name)
            if not self.is_initializing():
                unbiased = var * (count / jnp.maximum(count - 1, 1))
                rate = jnp.where(count > 1, self.momentum, 0.0)
                running_mean.value += rate * (mean - running_mean.value)
                running_var.value += rate * (unbiased - running_var.value)
        else:
            mean, var = running_mean.value, running_var.value
        return ((x32 - mean) * (scale * lax.rsqrt(var + self.epsilon)) + bias).astype(x.dtype)


def masked_moments(
    x: jax.Array, mask: jax.Array | None, axis_name: str | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns mean `[C]`, biased variance `[C]` and count `[]` of x `[B, ..., C]`, over real rows and all devices.

    Uses two passes, hence two small collectives: E[x^2] - E[x]^2 loses all digits in float32 once |mean| > 3000 std.
    Supports first derivatives only. Without a real row, mean and variance are 0.
    """
    axes = tuple(range(x.ndim - 1))
    real = jnp.ones(x.shape[0], bool) if mask is None else mask != 0
    where = real.reshape((-1,) + (1,) * (x.ndim - 1))

    def total(values):
        return values if axis_name is None else lax.psum(values, axis_name)

    positions = x[0, ..., 0].size
    count, sums = total((positions * real.sum(dtype=jnp.float32), jnp.sum(x, axes, where=where)))
    divisor = jnp.maximum(count, 1)
    mean = sums / divisor
    # The derivative of the variance by the mean is 0, since the deviations sum to 0: no gradient is needed.
    deviations = x - lax.stop_gradient(mean)
    var = total(jnp.sum(deviations**2, axes, where=where)) / divisor
    return mean, var, count


class Dropout(nn.Module):
    """Dropout with masks keyed by the row of the global batch, whatever its device (Srivastava et al., 2014)."""

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, positions: jax.Array | None) -> jax.Array:
        """Zeroes values of x `[B, ...]` with probability `rate` and divides the others by 1 - rate; identity in eval.

        `positions` `[B]` int is each row's index in the global batch (needed only in training). The rng `dropout` must
        be the same on all devices. Raises ValueError if rate is outside [0, 1), or positions do not match x.
        """
        if not 0 <= self.rate < 1:
            raise ValueError(f"Dropout rate is {self.rate}; it must be at least 0 and below 1.")
        if not train or self.rate == 0:
            return x
        if positions is None or jnp.shape(positions) != x.shape[:1]:
            raise ValueError(f"Dropout needs one position per row in training: {x.shape[0]} of them.")
        key = self.make_rng("dropout")
        row_keys = jax.vmap(lambda position: jax.random.fold_in(key, position))(jnp.asarray(positions))
        keep = jax.vmap(lambda row_key: jax.random.bernoulli(row_key, 1 - self.rate, x.shape[1:]))(row_keys)
        return jnp.where(keep, x / (1 - self.rate), 0).astype(x.dtype)


_LAYOUT = ("NHWC", "HWIO", "NHWC")
# Kaiming normal (He et al., 2015): torchvision's initialization of convolutions, fastai's of linear layers.
conv_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
linear_init = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


def square_conv(features: int, size: int, stride: int, dtype: DTypeLike, name: str) -> nn.Module:
    """Returns a `size` x `size` convolution without bias, padded by size // 2 on each side as torchvision's."""
    if size == 1:
        return PointConv(features, stride, dtype, name=name)
    padding = ((size // 2, size // 2),) * 2  # "SAME" would pad even inputs unevenly under stride 2
    faster = size == 3 and jax.default_backend() == "cpu"
    return nn.Conv(
        features,
        (size, size),
        (stride, stride),
        padding,
        use_bias=False,
        dtype=dtype,
        kernel_init=conv_init,
        conv_general_dilated=_conv3x3 if faster else None,
        name=name,
    )


def _conv3x3(x, kernel, strides, *_, **__):
    """Adapts `conv3x3` to the arguments with which `flax.linen.Conv` calls `lax.conv_general_dilated`."""
    return conv3x3(x, kernel, strides[0])


class PointConv(nn.Module):
    """A 1 x 1 convolution without bias; on CPU one matrix product, since XLA's convolutions are several times slower.

    Elsewhere it is XLA's convolution: XLA for GPU failed to compile products of strided slices (JAX 0.11.2, ResNeXt).
    Its parameter `kernel` `[1, 1, Cin, features]` equals that of `flax.linen.Conv`. `method` is "native", "product",
    or None, which chooses by device.
    """

    features: int
    stride: int = 1
    dtype: DTypeLike = jnp.float32
    method: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x `[B, H, W, Cin]` to `[B, H', W', features]`; raises ValueError on an unknown method."""
        method = self.method or ("product" if jax.default_backend() == "cpu" else "native")
        kernel = self.param("kernel", conv_init, (1, 1, x.shape[-1], self.features)).astype(self.dtype)
        x = x.astype(self.dtype)
        if method == "native":
            return lax.conv_general_dilated(x, kernel, (self.stride,) * 2, "VALID", dimension_numbers=_LAYOUT)
        if method != "product":
            raise ValueError(f"Unknown method {method!r} of PointConv; choose from native, product.")
        return conv1x1(x[:, :: self.stride, :: self.stride], kernel[0, 0])


class GroupedConv(nn.Module):
    """Grouped convolution without bias, padded by size // 2 (Xie et al., 2017, arXiv:1611.05431).

    Its `kernel` `[size, size, Cin / groups, features]` equals that of `flax.linen.Conv` with `feature_group_count`.
    `method` is "native", "blocks", or None: blocks on CPU, where XLA's native gradient is far slower, else native.
    """

    features: int
    groups: int
    size: int = 3
    stride: int = 1
    dtype: DTypeLike = jnp.float32
    method: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolves x `[B, H, W, Cin]` to `[B, H', W', features]`.

        Raises ValueError if groups do not divide the channels, or on an unknown method.
        """
        if x.shape[-1] % self.groups or self.features % self.groups:
            raise ValueError(f"{self.groups} groups do not divide {x.shape[-1]} and {self.features} channels.")
        method = self.method or ("blocks" if jax.default_backend() == "cpu" else "native")
        if method not in _GROUPED_METHODS:
            raise ValueError(f"Unknown method {method!r} of GroupedConv; choose from {', '.join(_GROUPED_METHODS)}.")
        shape = (self.size, self.size, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", conv_init, shape)
        return _GROUPED_METHODS[method](x.astype(self.dtype), kernel.astype(self.dtype), self.groups, self.stride)


_BLOCK_CHANNELS = 32


def _grouped_native(x: jax.Array, kernel: jax.Array, groups: int, stride: int) -> jax.Array:
    padding = ((kernel.shape[0] // 2,) * 2,) * 2
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=_LAYOUT, feature_group_count=groups
    )


def _grouped_blocks(x: jax.Array, kernel: jax.Array, groups: int, stride: int) -> jax.Array:
    """Convolves blocks of groups, up to 32 channels each, with dense kernels that are zero between the groups."""
    size, _, group_in, features = kernel.shape
    together = max(n for n in range(1, groups + 1) if groups % n == 0 and (n == 1 or n * group_in <= _BLOCK_CHANNELS))
    blocks, padding = groups // together, ((size // 2,) * 2,) * 2
    kernel = kernel.reshape(size, size, group_in, blocks, together, features // groups)
    own = jnp.eye(together, dtype=kernel.dtype)[:, None, :, None]  # [group of inputs, 1, group of outputs, 1]
    kernels = kernel.transpose(3, 0, 1, 2, 4, 5)[:, :, :, None] * own  # an einsum would not be converted to ONNX
    kernels = kernels.reshape(blocks, size, size, together * group_in, features // blocks)
    parts = [
        lax.conv_general_dilated(part, kernels[i], (stride, stride), padding, dimension_numbers=_LAYOUT)
        for i, part in enumerate(jnp.split(x, blocks, axis=-1))
    ]
    return jnp.concatenate(parts, axis=-1)


_GROUPED_METHODS = {"native": _grouped_native, "blocks": _grouped_blocks}
