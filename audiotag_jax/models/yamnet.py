"""YAMNet's body (MobileNet v1 with batch norms that do not scale), with the layer names of the published Keras model.

https://github.com/tensorflow/models/tree/master/research/audioset/yamnet; Howard et al., 2017, arXiv:1704.04861.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from audiotag_jax.models.depthwise import DepthwiseConv
from audiotag_jax.models.layers import BatchNorm, PointConv, conv_init
from audiotag_jax.models.stages import Stages

YAMNET = "yamnet"  # the network, its channel, its normalization, and the published weights
NUM_CLASSES = 521  # of AudioSet that it was trained on
PATCH_FRAMES, PATCH_HOP_FRAMES, NUM_BANDS = 96, 48, 64
EPSILON = 1e-4  # of its batch norms
# Where activations end: the model published for TFLite has ReLU6, the one for Keras ReLU. Their files of weights have
# different names, so the value is read with the weights, and stays with them as a variable that is not trained.
RELU6, RELU = 6.0, float(np.finfo(np.float32).max)
# Output channels and stride of each layer: a convolution, then separable ones.
LAYERS = (
    (32, 2), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2),
    (512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1),
)  # fmt: skip
# The late layers are those whose features are at most 1/16 of a patch's size.
YAMNET_STAGES = Stages(*(tuple(f"layer{n}" for n in layers) for layers in (range(1, 7), range(7, len(LAYERS) + 1))))


class YamnetBody(nn.Module):
    """YAMNet up to its embeddings, one a patch of 0.96 s. `width` 32 is the published one, others are for tests.

    `dtype` is that of the computation: parameters and batch statistics are float32.
    """

    width: int = 32
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None = None) -> jax.Array:
        """Maps log(mel + 0.001) `[B, T, 64, 1]` to embeddings `[B, P, 1, 32 width]` of the P patches in T frames.

        `mask` `[B]` is nonzero in real rows. Raises ValueError on another shape, or on less than one patch.
        """
        if x.ndim != 4 or x.shape[2:] != (NUM_BANDS, 1) or x.shape[1] < PATCH_FRAMES:
            raise ValueError(
                f"YAMNet needs images [clips, frames, {NUM_BANDS}, 1] of {PATCH_FRAMES} frames or more, "
                f"not {list(x.shape)}."
            )
        patches = cut_patches(x)
        num_clips, num_patches = patches.shape[:2]
        x = patches.reshape(-1, *patches.shape[2:]).astype(self.dtype)
        mask = None if mask is None else jnp.repeat(mask, num_patches)
        ceiling = self.variable("batch_stats", "ceiling", lambda: jnp.full([1], RELU6, jnp.float32)).value
        for number, (channels, stride) in enumerate(LAYERS, 1):
            kind = YamnetStem if number == 1 else SeparableLayer
            features = channels * self.width // LAYERS[0][0]
            x = kind(features, stride, self.axis_name, name=f"layer{number}")(x, ceiling, train, mask)
        x = x.mean((1, 2), dtype=jnp.float32).astype(self.dtype)
        return x.reshape(num_clips, num_patches, 1, -1)


class AudioSetHead(nn.Module):
    """YAMNet's own classifier: logits of AudioSet's classes, which do not exclude each other, of one patch."""

    num_classes: int = NUM_CLASSES

    @nn.compact
    def __call__(
        self, features: jax.Array, train: bool, mask: jax.Array | None = None, positions: jax.Array | None = None
    ) -> jax.Array:
        """Returns logits `[B, K]` float32 of embeddings `[B, 1, 1, C]`; the other arguments change nothing."""
        return nn.Dense(self.num_classes, name="logits")(features.astype(jnp.float32).mean((1, 2)))


def cut_patches(x: jax.Array) -> jax.Array:
    """Cuts x `[B, T, ...]` into patches of 96 frames, one every 48: `[B, P, 96, ...]`; what is left over is dropped."""
    halves = x.shape[1] // PATCH_HOP_FRAMES
    x = x[:, : halves * PATCH_HOP_FRAMES].reshape(x.shape[0], halves, PATCH_HOP_FRAMES, *x.shape[2:])
    return jnp.concatenate([x[:, :-1], x[:, 1:]], axis=2)


class YamnetStem(nn.Module):
    """A 3 x 3 convolution, batch norm, ReLU."""

    features: int
    stride: int
    axis_name: str | None

    @nn.compact
    def __call__(self, x: jax.Array, ceiling: jax.Array, train: bool, mask: jax.Array | None) -> jax.Array:
        conv = nn.Conv(
            self.features, (3, 3), (self.stride,) * 2, "SAME", use_bias=False, dtype=x.dtype, kernel_init=conv_init,
            name="conv",
        )  # fmt: skip
        return _clipped(_norm(self, "conv_bn")(conv(x), train, mask), ceiling)


class SeparableLayer(nn.Module):
    """A 3 x 3 filter for each channel, then a 1 x 1 convolution, each with batch norm and ReLU."""

    features: int
    stride: int
    axis_name: str | None

    @nn.compact
    def __call__(self, x: jax.Array, ceiling: jax.Array, train: bool, mask: jax.Array | None) -> jax.Array:
        x = DepthwiseConv(3, self.stride, x.dtype, name="depthwise_conv")(x)
        x = _clipped(_norm(self, "depthwise_conv_bn")(x, train, mask), ceiling)
        x = PointConv(self.features, dtype=x.dtype, name="pointwise_conv")(x)
        return _clipped(_norm(self, "pointwise_conv_bn")(x, train, mask), ceiling)


def _clipped(x, ceiling):
    return jnp.clip(x, 0, ceiling.astype(x.dtype))


def _norm(layer: YamnetStem | SeparableLayer, name: str) -> BatchNorm:
    return BatchNorm(epsilon=EPSILON, axis_name=layer.axis_name, name=name)
