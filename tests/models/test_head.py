import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiotag_jax.models.head import TaggingHead, global_max
from audiotag_jax.models.layers import Dropout

pytestmark = pytest.mark.optimized


def test_global_max_keeps_its_gradient_when_compiled():
    """With `x.max` instead, the compiled gradient on CPU misses some of these maxima."""
    rng = np.random.default_rng(0)
    rows, channels = 6, 64
    x = rng.normal(size=(rows, 3, 2, channels)).astype(np.float32)
    weights = rng.normal(size=(rows, 2 * channels)).astype(np.float32)[:, :channels]
    scale = rng.uniform(0.5, 1.5, channels).astype(np.float32)
    bias = rng.uniform(-1, 1.5, channels).astype(np.float32)

    def loss(x, scale, bias):
        variables = {"params": {"scale": scale, "bias": bias}}
        norm = nn.BatchNorm(use_running_average=False)
        variables["batch_stats"] = {"mean": jnp.zeros(channels), "var": jnp.ones(channels)}
        y, _ = norm.apply(variables, x, mutable=["batch_stats"])
        return jnp.sum(weights * global_max(nn.relu(y)))

    grad = jax.jit(jax.grad(loss, (0, 1, 2)))(x, scale, bias)[0]

    flat = x.astype(np.float64).reshape(rows, -1, channels)
    deviation = np.sqrt(flat.var((0, 1)) + 1e-5)
    unit = (flat - flat.mean((0, 1))) / deviation
    y = unit * scale + bias
    at_max = np.arange(flat.shape[1])[:, None] == y.argmax(1)[:, None]
    y_grad = np.where(at_max & (y > 0), weights[:, None], 0)
    expected = y_grad - y_grad.mean((0, 1)) - unit * (y_grad * unit).mean((0, 1))
    np.testing.assert_allclose(grad.reshape(flat.shape), expected * scale / deviation, rtol=1e-5, atol=1e-5)


def test_global_max_of_sequences():
    x = np.random.default_rng(0).normal(size=(3, 7, 2)).astype(np.float32)
    np.testing.assert_array_equal(global_max(x), x.max(1))


def test_dropout_rate_is_halved_before_the_hidden_layer():
    head = TaggingHead(num_classes=3, dropout=0.6, hidden=1000)
    features = jnp.ones((2, 2, 2, 1000), jnp.bfloat16)
    variables = jax.jit(head.init, static_argnums=2)(jax.random.key(0), features, False)
    for name in ("bn1", "bn2"):  # batch norm turns two equal rows into its bias: move that off 0
        variables["params"][name]["bias"] += 2
    logits, state = head.apply(
        variables,
        features,
        True,
        positions=jnp.arange(2),
        rngs={"dropout": jax.random.key(1)},
        mutable=["batch_stats", "intermediates"],
        capture_intermediates=lambda module, _: isinstance(module, Dropout),
    )
    zeros = {name: np.mean(value["__call__"][0] == 0) for name, value in state["intermediates"].items()}
    assert logits.dtype == jnp.float32
    assert abs(zeros["dropout1"] - 0.3) < 0.03
    assert abs(zeros["dropout2"] - 0.6) < 0.02


def test_head_initialization_is_kaiming_normal():
    variables = jax.jit(lambda: TaggingHead(50, hidden=400).init(jax.random.key(0), jnp.zeros((1, 1, 1, 300)), False))()
    for name, fan_in in (("linear1", 600), ("linear2", 400)):
        kernel = np.asarray(variables["params"][name]["kernel"])
        np.testing.assert_allclose(kernel.std(), np.sqrt(2 / fan_in), rtol=0.03)
        assert np.abs(kernel).max() > 3 * kernel.std()  # a truncated normal would stop at 2.3
        assert not np.any(variables["params"][name]["bias"])
