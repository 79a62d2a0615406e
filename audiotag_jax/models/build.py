"""Builds a network: a body by name, and the head that all bodies share."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from audiotag_jax.models.efficientnet import LITE0, LITE0_STAGES, EfficientNetBody
from audiotag_jax.models.head import ProbeHead, TaggingHead, pool_features
from audiotag_jax.models.resnet import BODIES, ResNetBody
from audiotag_jax.models.small import SmallBody
from audiotag_jax.models.stages import RESIDUAL
from audiotag_jax.models.waveform import WaveformBody
from audiotag_jax.models.yamnet import YAMNET, YAMNET_STAGES, YamnetBody

_BY_WIDTH = {"small": SmallBody, "waveform": WaveformBody, YAMNET: YamnetBody}
FIXED_SIZE = (*BODIES, LITE0)  # names of the bodies that ignore the width
MODELS = (*_BY_WIDTH, *BODIES, LITE0)
BODY_STAGES = (RESIDUAL, LITE0_STAGES, YAMNET_STAGES)  # every body's parameters are covered by one of these
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


class TaggingNetwork(nn.Module):
    """A body followed by the head."""

    body: nn.Module
    head: nn.Module

    def __call__(
        self, images: jax.Array, train: bool, mask: jax.Array | None = None, positions: jax.Array | None = None
    ) -> jax.Array:
        """Returns logits `[B, K]` of images `[B, T, F, C]`, or of waveforms `[B, N, 1, 1]` for a body that takes those.

        `mask` and `positions` `[B]` as in `TaggingHead`.
        """
        return self.head(self.body(images, train, mask), train, mask, positions)

    def features(self, images: jax.Array) -> jax.Array:
        """Returns the body's features `[B, ..., C]` of images, with running batch statistics."""
        return self.body(images, False)

    def pooled(self, images: jax.Array, pooling: str) -> jax.Array:
        """Returns `features` pooled over their positions `[B, D]` float32, as `pool_features`."""
        return pool_features(self.features(images), pooling)

    def classify(self, features: jax.Array) -> jax.Array:
        """Returns logits `[B, K]` of `features`."""
        return self.head(features, False)


def build_model(
    name: str,
    num_classes: int,
    *,
    width: int,
    dropout: float,
    dtype: str = "float32",
    axis_name: str | None = None,
    probe_pooling: str = "",
    probe_power: float = 1.0,
) -> TaggingNetwork:
    """Builds the network `name`; those of a fixed size ignore `width`.

    With a `probe_pooling`, the head is `ProbeHead` with that pooling and power.

    Raises ValueError, listing the choices, on an unknown name or dtype.
    """
    if name not in MODELS:
        raise ValueError(f"Unknown model.name {name!r}; choose from {', '.join(MODELS)}.")
    if dtype not in DTYPES:
        raise ValueError(f"Unknown model.dtype {dtype!r}; choose from {', '.join(DTYPES)}.")
    shared: dict[str, Any] = {"axis_name": axis_name, "dtype": DTYPES[dtype]}
    head = TaggingHead(num_classes, dropout, axis_name=axis_name)
    return TaggingNetwork(
        _body(name, width, shared), ProbeHead(num_classes, probe_pooling, probe_power) if probe_pooling else head
    )


def _body(name: str, width: int, shared: dict[str, Any]) -> nn.Module:
    if name == LITE0:
        return EfficientNetBody(**shared)
    return ResNetBody(**BODIES[name], **shared) if name in BODIES else _BY_WIDTH[name](width, **shared)
