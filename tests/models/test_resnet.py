import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiotag_jax.models.head import TaggingHead
from audiotag_jax.models.resnet import BODIES, ResNetBody

DEVICES = 8
TINY = {
    "basic": {"block": "basic", "stage_sizes": (1, 2, 1, 1), "width": 8},
    "bottleneck": {"block": "bottleneck", "stage_sizes": (2, 1), "width": 8},
    "grouped": {"block": "bottleneck", "stage_sizes": (1, 1, 1), "width": 8, "groups": 4, "group_width": 3},
}
CLASSES = 5


def torch_resnet(torch, block, stage_sizes, width, groups=1, group_width=None, channels=3):
    """Builds the papers' networks as torch modules (stride on the 3 x 3), an oracle of values and state-dict keys."""
    nn = torch.nn

    def conv(inputs, outputs, size, stride, groups=1):
        return nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)

    class Block(nn.Module):
        def __init__(self, inputs, planes, stride):
            super().__init__()
            if block == "basic":
                outputs, plan = planes, [(planes, 3, stride, 1), (planes, 3, 1, 1)]
            else:
                inner = planes if group_width is None else planes // width * group_width * groups
                outputs, plan = 4 * planes, [(inner, 1, 1, 1), (inner, 3, stride, groups), (4 * planes, 1, 1, 1)]
            self.depth, previous = len(plan), inputs
            for index, (features, size, stride_, groups_) in enumerate(plan, 1):
                setattr(self, f"conv{index}", conv(previous, features, size, stride_, groups_))
                setattr(self, f"bn{index}", nn.BatchNorm2d(features))
                previous = features
            if stride != 1 or inputs != outputs:
                self.downsample = nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

        def forward(self, x):
            y = x
            for index in range(1, self.depth + 1):
                y = getattr(self, f"bn{index}")(getattr(self, f"conv{index}")(y))
                y = torch.relu(y) if index < self.depth else y
            return torch.relu(y + (self.downsample(x) if hasattr(self, "downsample") else x))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.bn1 = conv(channels, width, 7, 2), nn.BatchNorm2d(width)
            inputs = width
            for stage, blocks in enumerate(stage_sizes):
                planes, layers = width * 2**stage, []
                for index in range(blocks):
                    layers.append(Block(inputs, planes, 2 if stage and index == 0 else 1))
                    inputs = planes * (1 if block == "basic" else 4)
                setattr(self, f"layer{stage + 1}", nn.Sequential(*layers))
            self.stages = len(stage_sizes)

        def forward(self, x):
            x = nn.functional.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 3, 2, 1)
            for stage in range(self.stages):
                x = getattr(self, f"layer{stage + 1}")(x)
            return x

    return Net()


def torch_head(torch, features, hidden):
    nn = torch.nn

    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.bn1, self.linear1 = nn.BatchNorm1d(2 * features), nn.Linear(2 * features, hidden)
            self.bn2, self.linear2 = nn.BatchNorm1d(hidden), nn.Linear(hidden, CLASSES)

        def forward(self, x):
            x = torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)
            return self.linear2(self.bn2(torch.relu(self.linear1(self.bn1(x)))))

    return Head()


def by_torch_key(variables):
    """Returns our params and statistics with the keys and layouts of torch's state dict."""
    torch_names = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
    flat = {}
    for collection in ("params", "batch_stats"):
        for path, leaf in jax.tree_util.tree_flatten_with_path(variables.get(collection, {}))[0]:
            *names, last = (key.key for key in path)
            axes = {4: (3, 2, 0, 1), 2: (1, 0)}.get(leaf.ndim, (0,))
            flat[".".join([*names, torch_names.get(last, last)])] = np.transpose(leaf, axes)
    return flat


def copy_to_torch(torch, variables, net):
    """Copies our weights by name; both sides must have the same keys."""
    state = {key: torch.tensor(value) for key, value in by_torch_key(variables).items()}
    counters = {key: value for key, value in net.state_dict().items() if key.endswith("num_batches_tracked")}
    net.load_state_dict(state | counters, strict=True)
    return net


def statistics_of(net):
    return {key: value.numpy() for key, value in net.state_dict().items() if "running" in key}


def drawn(shapes, seed):
    """Draws every variable, without the 0 and 1 of initialization, so that swapped ones are detected."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        if leaf.ndim > 1:
            return rng.normal(0, np.sqrt(2 / leaf.size * leaf.shape[-1]), leaf.shape).astype(np.float32)
        low = -1 if path[-1].key in ("bias", "mean") else 0.5
        return rng.uniform(low, 1.5, leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def build(kind, x, axis_name=None, dropout=0.0):
    """Builds body and head, and draws the variables of each."""
    body = ResNetBody(**TINY[kind], axis_name=axis_name)
    head = TaggingHead(CLASSES, dropout=dropout, hidden=16, axis_name=axis_name)
    features, shapes = jax.eval_shape(lambda: body.init_with_output(jax.random.key(0), x[:1], False))
    head_shapes = jax.eval_shape(lambda: head.init(jax.random.key(0), jnp.zeros(features.shape), False))
    return body, head, drawn(shapes, 0), drawn(head_shapes, 1)


def train_forward(body, head, params, stats, x, mask=None, positions=None, key=None):
    """Returns logits, features and new statistics of body and head."""
    rngs = {"dropout": key} if key is not None else {}
    (body_params, head_params), (body_stats, head_stats) = params, stats
    variables = {"params": body_params, "batch_stats": body_stats}
    features, body_state = body.apply(variables, x, True, mask, mutable=["batch_stats"])
    variables = {"params": head_params, "batch_stats": head_stats}
    logits, head_state = head.apply(variables, features, True, mask, positions, mutable=["batch_stats"], rngs=rngs)
    return logits, features, (body_state["batch_stats"], head_state["batch_stats"])


def split_collections(*variables):
    return tuple(v["params"] for v in variables), tuple(v["batch_stats"] for v in variables)


@pytest.mark.parametrize("kind", TINY)
def test_network_matches_torch(kind):
    """Features, logits, running statistics and gradients, in training and in eval, on odd and even sizes."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 70, 64, 3)).astype(np.float32)
    weights = rng.normal(size=(6, CLASSES)).astype(np.float32)
    body, head, *variables = build(kind, x)
    params, stats = split_collections(*variables)

    def loss(params):
        logits, features, new_stats = train_forward(body, head, params, stats, x)
        return jnp.sum(weights * logits), (logits, features, new_stats)

    grads, (logits, features, new_stats) = jax.jit(jax.grad(loss, has_aux=True))(params)

    torch_body = copy_to_torch(torch, variables[0], torch_resnet(torch, **TINY[kind]))
    torch_top = copy_to_torch(torch, variables[1], torch_head(torch, features.shape[-1], 16))
    images = torch.tensor(x).permute(0, 3, 1, 2)
    expected_features = torch_body(images)
    expected = torch_top(expected_features)
    (torch.tensor(weights) * expected).sum().backward()

    def close(actual, wanted, tolerance=1e-4):
        np.testing.assert_allclose(actual, wanted, rtol=tolerance, atol=tolerance * np.abs(wanted).max())

    close(features, expected_features.detach().permute(0, 2, 3, 1).numpy())
    close(logits, expected.detach().numpy())
    for net, our_stats, our_grads in zip((torch_body, torch_top), new_stats, grads, strict=True):
        ours = by_torch_key({"batch_stats": our_stats})
        assert ours.keys() == statistics_of(net).keys()
        for key, wanted in statistics_of(net).items():
            close(ours[key], wanted)
        ours = by_torch_key({"params": our_grads})
        for key, parameter in net.named_parameters():
            close(ours[key], parameter.grad.numpy(), 1e-3)

    with torch.no_grad():
        expected = torch_top.eval()(torch_body.eval()(images))
    features = jax.jit(lambda: body.apply({"params": params[0], "batch_stats": new_stats[0]}, x, False))()
    close(head.apply({"params": params[1], "batch_stats": new_stats[1]}, features, False), expected.numpy())


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("resnet18", 11_176_512), ("resnet34", 21_284_672), ("resnet50", 23_508_032), ("resnext50_32x4d", 22_979_904)],
)
def test_parameters_match_torchvision(name, parameters):
    """The counts are those of torchvision's models without fc; keys and shapes are those of its state dicts."""
    body = ResNetBody(**BODIES[name])
    variables = jax.eval_shape(lambda: body.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), False))
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == parameters
    keys = by_torch_key(jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), variables))
    assert keys["conv1.weight"].shape == (64, 3, 7, 7)
    known = {
        "resnet18": {"layer2.0.downsample.0.weight": (128, 64, 1, 1), "layer4.1.conv2.weight": (512, 512, 3, 3)},
        "resnet34": {"layer3.5.bn2.running_var": (256,), "layer4.0.downsample.1.bias": (512,)},
        "resnet50": {"layer1.0.downsample.0.weight": (256, 64, 1, 1), "layer4.2.conv2.weight": (512, 512, 3, 3)},
        "resnext50_32x4d": {"layer1.0.conv2.weight": (128, 4, 3, 3), "layer4.2.conv3.weight": (2048, 1024, 1, 1)},
    }[name]
    assert {key: keys[key].shape for key in known} == known
    assert "layer1.0.downsample.0.weight" not in keys or name in ("resnet50", "resnext50_32x4d")


def test_initialization_is_kaiming_normal_over_outputs():
    body = ResNetBody("bottleneck", (1,), width=32, groups=4, group_width=16)
    params = jax.jit(lambda: body.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), False))()["params"]
    for kernel in (params["conv1"]["kernel"], params["layer1"]["0"]["conv2"]["kernel"]):
        fan_out = kernel.shape[0] * kernel.shape[1] * kernel.shape[3]
        np.testing.assert_allclose(np.std(kernel), np.sqrt(2 / fan_out), rtol=0.05)


def test_bfloat16_computes_near_float32_with_float32_state():
    x = np.random.default_rng(0).normal(size=(4, 32, 32, 1)).astype(np.float32)
    body, head, *variables = build("grouped", x)
    params, stats = split_collections(*variables)
    half = ResNetBody(**TINY["grouped"], dtype=jnp.bfloat16)
    exact = jax.jit(lambda: train_forward(body, head, params, stats, x)[1])()
    logits, features, new_stats = jax.jit(lambda: train_forward(half, head, params, stats, x))()
    assert features.dtype == jnp.bfloat16
    shapes = jax.eval_shape(lambda: half.init(jax.random.key(0), x, False))
    assert {leaf.dtype for leaf in jax.tree.leaves((logits, new_stats, shapes))} == {jnp.dtype("float32")}
    error = np.abs(np.asarray(features, np.float32) - exact).mean() / np.abs(exact).mean()
    assert 1e-4 < error < 0.05


def shared_step(body, head, params, stats, key, batch, axis_name):
    """Returns loss, gradients and statistics of one step on this device's rows of a padded batch."""
    x, labels, mask, positions = batch
    total = (lambda v: v) if axis_name is None else (lambda v: jax.lax.psum(v, axis_name))

    def loss(params):
        logits, _, new_stats = train_forward(body, head, params, stats, x, mask, positions, key)
        log_probabilities = jax.nn.log_softmax(logits)[jnp.arange(len(labels)), labels]
        return -jnp.sum(mask * log_probabilities) / total(mask.sum()), new_stats

    (value, new_stats), grads = jax.value_and_grad(loss, has_aux=True)(params)
    return total(value), total(grads), new_stats


@pytest.mark.skipif(jax.local_device_count() < DEVICES, reason=f"needs {DEVICES} devices")
def test_eight_devices_equal_one():
    """A padded batch with dropout: the last two devices have no real row; and one device without padding agrees."""
    rng = np.random.default_rng(0)
    rows, real = 2 * DEVICES, 12
    batch = (
        rng.normal(size=(rows, 32, 32, 1)).astype(np.float32),
        rng.integers(CLASSES, size=rows),
        (np.arange(rows) < real).astype(np.float32),
        np.arange(rows),
    )
    body, head, *variables = build("basic", batch[0], "batch", dropout=0.5)
    arguments = (*split_collections(*variables), jax.random.key(2))
    alone = build("basic", batch[0], None, dropout=0.5)[:2]

    one = jax.jit(lambda *a: shared_step(*alone, *a, None))(*arguments, batch)
    unpadded = jax.jit(lambda *a: shared_step(*alone, *a, None))(*arguments, tuple(a[:real] for a in batch))
    step = jax.pmap(
        lambda *a: shared_step(body, head, *a, "batch"), "batch", in_axes=(None, None, None, 0), out_axes=None
    )
    eight = step(*arguments, jax.tree.map(lambda a: a.reshape(DEVICES, -1, *a.shape[1:]), batch))
    for other in (unpadded, eight):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), other, one)


def test_unknown_blocks_and_grouped_basic_blocks_raise():
    x = jnp.zeros((1, 32, 32, 1))
    with pytest.raises(ValueError, match="choose from basic, bottleneck"):
        ResNetBody("dense", (1,)).init(jax.random.key(0), x, False)
    with pytest.raises(ValueError, match="no groups"):
        ResNetBody("basic", (1,), groups=4).init(jax.random.key(0), x, False)
