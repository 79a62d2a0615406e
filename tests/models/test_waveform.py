"""The waveform network: against PyTorch, its shapes, padded batches, shifts in time, and whether it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from audiotag_jax.models.build import build_model
from audiotag_jax.models.waveform import WaveformBody
from audiotag_jax.training.optimizer import parameter_labels

STRIDE = 2048  # samples of one output frame
BLOCK_STRIDE = 4


def noise(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def drawn(network, num_samples):
    """Draws variables of `network`, without the 0 and 1 of initialization, and without compiling it."""
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros((1, num_samples, 1, 1)), False))
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        if leaf.ndim > 1:
            return rng.normal(0, np.sqrt(2 / (leaf.size / leaf.shape[-1])), leaf.shape).astype(np.float32)
        low = -0.5 if path[-1].key in ("bias", "mean") else 0.5
        return rng.uniform(low, 1.5, leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def features(body, variables, x):
    return np.asarray(jax.jit(lambda x: body.apply(variables, x, False))(x))


@pytest.mark.parametrize("num_samples", [64, 65, 500, 2047, 2048, 2049, 7919, 44100])
def test_any_length_gives_whole_frames(num_samples):
    body = WaveformBody(width=2)
    x = jax.ShapeDtypeStruct((3, num_samples, 1, 1), jnp.float32)
    y, variables = jax.eval_shape(lambda x: body.init_with_output(jax.random.key(0), x, True), x)
    assert y.shape == (3, -(-num_samples // STRIDE), 1, 32)
    assert variables["params"].keys() == {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4"}


@pytest.mark.parametrize("shape", [(2, 63, 1, 1), (2, 4096), (2, 4096, 1), (2, 224, 224, 1), (2, 4096, 1, 2)])
def test_inputs_of_another_shape_raise(shape):
    with pytest.raises(ValueError, match=r"waveforms \[clips, samples, 1, 1\] of 64 samples or more, not \[2, "):
        WaveformBody(width=2).init(jax.random.key(0), jnp.zeros(shape), False)


def test_parameters_and_flops_at_the_default_width():
    """The cost is about that of the small network on 224 x 224; every parameter has its optimizer group."""
    model = build_model("waveform", 10, width=24, dropout=0.3)
    x = jax.ShapeDtypeStruct((1, 44100, 1, 1), jnp.float32)
    params = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, False), x)["params"]
    count = sum(leaf.size for leaf in jax.tree.leaves(params["body"]))
    wide = [48, 48, 96, 192, 384]
    pairs = list(zip(wide[:-1], wide[1:], strict=True))
    kernels = 64 * wide[0] + sum(8 * a * b + 3 * b * b + a * b for a, b in pairs)
    assert count == kernels + 2 * wide[0] + sum(6 * b for _, b in pairs)
    labels = set(jax.tree.leaves(parameter_labels(params)))
    assert labels == {"early", "early_norm", "late", "late_norm", "head"}
    body = WaveformBody()
    cost = jax.jit(lambda v, x: body.apply(v, x, False)).lower(
        jax.eval_shape(lambda x: body.init(jax.random.key(0), x, False), x), x
    )
    assert 1e8 < cost.cost_analysis()["flops"] < 5e8


# Against PyTorch.


def torch_block(torch, x, params, stats):
    """Computes a block on x `[B, C, T]` in eval with torch's functions."""
    nn = torch.nn.functional
    length = x.shape[-1]
    missing = -length % BLOCK_STRIDE

    def conv(x, name, stride=1):
        return nn.conv1d(x, torch.tensor(np.transpose(params[name]["kernel"], (2, 1, 0))), stride=stride)

    def norm(x, name):
        values = stats[name]["mean"], stats[name]["var"], params[name]["scale"], params[name]["bias"]
        return nn.batch_norm(x, *map(torch.tensor, values))

    y = torch.relu(norm(conv(nn.pad(x, (2, 2 + missing)), "conv1", BLOCK_STRIDE), "bn1"))
    y = norm(conv(nn.pad(y, (1, 1)), "conv2"), "bn2")
    real = nn.avg_pool1d(nn.pad(torch.ones(1, 1, length), (0, missing)), BLOCK_STRIDE)
    x = nn.avg_pool1d(nn.pad(x, (0, missing)), BLOCK_STRIDE) / real
    return torch.relu(norm(conv(x, "downsample_conv"), "downsample_bn") + y)


@pytest.mark.parametrize("num_samples", [64, 2048, 7919])
def test_matches_torch(num_samples):
    """Compares stem and stages in eval; zeros before a window do not depend on the length, unlike those after."""
    torch = pytest.importorskip("torch")
    body = WaveformBody(width=3)
    variables = drawn(body, num_samples)
    params, stats = variables["params"], variables["batch_stats"]
    x = noise(2, num_samples, 1, 1)
    with torch.no_grad():
        y = torch.nn.functional.pad(torch.tensor(x[:, None, :, 0, 0]), (28, 28 + -num_samples % 8))
        y = torch.nn.functional.conv1d(y, torch.tensor(np.transpose(params["conv1"]["kernel"], (2, 1, 0))), stride=8)
        values = (stats["bn1"]["mean"], stats["bn1"]["var"], params["bn1"]["scale"], params["bn1"]["bias"])
        y = torch.relu(torch.nn.functional.batch_norm(y, *map(torch.tensor, values)))
        for stage in range(1, 5):
            y = torch_block(torch, y, params[f"layer{stage}"], stats[f"layer{stage}"])
    expected = y.numpy().transpose(0, 2, 1)[:, :, None]
    np.testing.assert_allclose(features(body, variables, x), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_bfloat16_computes_near_float32_with_float32_state():
    body, half = WaveformBody(width=4), WaveformBody(width=4, dtype=jnp.bfloat16)
    variables, x = drawn(body, 8192), noise(2, 8192, 1, 1)
    y, updates = jax.jit(lambda: half.apply(variables, x, True, mutable=["batch_stats"]))()
    exact, _ = jax.jit(lambda: body.apply(variables, x, True, mutable=["batch_stats"]))()
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype("float32")}
    error = np.abs(np.asarray(y, np.float32) - exact).mean() / np.abs(exact).mean()
    assert 1e-4 < error < 0.05


# Padded batches.


def loss_of(body, variables, x, mask):
    """Returns a loss of the real rows, its gradients, and the new statistics."""
    rows = jnp.ones(len(x)) if mask is None else mask

    def loss(params):
        y, updates = body.apply({**variables, "params": params}, x, True, mask, mutable=["batch_stats"])
        return jnp.sum(jnp.square(y).mean((1, 2, 3)) * rows), (y, updates["batch_stats"])

    (_, aux), grads = jax.value_and_grad(loss, has_aux=True)(variables["params"])
    return *aux, grads


def test_padded_rows_have_no_effect():
    """Real rows, statistics and gradients equal those of the batch without padding, for any values of the padding."""
    body = WaveformBody(width=2)
    variables, x = drawn(body, 4099), noise(5, 4099, 1, 1)
    mask = jnp.array([1.0, 1.0, 1.0, 0.0, 0.0])
    run = jax.jit(lambda x, mask: loss_of(body, variables, x, mask))
    silent, loud = (run(np.concatenate([x[:3], level * x[3:]]), mask) for level in (0.0, 1e3))
    alone = run(x[:3], None)
    for other in (silent, loud):
        jax.tree.map(np.testing.assert_array_equal, other[1], silent[1])
        for ours, wanted in zip((other[0][:3], *other[1:]), alone, strict=True):
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), ours, wanted)


# Time.


def test_features_shift_with_the_sound_by_whole_frames():
    body = WaveformBody(width=4)
    variables = drawn(body, 16 * STRIDE)

    def at(start):
        x = np.zeros((1, 16 * STRIDE, 1, 1), np.float32)
        x[0, start : start + STRIDE] = noise(STRIDE, 1, 1)
        return features(body, variables, x)[0, :, 0]

    first, moved = at(7 * STRIDE), at(9 * STRIDE)
    np.testing.assert_allclose(moved[4:-2], first[2:-4], rtol=1e-4, atol=1e-4)  # without the edges of the clip
    assert np.abs(moved - first).max() > 0.1


def test_pooled_features_change_little_under_shifts():
    """Pooled over 64 frames, a shifted steady sound is nearer to itself than to a low-passed one."""
    body, num_samples = WaveformBody(width=4), 64 * STRIDE
    bright = noise(num_samples)
    dull = np.real(np.fft.ifft(np.fft.fft(bright) * (np.abs(np.fft.fftfreq(num_samples)) < 0.05)))
    dull *= bright.std() / dull.std()
    sounds = np.stack([bright, dull, *(np.roll(bright, shift) for shift in (1, 100, 333, 1000, 5000))])
    pooled = features(body, drawn(body, 64), sounds.astype(np.float32)[:, :, None, None]).mean((1, 2))
    apart = np.linalg.norm(pooled[1:] - pooled[0], axis=1)
    assert apart[1:].max() < 0.4 * apart[0], apart


def test_features_depend_on_the_direction_of_time():
    """A chirp and its reversal have one spectrum, but not the same features."""
    body = WaveformBody(width=4)
    variables = drawn(body, 4 * STRIDE)
    t = np.arange(4 * STRIDE) / (4 * STRIDE)
    chirp = np.sin(2 * np.pi * (50 * t + 400 * t**2)).astype(np.float32)
    rising, falling = features(body, variables, np.stack([chirp, chirp[::-1]])[:, :, None, None]).mean((1, 2))
    assert np.linalg.norm(rising - falling) > 0.03 * np.linalg.norm(rising)


def test_training_separates_two_tones():
    """440 Hz and 1,500 Hz in noise, at random levels and phases; tested on other tones."""
    model = build_model("waveform", 2, width=2, dropout=0.0)

    def tones(count, seed):
        rng = np.random.default_rng(seed)
        labels = np.arange(count) % 2
        times = np.arange(4096) / 22050
        phase, level = rng.uniform(0, 2 * np.pi, (count, 1)), rng.uniform(0.3, 0.9, (count, 1))
        x = level * np.sin(2 * np.pi * np.where(labels, 1500, 440)[:, None] * times + phase)
        x = x + 0.1 * rng.standard_normal(x.shape)
        return jnp.asarray(x[:, :, None, None], jnp.float32), labels

    @jax.jit
    def step(params, stats, moments, x, labels):
        def loss(params):
            variables = {"params": params, "batch_stats": stats}
            logits, updates = model.apply(variables, x, True, None, jnp.arange(len(x)), mutable=["batch_stats"])
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), updates["batch_stats"]

        (value, new_stats), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, moments = tx.update(grads, moments)
        return optax.apply_updates(params, updates), new_stats, moments, value

    tx = optax.adam(3e-3)
    variables = jax.jit(model.init, static_argnames="train")(jax.random.key(0), tones(2, 0)[0], train=False)
    params, stats = variables["params"], variables["batch_stats"]
    moments, losses = jax.jit(tx.init)(params), []
    for seed in range(30):
        params, stats, moments, value = step(params, stats, moments, *tones(16, seed))
        losses.append(float(value))
    x, labels = tones(40, 1000)
    logits = jax.jit(lambda x: model.apply({"params": params, "batch_stats": stats}, x, False))(x)
    assert losses[0] > 0.4
    assert np.mean(losses[-5:]) < 0.1
    assert np.mean(np.argmax(logits, 1) == labels) >= 0.9


def test_unknown_models_list_the_waveform_network():
    with pytest.raises(ValueError, match="Unknown model.name 'wave'; choose from small, waveform, "):
        build_model("wave", 2, width=4, dropout=0.0)
