"""Each value that could not work is refused in one line that names its field; what is at the edge of it is not."""

import math

import jax
import jax.numpy as jnp
import pytest
from audiotag_jax.training.config_check import build_network, check_config, front_end, step_settings
from ml_collections import ConfigDict

from audiotag_jax.models.build import MODELS
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.training import config_check
from configs import log_db, waveform

NAN, INF = math.nan, math.inf

# Field: refused values, accepted ones at the edge, what a person is told.
TABLE = {
    "seed": ((-1, 2**32), (0, 2**32 - 1), r"0 to 2\^32 - 1"),
    "dataset.fold_seed": ((-1, 2**32), (0, 2**32 - 1), r"0 to 2\^32 - 1"),
    "dataset.num_folds": ((1, -5), (2,), "at least 2"),
    "dataset.num_threads": ((-1,), (0,), "0 or more"),
    "dataset.num_workers": ((-1,), (0,), "0 or more"),
    "dataset.margin_s": ((-0.1, NAN, INF), (0.0,), "0 or more and finite"),
    "model.width": ((0, -1), (1,), "at least 1"),
    "model.dropout": ((-0.1, 1.0, NAN), (0.0, 0.99), "at least 0 and below 1"),
    "train.batch_size": ((0, -16), (1,), "at least 1"),
    "train.frozen_epochs": ((-1,), (0,), "0 or more"),
    "train.num_epochs": ((-1,), (1,), "0 or more"),
    "train.log_every_steps": ((0,), (1,), "at least 1"),
    "train.evaluate_every_epochs": ((-1,), (0,), "0 or more"),
    "train.checkpoint_every_epochs": ((0,), (1,), "at least 1"),
    "train.profile_steps": ((-1,), (0,), "0 or more"),
    "train.unverified_weight": ((-0.1, 1.1, NAN), (0.0, 1.0), "0 to 1"),
    "optimizer.frozen_learning_rate": ((0.0, -1e-3, NAN, INF), (1e-9,), "above 0 and finite"),
    "optimizer.learning_rate_low": ((0.0, -1e-3, NAN, INF), (1e-9,), "above 0 and finite"),
    "optimizer.learning_rate_high": ((0.0, -1e-3, NAN, INF), (1e-9,), "above 0 and finite"),
    "optimizer.epsilon": ((0.0, -1e-8, NAN, INF), (1e-12,), "above 0 and finite"),
    "optimizer.start_divisor": ((0.9, NAN, INF), (1.0,), "at least 1 and finite"),
    "optimizer.end_divisor": ((0.9, NAN, INF), (1.0,), "at least 1 and finite"),
    "optimizer.weight_decay": ((-0.1, NAN, INF), (0.0,), "0 or more and finite"),
    "optimizer.warmup_fraction": ((-0.1, 1.0, NAN), (0.0,), "at least 0 and below 1"),
    "optimizer.momentum_high": ((-0.1, 1.0, NAN), (0.0,), "at least 0 and below 1"),
    "optimizer.momentum_low": ((-0.1, 1.0, NAN), (0.0,), "at least 0 and below 1"),
    "optimizer.beta2": ((-0.1, 1.0, NAN), (0.0,), "at least 0 and below 1"),
    "optimizer.label_smoothing": ((-0.1, 1.0, NAN), (0.0,), "at least 0 and below 1"),
}
# Fields that the modules check which use them: refused values, what a person is told.
OTHERS = {
    "dataset.input": (("", "host"), "choose from auto, device, stream"),
    "dataset.sample_rate_hz": ((0, -22050, 999), r"1(000)? or more"),
    "dataset.duration_s": ((0.0, -1.0, NAN, INF), "above 0 and at most"),
    "model.name": (("", "resnet19"), f"choose from {', '.join(MODELS)}"),
    "model.dtype": (("", "float16"), "choose from float32, bfloat16"),
    "model.normalization": (("", "mean"), "choose from none, imagenet"),
    "spectral.num_frames": ((0, -1), "1 or more"),
    "spectral.num_bins": ((0, -1), "or more"),
    "spectral.range_db": ((0.0, -80.0, NAN, INF), "above 0"),
    "spectral.fft_samples": ((0, 100), "2048 or more"),
    "spectral.stride": ((0.5, NAN, INF), "from 1 to"),
    "augment.max_time_stretch": ((-0.1, 1.1, NAN), "a share, 0 to 1"),
    "augment.max_frequency_shift": ((-0.1, 1.1, NAN), "a share, 0 to 1"),
    "augment.max_time_shift": ((-0.1, 1.1, NAN), "a share, 0 to 1"),
    "augment.max_time_mask": ((-0.1, 1.1, NAN), "a share, 0 to 1"),
    "augment.max_frequency_mask": ((-0.1, 1.1, NAN), "a share, 0 to 1"),
    "augment.time_masks": ((-1,), "cannot be negative"),
    "augment.frequency_masks": ((-1,), "cannot be negative"),
    "augment.mixup_alpha": ((-0.1,), "cannot be negative"),
    "augment.max_gain_db": ((-0.1, 301.0, NAN, INF), "0 to 300"),
}


def changed(fields: dict, variant=log_db) -> ConfigDict:
    config = variant.get_config("demo")
    config.update_from_flattened_dict(fields)
    return config


def refused(config: ConfigDict, said: str) -> str:
    """What a person is told, which matches `said` and is one line."""
    with pytest.raises(UserError, match=said) as raised:
        check_config(config)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_the_table_has_every_field_with_a_rule():
    assert set(TABLE) == {name for names, _, _ in config_check.RULES for name in names}


@pytest.mark.parametrize("name", TABLE)
def test_a_field_by_itself(name):
    values, edges, wanted = TABLE[name]
    for value in values:
        said = refused(changed({name: value}), rf"{wanted}\.$")
        assert said.startswith(f"config.{name} is {value}; it must be ")
    for value in edges:
        check_config(changed({name: value}))


@pytest.mark.parametrize("name", OTHERS)
def test_a_field_that_its_user_checks(name):
    values, wanted = OTHERS[name]
    for value in values:
        said = refused(changed({name: value}), wanted)
        assert name.rpartition(".")[2] in said
        assert str(value) in said


@pytest.mark.parametrize("value", [NAN, INF])
def test_mixup_that_is_not_finite(value):
    refused(changed({"augment.mixup_alpha": value}), rf"config\.augment\.mixup_alpha is {value}; it must be finite\.")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"train.num_epochs": 0}, r"train\.frozen_epochs and config\.train\.num_epochs are both 0"),
        ({"train.folds": ("0",)}, r"train\.folds is \('0',\); give numbers"),
        ({"train.folds": (True,)}, r"train\.folds is \(True,\); give numbers"),
        ({"train.folds": (0.0, 1)}, r"train\.folds is \(0\.0, 1\); give numbers"),
        ({"model.pretrained": "a.pth", "model.init_from": "runs/a"}, r"model\.pretrained and .*init_from are both set"),
        ({"model.pretrained": "a.pth"}, r"model\.pretrained is for resnet18, .*, not for small"),
        ({"model.pretrained": "imagenet", "model.name": "resnet18"}, r"pretrained imagenet is resnext50_32x4d; .*file"),
        ({"dataset.margin_s": 0.5}, r"dataset\.margin_s needs config\.dataset\.on_the_fly"),
        (
            {"model.name": "waveform"},
            r"model\.name waveform and config\.spectral\.channels \('waveform',\) go together",
        ),
        ({"spectral.channels": ("waveform",)}, r"model\.name waveform and .* go together"),
        ({"spectral.channels": ()}, r"channels must be a tuple of names"),
        ({"spectral.channels": ("log_db", "bark_db")}, r"'bark_db'; choose from .*log_db"),
    ],
)
def test_fields_together(fields, said):
    refused(changed(fields), said)


@pytest.mark.parametrize(
    "fields",
    [
        {"train.num_epochs": 0, "train.frozen_epochs": 1},
        {"train.folds": (2, 0)},
        {"model.pretrained": "a.pth", "model.name": "resnet18"},
        {"model.pretrained": "imagenet", "model.name": "resnext50_32x4d"},
        {"dataset.margin_s": 0.5, "dataset.on_the_fly": True},
    ],
)
def test_fields_that_go_together(fields):
    check_config(changed(fields))


@pytest.mark.parametrize(("devices", "batch_size", "rows"), [(1, 3, 3), (8, 24, 3), (8, 20, 3), (2, 1, 1)])
def test_mixup_needs_an_even_number_of_clips_a_device(monkeypatch, devices, batch_size, rows):
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    fields = {"augment.mixup_alpha": 0.3, "train.batch_size": batch_size}
    refused(changed(fields), rf"batch_size {batch_size} gives a device {rows} clips, an odd number")
    check_config(changed(fields | {"augment.mixup_alpha": 0.0}))
    check_config(changed(fields | {"train.batch_size": devices * (rows + 1)}))


def test_a_clip_too_short_for_the_waveform_network():
    refused(changed({"dataset.duration_s": 0.002}, waveform), r"^config\.dataset\.duration_s is too short: ")
    check_config(changed({"dataset.duration_s": 0.1}, waveform))


def test_on_the_fly_the_steps_make_the_images():
    stored, waves = front_end(changed({})), front_end(changed({}, waveform))
    assert (stored.length_samples, stored.spectral) == (None, None)
    assert (waves.length_samples, waves.spectral) == (44100, None)
    fly = front_end(changed({"dataset.on_the_fly": True, "dataset.margin_s": 0.5, "model.normalization": "imagenet"}))
    assert (fly.length_samples, fly.spectral.channels, fly.normalization) == (44100, ("log_db",), "imagenet")


def test_fields_reach_steps_and_network():
    fields = {"optimizer.label_smoothing": 0.1, "train.unverified_weight": 0.5, "augment.time_masks": 3}
    settings = step_settings(changed(fields), num_classes=7)
    assert (settings.num_classes, settings.label_smoothing, settings.unverified_weight) == (7, 0.1, 0.5)
    assert settings.augment.time_masks == 3
    network = build_network(changed({"model.width": 6, "model.dropout": 0.2, "model.dtype": "bfloat16"}), num_classes=7)
    assert (network.body.width, network.head.dropout, network.head.num_classes) == (6, 0.2, 7)
    assert network.body.dtype == jnp.bfloat16
    assert network.body.axis_name == network.head.axis_name == "batch"
