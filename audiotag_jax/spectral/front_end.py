"""From the inputs that a dataset contains to what a network sees, inside the jitted step."""

import dataclasses

import jax
import jax.numpy as jnp

from audiotag_jax.spectral import yamnet
from audiotag_jax.spectral.features import SpectralSettings, spectrograms

# Mean and standard deviation of RGB pictures in [0, 1] that weights were trained with: those of torchvision and timm,
# and those of EfficientNet-Lite, (value - 127) / 128 of values up to 255.
STATISTICS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "imagenet_lite": ((127 / 255,) * 3, (128 / 255,) * 3),
}
NORMALIZATIONS = ("none", "imagenet", "yamnet")  # the setting; "imagenet" means that of the body's weights


@dataclasses.dataclass(frozen=True)
class FrontEnd:
    """What happens to inputs before the network; without `length_samples` they are images already."""

    length_samples: int | None = None  # of the crop that is taken of each waveform
    spectral: SpectralSettings | None = None  # of the images made of crops; None: the crops themselves
    normalization: str = "none"  # or "yamnet", or a name in `STATISTICS`

    def __post_init__(self):
        if self.normalization not in ("none", "yamnet", *STATISTICS):
            raise ValueError(
                f"Unknown normalization {self.normalization!r}; choose from none, yamnet, {', '.join(STATISTICS)}."
            )


def to_images(inputs: jax.Array, front_end: FrontEnd, keys: jax.Array | None = None) -> jax.Array:
    """Returns images [B, T, F, C] float32 of stored images, or of waveforms [B, N].

    Waveforms are cropped at random, with one of `keys` [B] each, or in their middle without keys. A crop that stays a
    waveform becomes an image [N, 1, 1] of one bin, over its own peak, in [-1, 1].
    """
    if front_end.length_samples is None:
        return inputs.astype(jnp.float32)
    crops = crop(inputs.astype(jnp.float32), front_end.length_samples, keys)
    if front_end.spectral is not None:
        return spectrograms(crops, front_end.spectral)
    peak = jnp.max(jnp.abs(crops), axis=-1, keepdims=True)
    return (crops / jnp.where(peak > 0, peak, 1.0))[:, :, None, None]


def crop(waveforms: jax.Array, length_samples: int, keys: jax.Array | None = None) -> jax.Array:
    """Cuts `length_samples` from each of the waveforms [B, N]: at random, with one of `keys` [B] each, else the middle.

    Raises ValueError if they are shorter.
    """
    spare = waveforms.shape[-1] - length_samples
    if spare < 0:
        raise ValueError(f"cannot take {length_samples} samples of {waveforms.shape[-1]}")
    if keys is None or not spare:
        return waveforms[:, spare // 2 : spare // 2 + length_samples]
    starts = jax.vmap(lambda key: jax.random.randint(key, (), 0, spare + 1))(keys)
    return jax.vmap(lambda wave, start: jax.lax.dynamic_slice(wave, (start,), (length_samples,)))(waveforms, starts)


def normalize(images: jax.Array, front_end: FrontEnd) -> jax.Array:
    """Scales images in [0, 1] as the network expects; others than three channels share the mean of ImageNet's three."""
    if front_end.normalization == "none":
        return images
    if front_end.normalization == "yamnet":
        return yamnet.log_mel(images)
    mean, std = (jnp.asarray(values) for values in STATISTICS[front_end.normalization])
    if images.shape[-1] != 3:
        mean, std = mean.mean(), std.mean()
    return (images - mean) / std
