"""The small network: its size and shapes in closed form, and padded rows without effect."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiotag_jax.models.small import SmallBody


def shapes(body, *image_shape):
    return jax.eval_shape(lambda: body.init(jax.random.key(0), jnp.zeros((1, *image_shape)), False))


def drawn(body, *image_shape):
    """Draws variables of `body`, without the 0 and 1 of initialization, and without compiling it."""
    rng = np.random.default_rng(1)

    def draw(leaf):
        if leaf.ndim > 1:
            return rng.normal(0, np.sqrt(2 * leaf.shape[-1] / leaf.size), leaf.shape).astype(np.float32)
        return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)

    return jax.tree.map(draw, shapes(body, *image_shape))


@pytest.mark.parametrize(("width", "channels"), [(4, 1), (24, 1), (24, 3)])
def test_number_of_parameters(width, channels):
    """A 7 x 7 stem; in a stage of c channels two 3 x 3 kernels, and a 1 x 1 where channels double; norms of 2 c."""
    stem = 49 * channels * width + 2 * width
    first = 2 * 9 * width**2 + 2 * 2 * width
    later = (9 * c * (c // 2) + 9 * c**2 + c * (c // 2) + 3 * 2 * c for c in (2 * width, 4 * width, 8 * width))
    variables = shapes(SmallBody(width), 32, 32, channels)
    count = {name: sum(leaf.size for leaf in jax.tree.leaves(tree)) for name, tree in variables.items()}
    norms = width + 2 * width + 3 * (2 + 4 + 8) * width  # channels in total
    assert count == {"params": stem + first + sum(later), "batch_stats": 2 * norms}


def test_stages_have_the_names_of_resnet():
    """The optimizer's groups depend on these names."""
    params = shapes(SmallBody(4), 32, 32, 1)["params"]
    assert set(params) == {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4"}
    shared = {"conv1", "bn1", "conv2", "bn2"}
    assert set(params["layer1"]) == shared
    for stage in (2, 3, 4):
        assert set(params[f"layer{stage}"]) == shared | {"downsample_conv", "downsample_bn"}


@pytest.mark.parametrize(("frames", "bins"), [(224, 224), (32, 64), (33, 1)])
def test_features_are_a_32nd_of_the_image_rounded_up(frames, bins):
    body = SmallBody(4)
    features = jax.eval_shape(lambda: body.init_with_output(jax.random.key(0), jnp.zeros((2, frames, bins, 1)), False))
    assert features[0].shape == (2, -(-frames // 32), -(-bins // 32), 32)


def test_padded_rows_have_no_effect():
    """Real rows and statistics equal those of the batch without padding, for any values of the padding."""
    body, rng = SmallBody(2), np.random.default_rng(0)
    variables, x = drawn(body, 32, 32, 1), rng.uniform(size=(5, 32, 32, 1)).astype(np.float32)
    mask = jnp.array([1.0, 1.0, 1.0, 0.0, 0.0])
    run = jax.jit(lambda x, mask: body.apply(variables, x, True, mask, mutable=["batch_stats"]))
    silent, loud = (run(np.concatenate([x[:3], level * x[3:]]), mask) for level in (0.0, 1e3))
    jax.tree.map(np.testing.assert_array_equal, silent[1], loud[1])
    np.testing.assert_array_equal(silent[0][:3], loud[0][:3])
    assert np.abs(silent[0][3:] - loud[0][3:]).max() > 1  # the padding rows are computed too
    features, updates = run(x[:3], None)
    np.testing.assert_allclose(silent[0][:3], features, rtol=1e-4, atol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), silent[1], updates)
    moved = jax.tree.map(lambda old, new: bool(np.any(old != new)), {"batch_stats": variables["batch_stats"]}, updates)
    assert jax.tree.all(moved)


def test_rows_are_independent_in_evaluation():
    body, rng = SmallBody(2), np.random.default_rng(0)
    variables, x = drawn(body, 32, 32, 1), rng.uniform(size=(3, 32, 32, 1)).astype(np.float32)
    run = jax.jit(lambda x: body.apply(variables, x, False))
    np.testing.assert_allclose(run(np.concatenate([x[:1], 1e3 * x[1:]]))[0], run(x)[0], rtol=1e-6)
