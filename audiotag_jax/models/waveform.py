"""A one-dimensional residual network on raw waveforms, the baseline for the networks on spectrograms.

After M5 (Dai et al., 2017, arXiv:1610.00087): long strided filters, then stages that each divide the frames by 4.
Layers use `[B, T, C]` instead of `[B, T, 1, C]`, which XLA convolves far more slowly on CPU.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from audiotag_jax.models.layers import BatchNorm, conv_init

STEM_SAMPLES, STEM_STRIDE = 64, 8
STAGE_STRIDE = 4


class WaveformBody(nn.Module):
    """A stem of 64-sample filters, one every 8 samples, then four stages of one block, each of stride 4.

    Stem and first stage have 2 width channels, the others 4, 8 and 16 width. `dtype` is that of the computation:
    parameters and batch statistics are float32.
    """

    width: int = 24
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None = None) -> jax.Array:
        """Maps waveforms `[B, N, 1, 1]`, divided by their peaks, to features `[B, ceil(N / 2048), 1, 16 width]`.

        `mask` `[B]` is nonzero in real rows. Raises ValueError on another shape, or on fewer than 64 samples.
        """
        if x.ndim != 4 or x.shape[2:] != (1, 1) or x.shape[1] < STEM_SAMPLES:
            raise ValueError(
                f"The waveform network needs waveforms [clips, samples, 1, 1] of {STEM_SAMPLES} samples or more, "
                f"not {list(x.shape)}."
            )
        x = x.reshape(x.shape[0], x.shape[1], 1).astype(self.dtype)
        x = _conv(x, 2 * self.width, STEM_SAMPLES, STEM_STRIDE, "conv1")
        x = nn.relu(BatchNorm(axis_name=self.axis_name, name="bn1")(x, train, mask))
        for stage in range(4):
            x = WaveformBlock(2**stage * 2 * self.width, self.axis_name, name=f"layer{stage + 1}")(x, train, mask)
        return x[:, :, None, :]


class WaveformBlock(nn.Module):
    """Convolutions of sizes 8 and 3, the first of stride 4, with a shortcut that averages before it projects."""

    features: int
    axis_name: str | None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None) -> jax.Array:
        """Maps x `[B, T, Cin]` to `[B, ceil(T / 4), features]` in the dtype of x."""
        y = _conv(x, self.features, 2 * STAGE_STRIDE, STAGE_STRIDE, "conv1")
        y = nn.relu(BatchNorm(axis_name=self.axis_name, name="bn1")(y, train, mask))
        y = _conv(y, self.features, 3, 1, "conv2")
        y = BatchNorm(axis_name=self.axis_name, name="bn2")(y, train, mask)
        padding = _padding(x.shape[1], STAGE_STRIDE, STAGE_STRIDE)
        x = nn.avg_pool(x, (STAGE_STRIDE,), (STAGE_STRIDE,), [padding], count_include_pad=False)
        x = x.astype(y.dtype)  # `avg_pool` returns float32 with count_include_pad=False
        x = _conv(x, self.features, 1, 1, "downsample_conv")
        x = BatchNorm(axis_name=self.axis_name, name="downsample_bn")(x, train, mask)
        return nn.relu(x + y)


def _conv(x: jax.Array, features: int, size: int, stride: int, name: str) -> jax.Array:
    """Convolves x `[B, T, Cin]` to `[B, ceil(T / stride), features]` without bias, in the dtype of x."""
    padding = [_padding(x.shape[1], size, stride)]
    conv = nn.Conv(
        features, (size,), (stride,), padding, use_bias=False, dtype=x.dtype, kernel_init=conv_init, name=name
    )
    return conv(x)


def _padding(length: int, size: int, stride: int) -> tuple[int, int]:
    """Returns the zeros before and after for ceil(length / stride) windows, each centred on its `stride` values.

    Unlike with "SAME", the zeros before do not depend on the length, so the windows do not shift in a longer clip.
    """
    before = (size - stride) // 2
    last_end = (length - 1) // stride * stride - before + size
    return before, last_end - length
