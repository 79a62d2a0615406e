"""Augmentation inside the jitted step, keyed by the example: the same draws on any number of devices."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from audiotag_jax.settings.sections import AugmentationSettings

# Keys of their own beside the four of the split below: a fifth part of the split might change the others.
_GAIN_STREAM, _STRETCH_STREAM, _FREQUENCY_STREAM = 4, 5, 6


def augment(
    keys: jax.Array, images: jax.Array, targets: jax.Array, mask: jax.Array, settings: AugmentationSettings
) -> tuple[jax.Array, jax.Array]:
    """Applies gain, stretch, shifts, masks and mixup, as set, to images `[B, T, F, C]` and their targets `[B, K]`.

    Waveforms are images `[B, N, 1, 1]` of one bin, which is neither moved nor masked: that would leave nothing. A
    stretched waveform changes its pitch too.
    `keys` `[B]` are random keys, one an example; `mask` `[B]` is 1 in real rows; padding is never mixed in.
    """
    shift_keys, time_keys, frequency_keys, mix_keys = jnp.moveaxis(
        jax.vmap(lambda key: jax.random.split(key, 4))(keys), 1, 0
    )
    if settings.max_gain_db:
        gain = jax.vmap(lambda key, image: random_gain(key, image, settings))
        images = gain(_folded(keys, _GAIN_STREAM), images)
    if settings.max_time_stretch:
        stretch = jax.vmap(lambda key, image: time_stretch(key, image, settings.max_time_stretch))
        images = stretch(_folded(keys, _STRETCH_STREAM), images)
    if settings.max_frequency_shift and images.shape[2] > 1:
        move = jax.vmap(lambda key, image: frequency_shift(key, image, settings.max_frequency_shift))
        images = move(_folded(keys, _FREQUENCY_STREAM), images)
    if settings.max_time_shift:
        images = jax.vmap(lambda key, image: time_shift(key, image, settings.max_time_shift))(shift_keys, images)
    if settings.time_masks:
        images = _mask_axis(time_keys, images, 0, settings.time_masks, settings.max_time_mask)
    if settings.frequency_masks and images.shape[2] > 1:
        images = _mask_axis(frequency_keys, images, 1, settings.frequency_masks, settings.max_frequency_mask)
    if settings.mixup_alpha:
        images, targets = mixup(mix_keys, images, targets, mask, settings.mixup_alpha)
    return images, targets


def random_gain(key: jax.Array, image: jax.Array, settings: AugmentationSettings) -> jax.Array:
    """Applies a random gain of up to `max_gain_db` dB either way to an image `[T, F, C]`, clipped to the image's range.

    A dB channel, in [0, 1], moves by gain / range_db, but for its zeros: they are at or below the floor, one cannot
    know how far, and stay there, so silence and masks do too. A channel of magnitudes in [0, 1], or a waveform in
    [-1, 1], is multiplied. Raises ValueError unless `db_channels` is empty or has one entry a channel.
    """
    num_channels = image.shape[-1]
    if len(settings.db_channels) not in (0, num_channels):
        raise ValueError(f"db_channels has {len(settings.db_channels)} entries for images of {num_channels} channels.")
    in_db = np.array(settings.db_channels or (True,) * num_channels)
    gain_db = jax.random.uniform(key, (), minval=-settings.max_gain_db, maxval=settings.max_gain_db)
    moved = jnp.where(image == 0, 0, jnp.clip(image + gain_db / settings.range_db, 0, 1))
    scaled = jnp.clip(image * 10 ** (gain_db / 20), -1, 1)
    return jnp.where(in_db, moved, scaled).astype(image.dtype)


def time_stretch(key: jax.Array, image: jax.Array, max_stretch: float) -> jax.Array:
    """Plays an image `[T, F, C]` up to `1 + max_stretch` times as fast or slow, log-uniform, around its middle.

    Frames are interpolated linearly; what was before a faster clip, and after it, is zero.
    """
    limit = np.log1p(max_stretch)
    speed = jnp.exp(jax.random.uniform(key, (), minval=-limit, maxval=limit))
    last = image.shape[0] - 1
    places = last / 2 + (jnp.arange(last + 1) - last / 2) * speed
    before = jnp.clip(jnp.floor(places), 0, last - 1).astype(int)
    share = jnp.clip(places - before, 0, 1).reshape(-1, *[1] * (image.ndim - 1)).astype(image.dtype)
    inside = ((places >= 0) & (places <= last)).reshape(share.shape)
    return jnp.where(inside, (1 - share) * image[before] + share * image[before + 1], 0)


def frequency_shift(key: jax.Array, image: jax.Array, max_shift: float) -> jax.Array:
    """Moves an image `[T, F, C]` along frequency by up to `max_shift` of its bins either way; what enters is zero."""
    size = image.shape[1]
    limit = round(max_shift * size)
    shift = jax.random.randint(key, (), -limit, limit + 1)
    source = jnp.arange(size)[:, None] - shift
    return jnp.where((source >= 0) & (source < size), jnp.roll(image, shift, axis=1), 0)


def time_shift(key: jax.Array, image: jax.Array, max_shift: float) -> jax.Array:
    """Rolls an image `[T, F, C]` in time by up to `max_shift` of its frames either way."""
    limit = round(max_shift * image.shape[0])
    return jnp.roll(image, jax.random.randint(key, (), -limit, limit + 1), axis=0)


def mask_stripe(key: jax.Array, image: jax.Array, axis: int, max_width: float) -> jax.Array:
    """Sets one stripe of an image across `axis`, at most `max_width` of it, to zero (SpecAugment, arXiv:1904.08779)."""
    size = image.shape[axis]
    width_key, start_key = jax.random.split(key)
    width = jax.random.randint(width_key, (), 0, round(max_width * size) + 1)
    start = jax.random.randint(start_key, (), 0, size - width + 1)
    place = jnp.arange(size).reshape([-1 if i == axis else 1 for i in range(image.ndim)])
    return jnp.where((place >= start) & (place < start + width), 0, image)


def mixup(
    keys: jax.Array, images: jax.Array, targets: jax.Array, mask: jax.Array, alpha: float
) -> tuple[jax.Array, jax.Array]:
    """Mixes each example with its neighbour of the pair (0, 1), (2, 3), … (mixup, arXiv:1710.09412).

    Pairs of neighbours in a shuffled batch are random pairs, and never straddle two devices. Raises ValueError if the
    device's batch is odd.
    """
    if len(images) % 2:
        raise ValueError(f"Mixup needs an even number of clips a device, not {len(images)}: change train.batch_size.")

    def partner(values):
        return jnp.flip(values.reshape(-1, 2, *values.shape[1:]), 1).reshape(values.shape)

    weights = jax.vmap(lambda key: jax.random.beta(key, alpha, alpha))(keys)
    weights = jnp.where(partner(mask) > 0, jnp.maximum(weights, 1 - weights), 1.0)

    def mix(values):
        own = weights.reshape(-1, *[1] * (values.ndim - 1))
        return own * values + (1 - own) * partner(values)

    return mix(images), mix(targets)


def _mask_axis(keys: jax.Array, images: jax.Array, axis: int, count: int, max_width: float) -> jax.Array:
    stripe: Callable = jax.vmap(lambda key, image: mask_stripe(key, image, axis, max_width))
    for i in range(count):
        images = stripe(_folded(keys, i), images)
    return images


def _folded(keys: jax.Array, stream: int) -> jax.Array:
    """Folds the number of a stream into every key `[B]`; returns new keys `[B]`."""
    return jax.vmap(lambda key: jax.random.fold_in(key, stream))(keys)
