"""Crops of waveforms: another in every draw, all of them possible, the middle without a draw."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiotag_jax.spectral.front_end import FrontEnd, crop, normalize, to_images

pytestmark = pytest.mark.optimized

RAMPS = jnp.arange(12.0) + 100 * jnp.arange(3.0)[:, None]  # a crop's first value tells where it began


def starts(seed: int) -> list[int]:
    keys = jax.vmap(lambda position: jax.random.fold_in(jax.random.key(seed), position))(jnp.arange(3))
    crops = np.asarray(crop(RAMPS, 8, keys)) - 100 * np.arange(3)[:, None]
    np.testing.assert_array_equal(crops, crops[:, :1] + np.arange(8))
    return crops[:, 0].astype(int).tolist()


def test_crops_are_drawn_by_key_and_place():
    drawn = [starts(seed) for seed in range(40)]
    assert starts(7) == drawn[7]
    assert {start for row in drawn for start in row} == {0, 1, 2, 3, 4}
    assert any(len(set(row)) > 1 for row in drawn)  # clips of one batch are cropped apart
    assert len({tuple(row) for row in drawn}) > 20


def test_without_keys_the_middle_is_taken():
    np.testing.assert_array_equal(crop(RAMPS, 8)[0], np.arange(2, 10))
    with pytest.raises(ValueError, match="13 samples of 12"):
        crop(RAMPS, 13)


def test_the_step_s_own_path_crops_by_key():
    keys = jax.random.split(jax.random.key(0), 3)
    images = to_images(RAMPS, FrontEnd(length_samples=8), keys)
    assert images.shape == (3, 8, 1, 1)
    expected = np.asarray(crop(RAMPS, 8, keys))
    np.testing.assert_allclose(images[..., 0, 0], expected / expected.max(axis=1, keepdims=True), rtol=1e-6)


def test_stored_images_pass_through():
    images = np.ones((2, 3, 4, 1), np.float16)
    assert to_images(images, FrontEnd()).dtype == jnp.float32
    normalized = normalize(jnp.ones((1, 1, 1, 3)), FrontEnd(normalization="imagenet"))
    np.testing.assert_allclose(
        normalized.ravel(), [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225], 1e-5
    )
    lite = normalize(jnp.full((1, 1, 1, 2), 63 / 255), FrontEnd(normalization="imagenet_lite"))
    np.testing.assert_allclose(lite.ravel(), (63 - 127) / 128, 1e-5)
