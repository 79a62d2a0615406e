"""Every configuration loads, names what exists, and trains a step."""

import functools
import importlib
import itertools
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from audiotag_jax.datasets.sources import SOURCE_NAMES
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.settings.settings import Settings, parse_settings
from audiotag_jax.settings.variants import NETWORKS
from audiotag_jax.spectral import yamnet
from audiotag_jax.spectral.features import spectrograms
from audiotag_jax.training.optimizer import Phase, learning_rates, make_optimizer, make_phases
from audiotag_jax.training.state import create_train_state
from audiotag_jax.training.steps import AXIS, pmapped_steps, replicate, step_settings
from configs import default

ROOT = Path(__file__).parents[1]
VARIANTS = sorted(path.stem for path in (ROOT / "configs").glob("*.py") if path.stem not in ("__init__", "default"))
COMPARED = [name for name in VARIANTS if name not in NETWORKS]
PRESETS = (
    "fsdkaggle2018",
    "imagenet",
    "fsdkaggle2019",
    "fsd50k",
    "audioset",
    "urbansound8k",
    "esc50",
    "esc10",
    "folder",
    "demo",
    "esc50_probe",
    "esc50_finetune",
    "folder_finetune",
    "folder_probe",
)
# A probe takes no steps; four presets are others in all that a step depends on (`test_alike_presets_are`).
UNSTEPPED = {"esc50_probe", "folder_probe", "fsdkaggle2019", "fsd50k", "audioset", "urbansound8k"}
STEPPED = sorted({*default.PRESETS} - UNSTEPPED)
NUM_CLASSES = 5


def get_config(name: str, *preset: str) -> ConfigDict:
    return importlib.import_module(f"configs.{name}").get_config(*preset)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", VARIANTS)
def test_loads(name, preset):
    config = get_config(name, preset)
    assert (config.name, config.preset) == (name, preset)
    assert config.dataset.source in SOURCE_NAMES
    parse_settings(config)
    assert json.loads(config.to_json())["spectral"]["channels"] == list(config.spectral.channels)


def test_presets_are_the_ones_tested():
    assert set(PRESETS) == set(default.PRESETS)
    assert get_config("log_db").preset == "fsdkaggle2018"


@pytest.mark.parametrize("name", ["default", *VARIANTS])
def test_unknown_preset(name):
    with pytest.raises(ValueError, match=re.escape(f"Unknown preset 'esc99'; choose from {', '.join(PRESETS)}.")):
        get_config(name, "esc99")


def test_a_variant_changes_its_name_and_channels_alone():
    """All else must be equal where variants are compared; waveforms take another network, and no picture's weights."""
    for preset in PRESETS:
        fields = [get_config(name, preset).to_dict() for name in COMPARED]
        names = {each.pop("name") for each in fields}
        channels = {each["spectral"].pop("channels") for each in fields}
        assert len(names) == len(channels) == len(COMPARED)
        for each in fields[1:]:
            if each["model"]["name"] == "waveform":
                each["model"] = fields[0]["model"]
                if fields[0]["model"]["pretrained"]:
                    each |= {name: fields[0][name] for name in ("train", "optimizer")}
            assert each == fields[0]


@pytest.mark.parametrize("name", VARIANTS)
def test_a_standard_variant_is_its_channel(name):
    channels = get_config(name).spectral.channels
    if len(channels) == 1:
        assert channels == (name,)
    else:
        assert name.startswith("mix_")


@pytest.mark.parametrize("preset", PRESETS)
def test_network_and_optimizer(preset):
    """Shapes alone: at full size, for the images the configuration makes, every parameter in a group."""
    config = parse_settings(get_config("log_db", preset))
    phases = phases_of(config, steps_per_epoch=10)
    shape = (config.spectral.num_frames, config.spectral.num_bins, len(config.spectral.channels))
    model, tx = config.model.network(NUM_CLASSES, AXIS), make_optimizer(config.optimizer, phases)
    state = jax.eval_shape(lambda key: create_train_state(model, tx, shape, key), jax.random.key(0))
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    low, high = {"small": (1e5, 2e6), "efficientnet_lite0": (4.5e6, 5e6)}.get(config.model.name, (2.3e7, 2.6e7))
    assert low < count < high
    assert state.params["head"]["linear2"]["kernel"].shape == (512, NUM_CLASSES)
    assert sum(phase.num_steps for phase in phases) == 10 * (config.training.frozen_epochs + config.training.num_epochs)


@functools.cache
def compiled(name: str, preset: str):
    """Model, optimizer and steps of a shrunk run: one for all variants of a preset with one network and channels."""
    settings = shrunk(name, preset)
    phases = phases_of(settings, steps_per_epoch=4)
    model, tx = settings.model.network(NUM_CLASSES, AXIS), make_optimizer(settings.optimizer, phases)
    return model, tx, learning_rates(settings.optimizer, phases), pmapped_steps(step_settings(settings, NUM_CLASSES))


def phases_of(settings: Settings, steps_per_epoch: int) -> tuple[Phase, ...]:
    training = settings.training
    return make_phases(settings.optimizer, training.frozen_epochs, training.num_epochs, steps_per_epoch)


def shrunk(name: str, preset: str = "folder") -> Settings:
    config = get_config(name, preset)
    if config.model.name != "waveform":
        config.model.name = "small"
    config.model.pretrained, config.train.probe = "", False
    config.spectral.num_frames = config.spectral.num_bins = 32
    config.dataset.duration_s = 0.3
    config.model.width = 4
    config.train.num_epochs = 1
    return parse_settings(config)


# Presets that are alike in all that the shrunk step depends on.
ALIKE = {
    "esc10": "folder",
    "esc50": "folder",
    "fsdkaggle2018": "folder",
    "fsdkaggle2019": "folder",
    "fsd50k": "folder",
    "audioset": "folder",
    "urbansound8k": "folder",
    "esc50_finetune": "folder_finetune",
}


def test_alike_presets_are():
    for preset, other in ALIKE.items():
        mine, theirs = shrunk("log_db", preset), shrunk("log_db", other)
        assert mine.augmentation == theirs.augmentation and mine.model == theirs.model
        assert step_settings(mine, NUM_CLASSES) == step_settings(theirs, NUM_CLASSES)


@pytest.mark.parametrize(
    ("name", "preset"),
    [*itertools.product(COMPARED, STEPPED), *((name, "folder") for name in NETWORKS)],
)
def test_trains_a_step(name, preset):
    """Its own images of noise, or the noise itself, through a shrunk network, the last three clips being padding."""
    config = shrunk(name, preset)
    inputs = np.random.default_rng(0).standard_normal((16, config.clips.length_samples)).astype(np.float32)
    settings = config.images
    if settings:
        inputs = np.asarray(spectrograms(jnp.asarray(inputs), settings)).astype(np.float16)
        assert inputs.shape == (16, *settings.image_shape(config.clips.length_samples))
        assert settings.published or inputs.shape[1:3] == (32, 32)
        assert 0 <= inputs.min() < inputs.max() <= 1 and (settings.published or inputs.max() == 1)
    shape = inputs.shape[1:] if settings else (inputs.shape[1], 1, 1)
    alike = name if not settings or settings.published else "log_db" if shape[-1] == 1 else "mix_q1_q4_q8"
    model, tx, rates, (train_step, eval_step) = compiled(alike, ALIKE.get(preset, preset))
    state = replicate(create_train_state(model, tx, shape, jax.random.PRNGKey(0)))
    before = jax.tree.map(np.array, state.params)
    rows = 16 // jax.local_device_count()
    batch = {
        "inputs": inputs.reshape(-1, rows, *inputs.shape[1:]),
        "labels": (np.arange(16) % NUM_CLASSES).reshape(-1, rows),
        "mask": (np.arange(16) < 13).astype(np.float32).reshape(-1, rows),
        "verified": np.ones((16 // rows, rows), bool),
        "stop": np.zeros(16 // rows, np.float32),
    }
    state, metrics = train_step(state, batch, {}, jax.random.PRNGKey(1))
    assert rates["head"](0) > 0
    assert int(state.step) == 1
    assert 0.5 < float(metrics["loss"]) < 10
    moved = jax.tree.map(lambda old, new: bool(np.any(old != np.asarray(new))), before, state.params)
    assert all(jax.tree.leaves(moved["head"]))
    assert moved["body"]["conv1"]["kernel"] == (config.training.frozen_epochs == 0)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))
    logits = np.asarray(eval_step(state, batch, {}))
    assert logits.shape == (jax.local_device_count(), rows, NUM_CLASSES)
    assert np.isfinite(logits).all()


def test_the_earlier_study_s_recipe():
    """Every field of it, as published; the image sizes are those of all presets."""
    config = get_config("log_db", "imagenet")
    expected = {
        "model": {"name": "resnext50_32x4d", "pretrained": "imagenet", "normalization": "imagenet", "dropout": 0.33},
        "train": {"batch_size": 64, "frozen_epochs": 5, "num_epochs": 10},
        "optimizer": {
            "frozen_learning_rate": 3e-3,
            "learning_rate_low": 6e-4,
            "learning_rate_high": 6e-2,
            "warmup_fraction": 0.25,
            "start_divisor": 25.0,
            "end_divisor": 1e5,
            "momentum_high": 0.95,
            "momentum_low": 0.85,
            "epsilon": 1e-8,
            "weight_decay": 0.01,
            "label_smoothing": 0.0,
        },
    }
    for section, fields in expected.items():
        assert {name: config[section][name] for name in fields} == fields
    assert not any(config.augment[name] for name in config.augment if not name.startswith(("max_time_m", "max_freq")))
    assert config.dataset.source == "fsdkaggle2018"


@pytest.mark.parametrize("name", VARIANTS)
def test_a_gain_knows_which_channels_are_in_db(name):
    config = get_config(name)
    config.augment.max_gain_db, config.spectral.range_db = 6.0, 60.0
    settings = parse_settings(config).augmentation
    in_db = (not channel.endswith(("_linear", "waveform")) for channel in config.spectral.channels)
    assert settings.db_channels == tuple(in_db)
    assert (settings.max_gain_db, settings.range_db) == (6.0, 60.0 if name not in NETWORKS else yamnet.RANGE_DB)
    config.augment.max_gain_db = -6.0
    with pytest.raises(UserError, match=r"config\.augment\.max_gain_db is -6\.0; it must be 0 to 300"):
        parse_settings(config)
