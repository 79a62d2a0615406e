"""ResNet and ResNeXt bodies, with torchvision's layer names, padding and initialization.

He et al., 2015, arXiv:1512.03385; Xie et al., 2017, arXiv:1611.05431. The path of a parameter in `ResNetBody`, joined
by dots, is its key in torchvision's state dict except for the last name: `kernel` (HWIO) and `scale` are `weight`
there (OIHW for kernels), `mean` and `var` are `running_mean` and `running_var`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from audiotag_jax.models.layers import BatchNorm, GroupedConv, square_conv

IMAGENET, IMAGENET_NETWORK = "imagenet", "resnext50_32x4d"  # the weights that can be downloaded, and their network
# Fields of ResNetBody by architecture.
BODIES: dict[str, dict[str, Any]] = {
    "resnet18": {"block": "basic", "stage_sizes": (2, 2, 2, 2)},
    "resnet34": {"block": "basic", "stage_sizes": (3, 4, 6, 3)},
    "resnet50": {"block": "bottleneck", "stage_sizes": (3, 4, 6, 3)},
    "resnext50_32x4d": {"block": "bottleneck", "stage_sizes": (3, 4, 6, 3), "groups": 32, "group_width": 4},
}


class ResNetBody(nn.Module):
    """A residual network up to its last feature map; `BODIES` lists the fields of the usual ones.

    `width` is the number of channels of the stem and of the first stage's blocks before expansion. In a bottleneck of
    the first stage each of the `groups` has `group_width` channels; None means width / groups. `dtype` is that of the
    computation: parameters and batch statistics are float32. `grouped_method` is `GroupedConv.method`.
    """

    block: str
    stage_sizes: tuple[int, ...]
    width: int = 64
    groups: int = 1
    group_width: int | None = None
    axis_name: str | None = None
    dtype: DTypeLike = jnp.float32
    grouped_method: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None = None) -> jax.Array:
        """Maps x `[B, T, F, C]` to features `[B, t, f, c]` in `dtype`, 1/32 of the size after four stages.

        `mask` `[B]` marks real rows (see `BatchNorm`). Raises ValueError on an unknown block or a grouped basic one.
        """
        conv = partial(square_conv, dtype=self.dtype)
        norm = partial(BatchNorm, axis_name=self.axis_name)
        x = conv(self.width, size=7, stride=2, name="conv1")(x)
        x = nn.relu(norm(name="bn1")(x, train, mask))
        x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))  # pads with -inf
        for stage, blocks in enumerate(self.stage_sizes):
            block = self._block(2**stage, conv, norm)
            x = Stage(block, blocks, stride=1 if stage == 0 else 2, name=f"layer{stage + 1}")(x, train, mask)
        return x

    def _block(self, scale: int, conv: Callable, norm: Callable) -> Callable:
        """Returns the constructor of a stage's blocks, which are `scale` times as wide as those of the first stage."""
        channels = scale * self.width
        if self.block == "basic":
            if self.groups != 1 or self.group_width is not None:
                raise ValueError("The basic block has no groups; choose block bottleneck.")
            return partial(BasicBlock, channels, conv=conv, norm=norm)
        if self.block == "bottleneck":
            group_width = self.width // self.groups if self.group_width is None else self.group_width
            middle = partial(conv, scale * group_width, size=3)
            if self.groups > 1:
                features = scale * group_width * self.groups
                middle = partial(GroupedConv, features, self.groups, dtype=self.dtype, method=self.grouped_method)
            return partial(Bottleneck, 4 * channels, middle=middle, conv=conv, norm=norm)
        raise ValueError(f"Unknown block {self.block!r}; choose from basic, bottleneck.")


class Stage(nn.Module):
    """A sequence of blocks named 0, 1, ...; the first one has the stride."""

    block: Callable
    blocks: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None) -> jax.Array:
        for index in range(self.blocks):
            x = self.block(stride=self.stride if index == 0 else 1, name=str(index))(x, train, mask)
        return x


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions with a residual connection."""

    channels: int
    stride: int
    conv: Callable
    norm: Callable

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None) -> jax.Array:
        y = self.conv(self.channels, size=3, stride=self.stride, name="conv1")(x)
        y = nn.relu(self.norm(name="bn1")(y, train, mask))
        y = self.conv(self.channels, size=3, stride=1, name="conv2")(y)
        y = self.norm(name="bn2")(y, train, mask)
        if x.shape != y.shape:
            x = Downsample(self.channels, self.stride, self.conv, self.norm, name="downsample")(x, train, mask)
        return nn.relu(x + y)


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 (`middle`), 1 x 1; the 3 x 3 has the stride, as in torchvision ("v1.5"), unlike in the paper."""

    channels: int
    stride: int
    middle: Callable
    conv: Callable
    norm: Callable

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None) -> jax.Array:
        middle = self.middle(stride=self.stride, name="conv2")
        y = self.conv(middle.features, size=1, stride=1, name="conv1")(x)
        y = nn.relu(self.norm(name="bn1")(y, train, mask))
        y = nn.relu(self.norm(name="bn2")(middle(y), train, mask))
        y = self.conv(self.channels, size=1, stride=1, name="conv3")(y)
        y = self.norm(name="bn3")(y, train, mask)
        if x.shape != y.shape:
            x = Downsample(self.channels, self.stride, self.conv, self.norm, name="downsample")(x, train, mask)
        return nn.relu(x + y)


class Downsample(nn.Module):
    """Projects a block's input to the shape of its output: 1 x 1 convolution `0`, batch norm `1`."""

    channels: int
    stride: int
    conv: Callable
    norm: Callable

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None) -> jax.Array:
        x = self.conv(self.channels, size=1, stride=self.stride, name="0")(x)
        return self.norm(name="1")(x, train, mask)
