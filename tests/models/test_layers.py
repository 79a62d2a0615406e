import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiotag_jax.models.layers import BatchNorm, Dropout, GroupedConv, PointConv, masked_moments

DEVICES = 8


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def close(actual, expected, tolerance=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), actual, expected)


def random_norm_variables(rng, channels):
    draw = lambda low, high: jnp.asarray(rng.uniform(low, high, channels), jnp.float32)  # noqa: E731
    params = {"scale": draw(0.5, 2), "bias": draw(-1, 1)}
    return {"params": params, "batch_stats": {"mean": draw(-1, 1), "var": draw(0.5, 2)}}


def norm_step(norm, variables, x, weights, mask=None):
    """Returns outputs, new statistics and the gradients of sum(weights * outputs) by params and x."""

    def loss(params, x):
        variables_ = {**variables, "params": params}
        y, state = norm.apply(variables_, x, True, mask, mutable=["batch_stats"])
        real = jnp.ones(len(x)) if mask is None else mask
        return jnp.sum(weights * y * real.reshape(-1, *[1] * (x.ndim - 1))), (y, state["batch_stats"])

    grads, (y, stats) = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(variables["params"], x)
    return y, stats, grads


@pytest.mark.parametrize("shape", [(6, 5, 4, 3), (7, 3)])
def test_batch_norm_matches_torch(rng, shape):
    torch = pytest.importorskip("torch")
    variables = random_norm_variables(rng, shape[-1])
    x, weights = (rng.normal(1, 3, shape).astype(np.float32) for _ in range(2))
    y, stats, (grads, x_grad) = norm_step(BatchNorm(), variables, x, weights)

    norm = (torch.nn.BatchNorm2d if len(shape) == 4 else torch.nn.BatchNorm1d)(shape[-1])
    with torch.no_grad():
        for ours, theirs in (("scale", norm.weight), ("bias", norm.bias)):
            theirs.copy_(torch.tensor(np.array(variables["params"][ours])))
        norm.running_mean.copy_(torch.tensor(np.array(variables["batch_stats"]["mean"])))
        norm.running_var.copy_(torch.tensor(np.array(variables["batch_stats"]["var"])))
    inputs = torch.tensor(x, requires_grad=True)
    outputs = norm(inputs.movedim(-1, 1)).movedim(1, -1)
    (outputs * torch.tensor(weights)).sum().backward()
    close(y, outputs.detach().numpy())
    close(stats, {"mean": norm.running_mean.numpy(), "var": norm.running_var.numpy()})
    close(grads, {"scale": norm.weight.grad.numpy(), "bias": norm.bias.grad.numpy()}, 1e-4)
    close(x_grad, inputs.grad.numpy())

    norm.eval()
    new = {"params": variables["params"], "batch_stats": stats}
    close(BatchNorm().apply(new, x, False), norm(torch.tensor(x).movedim(-1, 1)).movedim(1, -1).detach().numpy())


def test_batch_norm_matches_flax(rng):
    """Variables, outputs and gradients are equal; only flax's running variance is the biased one."""
    x, weights = (rng.normal(-1, 2, (5, 4, 6, 3)).astype(np.float32) for _ in range(2))
    theirs = nn.BatchNorm(use_running_average=False, momentum=0.9, epsilon=1e-5)
    variables = random_norm_variables(rng, 3)
    initial = BatchNorm().init(jax.random.key(0), x, True)
    close(initial, theirs.init(jax.random.key(0), x))

    def their_loss(params, x):
        y, state = theirs.apply({**variables, "params": params}, x, mutable=["batch_stats"])
        return jnp.sum(weights * y), (y, state["batch_stats"])

    their_grads, (their_y, their_stats) = jax.jit(jax.grad(their_loss, (0, 1), has_aux=True))(variables["params"], x)
    y, stats, grads = norm_step(BatchNorm(), variables, x, weights)
    close(y, their_y)
    close(grads, their_grads, 1e-4)
    close(stats["mean"], their_stats["mean"])
    old, count = variables["batch_stats"]["var"], 5 * 4 * 6
    close(stats["var"] - 0.9 * old, (their_stats["var"] - 0.9 * old) * count / (count - 1))


@pytest.mark.parametrize("dtype", [bool, np.float32])
def test_batch_norm_mask_equals_dropping_rows(rng, dtype):
    x, weights = (rng.normal(2, 3, (6, 4, 3)).astype(np.float32) for _ in range(2))
    mask = np.array([1, 0, 1, 1, 0, 1], dtype)
    x[mask == 0] = 1e4
    real = mask.astype(bool)
    variables = random_norm_variables(rng, 3)
    y, stats, (grads, x_grad) = norm_step(BatchNorm(), variables, x, weights, mask)
    kept_y, kept_stats, (kept_grads, kept_x_grad) = norm_step(BatchNorm(), variables, x[real], weights[real])
    close((y[real], stats, grads, x_grad[real]), (kept_y, kept_stats, kept_grads, kept_x_grad))
    assert not np.any(x_grad[~real])


@pytest.mark.parametrize("real_rows", [0, 1])
def test_batch_norm_of_fewer_than_two_values_keeps_the_statistics(rng, real_rows):
    x = rng.normal(size=(3, 2)).astype(np.float32)
    variables = random_norm_variables(rng, 2)
    mask = np.arange(3) < real_rows
    y, stats, grads = norm_step(BatchNorm(), variables, x, np.ones_like(x), mask)
    close(stats, variables["batch_stats"], 0)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((y, grads)))


def test_moments_are_accurate_at_a_large_mean(rng):
    """At mean 1e4, E[x^2] - E[x]^2 has no digit left in float32."""
    x = (1e4 + rng.normal(size=(64, 16, 3))).astype(np.float32)
    mean, var, count = jax.jit(masked_moments, static_argnums=(1, 2))(x, None, None)
    exact = x.astype(np.float64).reshape(-1, 3)
    np.testing.assert_allclose(mean, exact.mean(0), rtol=1e-6)
    np.testing.assert_allclose(var, exact.var(0), rtol=1e-4)
    assert count == 64 * 16


def test_batch_norm_of_bfloat16_keeps_float32_statistics(rng):
    x = jnp.asarray(rng.normal(10, 1, (256, 8, 3)), jnp.bfloat16)
    y, stats, _ = norm_step(BatchNorm(momentum=1.0), random_norm_variables(rng, 3), x, np.ones(x.shape, np.float32))
    exact = np.asarray(x, np.float64).reshape(-1, 3)
    assert y.dtype == jnp.bfloat16
    assert stats["mean"].dtype == stats["var"].dtype == jnp.float32
    close(stats, {"mean": exact.mean(0), "var": exact.var(0, ddof=1)})


class Net(nn.Module):
    """Two layers around batch norm and dropout, so that gradients cross the collectives."""

    axis_name: str | None

    @nn.compact
    def __call__(self, x, mask, positions):
        x = nn.Dense(5, name="first")(x)
        x = jnp.tanh(BatchNorm(axis_name=self.axis_name, name="bn")(x, True, mask))
        x = Dropout(0.4, name="dropout")(x.mean(1), True, positions)
        return nn.Dense(2, name="last")(x)


def local_grads(params, stats, key, batch, axis_name):
    """Returns gradients of this device's share of the mean loss over all real rows, summed over devices."""
    x, target, mask, positions = batch

    def loss(params):
        y, state = Net(axis_name).apply(
            {"params": params, "batch_stats": stats}, x, mask, positions, mutable=["batch_stats"], rngs={"dropout": key}
        )
        count = mask.sum() if axis_name is None else jax.lax.psum(mask.sum(), axis_name)
        return jnp.sum(mask * jnp.sum((y - target) ** 2, -1)) / count, state["batch_stats"]

    grads, new_stats = jax.grad(loss, has_aux=True)(params)
    return (grads if axis_name is None else jax.lax.psum(grads, axis_name)), new_stats


@pytest.mark.skipif(jax.local_device_count() < DEVICES, reason=f"needs {DEVICES} devices")
def test_eight_devices_equal_one(rng):
    """Rows are padded so that one device has a single real row, the next ones none at all."""
    rows = 3 * DEVICES
    x = rng.normal(3, 2, (rows, 4, 3)).astype(np.float32)
    target = rng.normal(size=(rows, 2)).astype(np.float32)
    mask = (np.arange(rows) < 16).astype(np.float32)
    batch = (x, target, mask, np.arange(rows))
    variables = Net("batch").init(
        {"params": jax.random.key(0), "dropout": jax.random.key(1)}, x[:1], mask[:1], np.arange(1)
    )
    arguments = variables["params"], variables["batch_stats"], jax.random.key(2)

    alone = jax.jit(local_grads, static_argnums=4)
    single = alone(*arguments, batch, None)
    split = jax.tree.map(lambda a: a.reshape(DEVICES, -1, *a.shape[1:]), batch)
    pmapped = jax.pmap(
        local_grads, axis_name="batch", in_axes=(None, None, None, 0), out_axes=None, static_broadcasted_argnums=4
    )
    close(pmapped(*arguments, split, "batch"), single)
    real = mask.astype(bool)
    close(single, alone(*arguments, tuple(a[real] for a in batch), None))
    assert all(np.any(np.abs(leaf) > 1e-3) for name in ("first", "last") for leaf in [single[0][name]["kernel"]])


def dropped(rate, x, positions, key=0, train=True):
    return Dropout(rate).apply({}, x, train, positions, rngs={"dropout": jax.random.key(key)})


def test_dropout_rate_and_scale():
    x = jnp.full((20, 50, 100), 3.0)
    y = np.asarray(dropped(0.25, x, jnp.arange(20)))
    assert set(np.unique(y)) == {0, 4}
    assert abs((y == 0).mean() - 0.25) < 0.006  # four standard deviations
    assert len(np.unique((y == 0).reshape(20, -1), axis=0)) == 20
    assert np.any(y != dropped(0.25, x, jnp.arange(20), key=1))


def test_dropout_depends_on_the_row_not_on_the_device():
    x = jnp.ones((6, 40))
    whole = dropped(0.5, x, jnp.arange(6))
    halves = [dropped(0.5, x[:3], jnp.arange(6)[:3]), dropped(0.5, x[3:], jnp.arange(6)[3:])]
    np.testing.assert_array_equal(whole, np.concatenate(halves))
    np.testing.assert_array_equal(whole[::-1], dropped(0.5, x, jnp.arange(6)[::-1]))


def test_dropout_is_the_identity_in_eval_or_at_rate_zero():
    x = jnp.ones((2, 9))
    np.testing.assert_array_equal(Dropout(0.5).apply({}, x, False, None), x)
    np.testing.assert_array_equal(Dropout(0.0).apply({}, x, True, None), x)


@pytest.mark.parametrize(("rate", "positions"), [(1.0, [0, 1]), (-0.1, [0, 1]), (0.5, [0]), (0.5, None)])
def test_dropout_raises_on_bad_rates_and_positions(rate, positions):
    with pytest.raises(ValueError, match="Dropout"):
        dropped(rate, jnp.ones((2, 3)), None if positions is None else jnp.array(positions))


@pytest.mark.parametrize(
    ("size", "stride", "height", "groups"),
    [(3, 1, 7, 4), (3, 2, 7, 4), (3, 2, 8, 2), (1, 2, 6, 1), (3, 1, 4, 64), (5, 2, 9, 3)],
)
def test_grouped_conv_methods_match_flax(rng, size, stride, height, groups):
    """64 groups of 3 channels exceed one block; ten groups would fit, and eight divide 64."""
    channels, features = (192, 128) if groups == 64 else (9, 6) if groups == 3 else (8, 12)
    x = rng.normal(size=(2, height, 5, channels)).astype(np.float32)
    padding = ((size // 2,) * 2,) * 2
    flax_conv = nn.Conv(features, (size, size), stride, padding, feature_group_count=groups, use_bias=False)
    params = flax_conv.init(jax.random.key(0), x)
    weights = rng.normal(size=flax_conv.apply(params, x).shape).astype(np.float32)

    def value_and_grads(conv):
        def loss(params, x):
            y = conv.apply(params, x)
            return jnp.sum(weights * y), y

        return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(params, x)

    for method in ("native", "blocks", None):
        ours = GroupedConv(features, groups, size, stride, method=method)
        shapes = jax.tree.map(jnp.shape, jax.eval_shape(ours.init, jax.random.key(0), x))
        assert shapes == jax.tree.map(jnp.shape, params)
        close(value_and_grads(ours), value_and_grads(flax_conv))


@pytest.mark.parametrize("method", ["native", "product", None])
@pytest.mark.parametrize(("stride", "height"), [(1, 6), (2, 6), (2, 7), (3, 1)])
def test_point_conv_matches_flax(rng, stride, height, method):
    x = rng.normal(size=(2, height, 5, 8)).astype(np.float32)
    flax_conv, ours = nn.Conv(12, (1, 1), stride, use_bias=False), PointConv(12, stride, method=method)
    params = flax_conv.init(jax.random.key(0), x)
    shapes = jax.tree.map(jnp.shape, jax.eval_shape(ours.init, jax.random.key(0), x))
    assert shapes == jax.tree.map(jnp.shape, params)
    weights = rng.normal(size=flax_conv.apply(params, x).shape).astype(np.float32)

    def value_and_grads(conv):
        return jax.value_and_grad(lambda params, x: jnp.sum(weights * conv.apply(params, x)), (0, 1))(params, x)

    close(value_and_grads(ours), value_and_grads(flax_conv))


def test_point_conv_off_the_cpu_has_no_product_of_slices(rng, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    text = jax.jit(PointConv(12, 2).init_with_output).lower(jax.random.key(0), jnp.zeros((1, 6, 6, 8))).as_text()
    assert "stablehlo.convolution" in text
    assert "stablehlo.dot_general" not in text


def test_grouped_conv_raises_on_bad_groups_and_methods():
    with pytest.raises(ValueError, match="native, product"):
        PointConv(12, method="fft").init(jax.random.key(0), jnp.zeros((1, 4, 4, 8)))
    with pytest.raises(ValueError, match="3 groups do not divide 8"):
        GroupedConv(12, 3).init(jax.random.key(0), jnp.zeros((1, 4, 4, 8)))
    with pytest.raises(ValueError, match="native, blocks"):
        GroupedConv(12, 4, method="fft").init(jax.random.key(0), jnp.zeros((1, 4, 4, 8)))
