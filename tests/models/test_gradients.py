"""Explicit gradients of convolutions, compared with SciPy's correlation and XLA's derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
from jax import lax

from audiotag_jax.models.gradients import conv1x1, conv3x3
from audiotag_jax.models.layers import square_conv

pytestmark = pytest.mark.optimized

SHAPES = [
    (1, 5, 4),
    (1, 1, 1),
    (1, 2, 7),
    (2, 6, 6),
    (2, 5, 7),
    (2, 1, 1),
    (2, 4, 1),
    (3, 7, 5),
]  # stride, height, width


def native(x, kernel, stride):
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (stride, stride), ((1, 1), (1, 1)), dimension_numbers=layout)


@pytest.fixture
def arrays(request):
    """Returns x, kernel, and a gradient of the output's shape."""
    stride, height, width = request.param
    rng = np.random.default_rng(0)
    shapes = (2, height, width, 3), (3, 3, 3, 4), (2, -(-height // stride), -(-width // stride), 4)
    return stride, *(rng.normal(size=shape).astype(np.float32) for shape in shapes)


@pytest.mark.parametrize("arrays", SHAPES, indirect=True)
def test_values_and_gradients_match_scipy(arrays):
    """Gradients by linearity: <gradient, conv(x, e)> for every unit kernel and every unit image."""
    stride, x, kernel, gradient = arrays

    def correlate(images, kernels):
        out = np.zeros(gradient.shape)
        for image, values in zip(images.astype(float), out, strict=True):
            for i in range(kernels.shape[2]):
                for o in range(kernels.shape[3]):
                    same = scipy.signal.correlate2d(image[..., i], kernels[..., i, o], "same")
                    values[..., o] += same[::stride, ::stride]
        return out

    y, vjp = jax.vjp(lambda x, kernel: conv3x3(x, kernel, stride), x, kernel)
    np.testing.assert_allclose(y, correlate(x, kernel), atol=1e-5)
    for actual, given in zip(vjp(gradient), (x, kernel), strict=True):
        expected = np.zeros(given.shape)
        for place in np.ndindex(given.shape):
            unit = np.zeros(given.shape)
            unit[place] = 1
            pair = (unit, kernel) if given is x else (x, unit)
            expected[place] = np.vdot(gradient, correlate(*pair))
        np.testing.assert_allclose(actual, expected, atol=2e-5)


@pytest.mark.parametrize("arrays", SHAPES, indirect=True)
@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
def test_gradients_match_xla(arrays, dtype):
    stride, *rest = arrays
    x, kernel, gradient = (jnp.asarray(values, dtype) for values in rest)
    for ours, theirs in zip(
        jax.jit(lambda *pair: jax.vjp(lambda *pair: conv3x3(*pair, stride), *pair)[1](gradient))(x, kernel),
        jax.jit(lambda *pair: jax.vjp(lambda *pair: native(*pair, stride), *pair)[1](gradient))(x, kernel),
        strict=True,
    ):
        assert ours.dtype == theirs.dtype == dtype
        tolerance = 1e-5 if dtype == np.float32 else 0.05
        np.testing.assert_allclose(
            *(each.astype(np.float32) for each in (ours, theirs)), atol=tolerance, rtol=tolerance
        )


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
def test_gradients_of_1x1_match_xla(dtype):
    rng = np.random.default_rng(0)
    arrays = (rng.normal(size=shape) for shape in ((2, 3, 4, 5), (5, 6), (2, 3, 4, 6)))
    x, kernel, gradient = (jnp.asarray(values, dtype) for values in arrays)
    found = [jax.vjp(conv, x, kernel)[1](gradient) for conv in (conv1x1, jnp.matmul)]
    tolerance = 1e-5 if dtype == np.float32 else 0.05
    for ours, theirs in zip(*found, strict=True):
        assert ours.dtype == theirs.dtype == dtype
        np.testing.assert_allclose(
            *(each.astype(np.float32) for each in (ours, theirs)), atol=tolerance, rtol=tolerance
        )


@pytest.mark.parametrize(("size", "stride"), [(3, 1), (3, 2), (7, 2)])
def test_the_layer_equals_that_of_flax_on_any_backend(size, stride, monkeypatch):
    """Parameters, values and gradients are equal for the implementations of both backends."""
    x = np.random.default_rng(0).normal(size=(2, 9, 8, 3)).astype(np.float32)
    found = []
    for backend in ("cpu", "gpu"):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        layer = square_conv(4, size, stride, jnp.float32, "conv")
        variables = layer.init(jax.random.key(0), x)
        loss = lambda variables, x: jnp.sum(jnp.sin(layer.apply(variables, x)))  # noqa: B023, E731
        text = str(jax.make_jaxpr(jax.grad(loss))(variables, x))
        assert ("dot_general" in text) == (backend == "cpu" and size == 3)
        found.append((variables, *jax.value_and_grad(loss, (0, 1))(variables, x)))
    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=1e-5), *found)
