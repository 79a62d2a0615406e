"""Importing weights: logits of PyTorch, valid, damaged and malicious files, and a server on the loopback interface."""

import functools
import hashlib
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import golden_logits
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from audiotag_jax.models import pretrained
from audiotag_jax.models.build import build_model
from audiotag_jax.models.pretrained import (
    WeightsError,
    download_imagenet,
    import_weights,
    load_pretrained,
    read_state_dict,
)
from audiotag_jax.models.resnet import BODIES, ResNetBody

BODY = {
    "tiny": {"block": "bottleneck", "stage_sizes": (1, 1, 1, 1), "groups": 4, "group_width": 4},
    "full": BODIES["resnext50_32x4d"],
}
TOLERANCE = 1e-4


@functools.cache
def empty_trees(net, channels=3):
    """Returns parameters and statistics with shapes in the body and other values in the head."""
    images = jax.ShapeDtypeStruct((1, 64, 64, channels), jnp.float32)
    shapes = jax.eval_shape(lambda x: ResNetBody(**BODY[net]).init(jax.random.key(0), x, False), images)
    return {"body": shapes["params"], "head": {"w": 1}}, {"body": shapes["batch_stats"], "head": {"m": 2}}


@functools.cache
def features_function(net):
    def features(params, batch_stats, images):
        variables = {"params": params["body"], "batch_stats": batch_stats["body"]}
        return ResNetBody(**BODY[net]).apply(variables, images, False)

    return jax.jit(features)


def logits_of(net, state, images, channels=3):
    """Applies torchvision's head to our body's features."""
    params, batch_stats = import_weights(state, *empty_trees(net, channels))
    trees = [{"body": tree["body"]} for tree in (params, batch_stats)]
    pooled = np.asarray(features_function(net)(*trees, images)).mean((1, 2))
    return (pooled @ state["fc.weight"].T + state["fc.bias"])[:, : golden_logits.CLASSES]


def deviation(actual, golden):
    """Returns the largest error of the logits over their spread, and of the two images' difference over its own."""
    difference = np.subtract(*actual) - np.subtract(*golden)
    return max(np.abs(actual - golden).max() / golden.std(), np.abs(difference).max() / np.subtract(*golden).std())


@pytest.fixture
def small_state():
    return golden_logits.state_dict("tiny")


@pytest.mark.parametrize("net", golden_logits.NETS)
def test_logits_equal_those_of_pytorch(net):
    logits = logits_of(net, golden_logits.state_dict(net), golden_logits.images())
    assert deviation(logits, golden_logits.logits(net)) < TOLERANCE


def test_golden_logits_depend_on_every_tensor(small_state):
    """Shifting any single tensor by one value, or swapping two equal axes of a kernel, changes them."""
    golden = golden_logits.logits("tiny")
    for name, value in small_state.items():
        if name.endswith("num_batches_tracked"):
            continue
        changes = [np.roll(value.ravel(), 1).reshape(value.shape)]
        changes += [value.swapaxes(2, 3)] if value.ndim == 4 and value.shape[2] > 1 else []
        changes += [value.swapaxes(0, 1)] if value.ndim == 4 and value.shape[0] == value.shape[1] else []
        for changed in changes:
            logits = logits_of("tiny", {**small_state, name: changed}, golden_logits.images())
            assert deviation(logits, golden) > 5 * TOLERANCE, name


def import_or_skip(name):
    try:
        return pytest.importorskip(name)
    except RuntimeError as error:  # torchvision built for another PyTorch
        pytest.skip(f"{name} cannot be imported: {error}")


@pytest.mark.parametrize("net", golden_logits.NETS)
def test_the_golden_file_equals_torchvision(net):
    import_or_skip("torchvision")
    module = golden_logits.torchvision_net(net)
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    assert shapes == {name: value.shape for name, value in golden_logits.state_dict(net).items()}
    assert deviation(golden_logits.answer(module)[:, : golden_logits.CLASSES], golden_logits.logits(net)) < 1e-6


def test_timm_uses_the_same_names():
    timm = import_or_skip("timm")
    logits = golden_logits.answer(timm.create_model("resnext50_32x4d", pretrained=False))
    assert deviation(logits[:, : golden_logits.CLASSES], golden_logits.logits("full")) < 1e-6


def test_one_channel_gives_the_logits_of_three_copies(small_state):
    grey = golden_logits.images()[..., :1]
    one = logits_of("tiny", small_state, grey, channels=1)
    three = logits_of("tiny", small_state, np.repeat(grey, 3, axis=-1))
    np.testing.assert_allclose(one, three, rtol=0, atol=1e-5 * three.std())
    kernel = import_weights(small_state, *empty_trees("tiny", 1))[0]["body"]["conv1"]["kernel"]
    np.testing.assert_allclose(kernel[:, :, 0], small_state["conv1.weight"].sum(1).transpose(1, 2, 0), rtol=1e-5)


def test_weights_of_one_channel_fit_one_channel(small_state):
    small_state["conv1.weight"] = small_state["conv1.weight"][:, :1]
    kernel = import_weights(small_state, *empty_trees("tiny", 1))[0]["body"]["conv1"]["kernel"]
    np.testing.assert_array_equal(kernel, small_state["conv1.weight"].transpose(2, 3, 1, 0))
    with pytest.raises(WeightsError, match=r"1 of another shape: conv1.weight \(64, 1, 7, 7\) for \(64, 3, 7, 7\)\.$"):
        import_weights(small_state, *empty_trees("tiny", 3))


@pytest.mark.parametrize("channels", [2, 5])
def test_other_numbers_of_channels_share_the_sum_of_the_kernels(small_state, channels):
    """So equal channels have the response of grey pictures."""
    kernel = import_weights(small_state, *empty_trees("tiny", channels))[0]["body"]["conv1"]["kernel"]
    assert kernel.shape == (7, 7, channels, 64)
    expected = small_state["conv1.weight"].sum(1).transpose(1, 2, 0)
    np.testing.assert_allclose(kernel.sum(2), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(kernel, np.repeat(kernel[:, :, :1], channels, axis=2))


def test_the_head_and_the_given_trees_stay_unchanged(small_state):
    images = jnp.zeros((1, 32, 32, 1))
    model = build_model("resnet18", 5, width=8, dropout=0.0)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), images, False))
    params, batch_stats = variables["params"], variables["batch_stats"]
    given = jax.tree.leaves((params, batch_stats))
    state = {name: golden_logits.draw(name, shape) for name, shape in resnet18_shapes().items()}
    new_params, new_batch_stats = import_weights(state, params, batch_stats)
    assert all(a is b for a, b in zip(jax.tree.leaves((params, batch_stats)), given, strict=True))
    assert new_params["head"] is params["head"]
    assert new_batch_stats["head"] is batch_stats["head"]
    bodies = (new_params["body"], new_batch_stats["body"])
    assert jax.tree.structure(bodies) == jax.tree.structure((params["body"], batch_stats["body"]))
    assert all(type(leaf) is np.ndarray and leaf.dtype == np.float32 for leaf in jax.tree.leaves(bodies))


def resnet18_shapes():
    """Returns names and shapes in torch's layout, from the paper's table."""
    shapes = {"conv1.weight": (64, 3, 7, 7), "fc.weight": (5, 512), "fc.bias": (5,)}
    norms = {"bn1": 64}
    for stage, channels in enumerate((64, 128, 256, 512), 1):
        for block in (0, 1):
            inputs = channels // 2 if block == 0 and stage > 1 else channels
            stem = f"layer{stage}.{block}."
            shapes |= {f"{stem}conv1.weight": (channels, inputs, 3, 3), f"{stem}conv2.weight": (channels,) * 2 + (3, 3)}
            norms |= {f"{stem}bn1": channels, f"{stem}bn2": channels}
            if inputs != channels:
                shapes[f"{stem}downsample.0.weight"] = (channels, inputs, 1, 1)
                norms[f"{stem}downsample.1"] = channels
    for norm, channels in norms.items():
        shapes |= {f"{norm}.{last}": (channels,) for last in ("weight", "bias", "running_mean", "running_var")}
    return shapes


def test_missing_unexpected_misshapen_and_non_finite_weights_are_listed(small_state):
    for name in ("bn1.bias", "layer1.0.bn1.running_var", "layer2.0.conv1.weight", "layer3.0.bn2.weight"):
        del small_state[name]
    small_state["layer9.0.conv1.weight"] = np.zeros((4, 4, 1, 1))
    small_state["layer1.0.conv2.weight"] = small_state["layer1.0.conv2.weight"].transpose(2, 3, 1, 0)
    small_state["layer1.0.bn3.weight"] = np.zeros(1)  # must not be broadcast
    small_state["layer4.0.bn3.running_var"][3] = np.inf
    with pytest.raises(WeightsError) as caught:
        import_weights(small_state, *empty_trees("tiny"), name="w.pth")
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("w.pth does not fit the network: of 85 names, 4 missing: ")
    missing, extra, shapes, infinite = message.removesuffix(".").split("; ")
    assert missing.endswith(" and 1 more")
    assert missing.count(",") == 3
    assert extra == "1 unexpected: layer9.0.conv1.weight"
    assert shapes.startswith("2 of another shape: ")
    assert "layer1.0.conv2.weight (3, 3, 4, 16) for (16, 4, 3, 3)" in shapes
    assert "layer1.0.bn3.weight (1,) for (256,)" in shapes
    assert infinite == "1 not finite: layer4.0.bn3.running_var"


def test_safetensors_of_every_precision_become_float32(tmp_path):
    values = np.random.default_rng(0).normal(scale=100, size=(40, 5))
    tensors = {name: values.astype(name) for name in ("float64", "float32", "float16", jnp.bfloat16)}
    tensors = {np.dtype(name).name: value for name, value in tensors.items()} | {"count": np.asarray(3)}
    path = tmp_path / "W.SafeTensors"
    safetensors.numpy.save_file(tensors, path)
    state = read_state_dict(path)
    assert state.keys() == tensors.keys()
    count = state.pop("count")
    assert (count, count.shape) == (3, ())
    for name, value in state.items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, tensors[name].astype(np.float32))


def test_a_safetensors_file_fills_the_network(small_state, tmp_path):
    path = tmp_path / "weights.safetensors"
    safetensors.numpy.save_file({f"module.{name}": value for name, value in small_state.items()}, path)
    loaded = load_pretrained(path, *empty_trees("tiny"))
    jax.tree.map(np.testing.assert_array_equal, loaded, import_weights(small_state, *empty_trees("tiny")))
    del small_state["bn1.bias"]
    safetensors.numpy.save_file(small_state, path)
    with pytest.raises(WeightsError, match=f"^{path} does not fit"):
        load_pretrained(str(path), *empty_trees("tiny"))


def test_damaged_and_unknown_files_raise_a_one_line_error(tmp_path):
    whole = safetensors.numpy.save({"a": np.zeros(4, np.float32)})
    header = json.dumps({"a": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}).encode()
    cases = {
        "cut.safetensors": (whole[:-1], "not a complete safetensors file"),
        "empty.safetensors": (b"", "not a complete safetensors file"),
        "long.safetensors": (b"\xff" * 64, "not a complete safetensors file"),
        "f8.safetensors": (len(header).to_bytes(8, "little") + header + bytes(4), "contains a as F8_E4M3; convert it"),
        "weights.npz": (b"x", "Unknown suffix .*choose from .safetensors, .pth, .pt"),
        "weights": (b"x", "Unknown suffix"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError, match=message) as caught:
            read_state_dict(tmp_path / name)
        assert "\n" not in str(caught.value)
    (tmp_path / "folder.pth").mkdir()
    for name in ("absent.safetensors", "absent.pth", "folder.pth"):
        with pytest.raises(WeightsError, match=f"Cannot read the weights .*{name}: "):
            read_state_dict(tmp_path / name)


@pytest.mark.parametrize("zipped", [True, False])  # torchvision's ResNeXt-50 has the older format
def test_pth_files_are_read_with_torch(tmp_path, zipped):
    torch = pytest.importorskip("torch")
    values = {"a.weight": torch.arange(6.0).reshape(2, 3).T.requires_grad_(), "b": torch.tensor([1.5]).bfloat16()}
    values["c.num_batches_tracked"] = torch.tensor(4)
    files = {
        "plain.pth": values,
        "nested.pt": {"state_dict": values, "epoch": 3, "optimizer": {"state": [1, 2]}},
        "parallel.pth": {"state_dict": {f"module.{name}": value for name, value in values.items()}},
    }
    for name, content in files.items():
        torch.save(content, tmp_path / name, _use_new_zipfile_serialization=zipped)
        state = read_state_dict(tmp_path / name)
        assert set(state) == set(values), name
        assert all(type(value) is np.ndarray for value in state.values())
        assert (state["a.weight"].dtype, state["b"].dtype) == (np.float32, np.float32)
        np.testing.assert_array_equal(state["a.weight"], [[0, 3], [1, 4], [2, 5]])
        assert (state["b"], state["c.num_batches_tracked"]) == (1.5, 4)


class Hostile:
    def __reduce__(self):
        return os.mkdir, (os.environ["HOSTILE_TARGET"],)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_not_run(tmp_path, monkeypatch, zipped):
    torch = pytest.importorskip("torch")
    target = tmp_path / "it-ran"
    monkeypatch.setenv("HOSTILE_TARGET", str(target))
    path = tmp_path / "w.pth"
    torch.save({"a": torch.zeros(2), "b": Hostile()}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match="could run code") as caught:
        read_state_dict(path)
    assert "\n" not in str(caught.value)
    assert not target.exists()
    torch.load(path, weights_only=False)
    assert target.exists()  # without the protection it would have run


def test_pth_files_without_a_state_dict_raise(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "w.pth"
    torch.save({"a": torch.zeros(2000)}, path)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:10], b"", b"not a model"):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match="is damaged"):
            read_state_dict(path)
    for content, message in (
        (torch.zeros(2), "contains no state dict but a Tensor"),
        ({"epoch": 3, "model": {"a": torch.zeros(2)}}, r"contains no state dict \(epoch, model: not tensors\)"),
        ({3: torch.zeros(2)}, r"contains no state dict \(3: not"),
    ):
        torch.save(content, path)
        with pytest.raises(WeightsError, match=message):
            read_state_dict(path)


def test_without_torch_the_message_suggests_a_fix(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(pretrained, "download_imagenet", lambda: pytest.fail("downloaded what cannot be read"))
    (tmp_path / "w.pth").write_bytes(b"")
    for source in (tmp_path / "w.pth", "imagenet"):
        with pytest.raises(WeightsError, match=r"needs PyTorch: `pip install torch`, or use .*\.safetensors"):
            load_pretrained(source, *empty_trees("tiny"))


def test_a_vulnerable_version_of_torch_is_rejected(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    (tmp_path / "w.pth").write_bytes(b"")
    monkeypatch.setattr(torch, "__version__", "2.5.1+cpu")
    with pytest.raises(WeightsError, match="2.6 or newer"):
        read_state_dict(tmp_path / "w.pth")


def test_importing_the_module_loads_no_torch():
    script = "import sys, audiotag_jax.models.pretrained; print('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


CONTENT = b"weights " * 1000
NAME = f"net-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serves a folder on the loopback interface; returns the address, the folder, and the requests so far."""
    monkeypatch.setenv("NO_PROXY", "*")
    folder, requests_seen = tmp_path / "served", []
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            requests_seen.append(self.path)

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}/", folder, requests_seen
    httpd.shutdown()
    httpd.server_close()


def test_download_is_verified_and_cached(server, tmp_path):
    url, folder, requests_seen = server
    (folder / NAME).write_bytes(CONTENT)
    cache = tmp_path / "new" / "cache"
    for _ in range(2):
        assert download_imagenet(cache, url + NAME) == cache / NAME
    assert len(requests_seen) == 1
    (cache / NAME).write_bytes(b"half")
    assert download_imagenet(str(cache), url + NAME).read_bytes() == CONTENT
    assert len(requests_seen) == 2
    assert [file.name for file in cache.iterdir()] == [NAME]


def test_a_file_with_a_wrong_hash_is_not_cached(server, tmp_path):
    url, folder, _ = server
    (folder / NAME).write_bytes(CONTENT + b"!")
    cache = tmp_path / "cache"
    cache.mkdir()
    for kept in (None, b"half"):
        if kept:
            (cache / NAME).write_bytes(kept)
        with pytest.raises(
            WeightsError, match="SHA-256 does not begin with .* by hand .*config.model.pretrained"
        ) as caught:
            download_imagenet(cache, url + NAME)
        assert "\n" not in str(caught.value)
        assert not list(cache.iterdir())


def test_an_unreachable_server_raises_a_one_line_error(server, tmp_path, monkeypatch):
    url, _, _ = server
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        for address, reason in ((closed, "ConnectionError"), (url, "HTTP status 404")):
            with pytest.raises(
                WeightsError, match=rf"could not be downloaded \({reason}\). Download it by hand"
            ) as caught:
                download_imagenet(tmp_path / "cache", address + NAME)
            assert "\n" not in str(caught.value)
    (tmp_path / "file").touch()
    with pytest.raises(WeightsError, match="Cannot write"):
        download_imagenet(tmp_path / "file", url + NAME)
    with pytest.raises(WeightsError, match="cannot be checked"):
        download_imagenet(tmp_path, url + "net.pth")


def test_imagenet_is_downloaded_read_and_imported(small_state, tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    path = tmp_path / "w.pth"
    torch.save({name: torch.tensor(value) for name, value in small_state.items()}, path)
    monkeypatch.setattr(pretrained, "download_imagenet", lambda: path)
    loaded = load_pretrained("imagenet", *empty_trees("tiny"))
    jax.tree.map(np.testing.assert_array_equal, loaded, import_weights(small_state, *empty_trees("tiny")))
    assert pretrained.IMAGENET_URL == "https://download.pytorch.org/models/resnext50_32x4d-7cdf4587.pth"
