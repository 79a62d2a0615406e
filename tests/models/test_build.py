"""Building networks by name; unknown names list the choices."""

import re

import jax
import jax.numpy as jnp
import pytest

from audiotag_jax.models.build import MODELS, build_model
from audiotag_jax.models.resnet import BODIES, ResNetBody

CLASSES = 5


def shapes(model, *input_shape):
    """Returns the shapes of logits and variables."""
    x = jnp.zeros((2, *input_shape))
    return jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), x, False))


def channels(model, *input_shape):
    """Returns the number of channels of the last feature map."""
    x = jnp.zeros((2, *input_shape))
    features, _ = jax.eval_shape(lambda: model.body.init_with_output(jax.random.key(0), x, False))
    return features.shape[-1]


INPUT_SHAPES = {"waveform": (4096, 1, 1), "yamnet": (96, 64, 1)}  # of others (32, 32, 1)


@pytest.mark.parametrize("name", ["small", "waveform", "resnet18", "yamnet"])
def test_names_build_body_and_head(name):
    """Every name builds its own body with the same head."""
    model = build_model(name, CLASSES, width=4, dropout=0.25)
    input_shape = INPUT_SHAPES.get(name, (32, 32, 1))
    logits, variables = shapes(model, *input_shape)
    assert (logits.shape, logits.dtype) == ((2, CLASSES), jnp.float32)
    for tree in variables.values():
        assert set(tree) == {"body", "head"}
    assert set(variables["params"]["head"]) == {"bn1", "linear1", "bn2", "linear2"}
    assert variables["params"]["head"]["linear1"]["kernel"].shape[0] == 2 * channels(model, *input_shape)


def test_names_are_unique():
    assert {"small", "waveform", "resnet18", "resnet34", "resnet50", "resnext50_32x4d"} <= set(MODELS)
    assert len(set(MODELS)) == len(MODELS)


@pytest.mark.parametrize("name", sorted(BODIES))
def test_residual_networks_have_the_sizes_of_their_names(name):
    body = build_model(name, CLASSES, width=4, dropout=0.0).body
    assert isinstance(body, ResNetBody)
    assert {field: getattr(body, field) for field in BODIES[name]} == BODIES[name]
    assert body.width == 64


@pytest.mark.parametrize(
    ("name", "input_shape", "has_width"),
    [
        ("small", (32, 32, 1), True),
        ("waveform", (4096, 1, 1), True),
        ("yamnet", (96, 64, 1), True),
        ("resnet18", (32, 32, 1), False),
    ],
)
def test_width_sets_the_channels_except_in_residual_networks(name, input_shape, has_width):
    narrow, wide = (build_model(name, CLASSES, width=width, dropout=0.0) for width in (4, 8))
    assert channels(wide, *input_shape) == (2 if has_width else 1) * channels(narrow, *input_shape)


@pytest.mark.parametrize("name", ["small", "waveform", "resnet18", "yamnet"])
def test_settings_reach_body_and_head(name):
    model = build_model(name, CLASSES, width=4, dropout=0.25, dtype="bfloat16", axis_name="devices")
    assert model.body.dtype == jnp.bfloat16
    assert model.body.axis_name == model.head.axis_name == "devices"
    assert (model.head.num_classes, model.head.dropout) == (CLASSES, 0.25)
    plain = build_model(name, CLASSES, width=4, dropout=0.0)
    assert plain.body.dtype == jnp.float32
    assert plain.body.axis_name is plain.head.axis_name is None


@pytest.mark.parametrize(
    ("name", "dtype", "message"),
    [
        ("resnet19", "float32", f"Unknown model.name 'resnet19'; choose from {', '.join(MODELS)}."),
        ("", "float32", f"Unknown model.name ''; choose from {', '.join(MODELS)}."),
        ("small", "float16", "Unknown model.dtype 'float16'; choose from float32, bfloat16."),
    ],
)
def test_unknown_names_list_the_choices(name, dtype, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        build_model(name, CLASSES, width=4, dropout=0.0, dtype=dtype)
