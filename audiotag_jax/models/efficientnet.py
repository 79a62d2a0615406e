"""EfficientNet-Lite0, with timm's layer names and TensorFlow's padding.

Tan & Le, 2019, arXiv:1905.11946; Lite: ReLU6 in place of swish, no squeeze-and-excitation. The path of a parameter,
joined by dots, is its key in the state dict of timm's `tf_efficientnet_lite0`, except for the last name (`resnet.py`).
"""

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from audiotag_jax.models.depthwise import DepthwiseConv
from audiotag_jax.models.layers import BatchNorm, PointConv, conv_init
from audiotag_jax.models.stages import Stages

EPSILON = 1e-3  # of batch norm
LITE0 = "efficientnet_lite0"


class Blocks(NamedTuple):
    """The blocks of a stage, the first of which has the stride."""

    number: int
    size: int  # of the depthwise kernels
    stride: int
    expansion: int  # of the channels inside a block, relative to its inputs'
    features: int


STAGES = (
    Blocks(1, 3, 1, 1, 16),
    Blocks(2, 3, 2, 6, 24),
    Blocks(2, 5, 2, 6, 40),
    Blocks(3, 3, 2, 6, 80),
    Blocks(3, 5, 1, 6, 112),
    Blocks(4, 5, 2, 6, 192),
    Blocks(1, 3, 1, 6, 320),
)
LITE0_STAGES = Stages(
    early=("conv_stem", "bn1", "blocks/0", "blocks/1", "blocks/2"),
    late=("blocks/3", "blocks/4", "blocks/5", "blocks/6", "conv_head", "bn2"),  # 1/16 of the size and less
)


class EfficientNetBody(nn.Module):
    """EfficientNet-Lite0 up to its last feature map. `stages`, `stem` and `features` allow for smaller ones in tests.

    `dtype` is that of the computation: parameters and batch statistics are float32.
    """

    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None
    stages: tuple[Blocks, ...] = STAGES
    stem: int = 32
    features: int = 1280

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None = None) -> jax.Array:
        """Maps images `[B, T, F, C]` to features `[B, T/32, F/32, features]`, rounded up; `mask` as in `BatchNorm`."""
        norm = partial(BatchNorm, epsilon=EPSILON, axis_name=self.axis_name)
        conv = nn.Conv(
            self.stem, (3, 3), (2, 2), "SAME", use_bias=False, dtype=self.dtype, kernel_init=conv_init, name="conv_stem"
        )
        x = nn.relu6(norm(name="bn1")(conv(x.astype(self.dtype)), train, mask))
        x = BlockStages(self.stages, self.dtype, norm, name="blocks")(x, train, mask)
        x = PointConv(self.features, dtype=self.dtype, name="conv_head")(x)
        return nn.relu6(norm(name="bn2")(x, train, mask))


class BlockStages(nn.Module):
    """Stages named 0, 1, ..., whose blocks are named likewise."""

    stages: tuple[Blocks, ...]
    dtype: DTypeLike
    norm: partial

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None) -> jax.Array:
        for number, blocks in enumerate(self.stages):
            x = BlockStage(blocks, self.dtype, self.norm, name=str(number))(x, train, mask)
        return x


class BlockStage(nn.Module):
    """A sequence of blocks named 0, 1, ..."""

    blocks: Blocks
    dtype: DTypeLike
    norm: partial

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None) -> jax.Array:
        number, size, stride, expansion, features = self.blocks
        for index in range(number):
            block = InvertedResidual(
                features, size, stride if index == 0 else 1, expansion, self.dtype, self.norm, name=str(index)
            )
            x = block(x, train, mask)
        return x


class InvertedResidual(nn.Module):
    """1 x 1 to more channels, depthwise with the stride, 1 x 1 to fewer without activation; a shortcut where it fits.

    Without expansion there is no first convolution, and timm names the last one and its norm otherwise.
    """

    features: int
    size: int
    stride: int
    expansion: int
    dtype: DTypeLike
    norm: partial

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None) -> jax.Array:
        """Maps x `[B, H, W, Cin]` to `[B, H / stride, W / stride, features]`, rounded up."""
        y, norms, last = x, iter(("bn1", "bn2", "bn3")), "conv_pw"
        if self.expansion > 1:
            last = "conv_pwl"
            y = PointConv(self.expansion * x.shape[-1], dtype=self.dtype, name="conv_pw")(y)
            y = nn.relu6(self.norm(name=next(norms))(y, train, mask))
        y = DepthwiseConv(self.size, self.stride, self.dtype, name="conv_dw")(y)
        y = nn.relu6(self.norm(name=next(norms))(y, train, mask))
        y = PointConv(self.features, dtype=self.dtype, name=last)(y)
        y = self.norm(name=next(norms))(y, train, mask)
        return x + y if x.shape == y.shape else y
