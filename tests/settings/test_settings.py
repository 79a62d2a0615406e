"""Invalid values raise a one-line error that names the field; values at the limits are accepted."""

import dataclasses
import json
import math
import typing

import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict

from audiotag_jax.models.build import MODELS
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.settings.checks import Condition, recorded
from audiotag_jax.settings.settings import SECTIONS, parse_settings, recorded_fields
from audiotag_jax.training.steps import step_settings
from configs import default, log_db, waveform

NAN, INF = math.nan, math.inf

# Field: rejected values, accepted values at the limits, the error message.
TABLE = {
    "dataset.sample_rate_hz": ((0, -22050, 999), (1000,), "at least 1000"),
    "dataset.duration_s": ((0.0, -1.0, NAN, INF), (0.1, 600.0), "above 0 and at most 600"),
    "augment.max_time_stretch": ((-0.1, 1.1, NAN), (0.0, 1.0), "a share, 0 to 1"),
    "augment.max_frequency_shift": ((-0.1, 1.1, NAN), (0.0, 1.0), "a share, 0 to 1"),
    "augment.max_time_shift": ((-0.1, 1.1, NAN), (0.0, 1.0), "a share, 0 to 1"),
    "augment.max_time_mask": ((-0.1, 1.1, NAN), (0.0, 1.0), "a share, 0 to 1"),
    "augment.max_frequency_mask": ((-0.1, 1.1, NAN), (0.0, 1.0), "a share, 0 to 1"),
    "augment.time_masks": ((-1,), (0,), "0 or more"),
    "augment.frequency_masks": ((-1,), (0,), "0 or more"),
    "augment.mixup_alpha": ((-0.1, NAN, INF), (0.0,), "0 or more and finite"),
    "augment.max_gain_db": ((-0.1, 301.0, NAN, INF), (0.0, 300.0), "0 to 300"),
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
    "train.verified_epochs": ((-1,), (0,), "0 or more"),
    "train.profile_steps": ((-1,), (0,), "0 or more"),
    "train.unverified_weight": ((-0.1, 1.1, NAN), (0.0, 1.0), "0 to 1"),
    "train.focal_gamma": ((0.0, -1.0, NAN, INF), (0.5,), "above 0 and finite"),
    "optimizer.frozen_learning_rate": ((0.0, -1e-3, NAN, INF), (1e-9,), "above 0 and finite"),
    "optimizer.learning_rate_low": ((0.0, -1e-3, NAN, INF), (1e-9,), "above 0 and finite"),
    "optimizer.learning_rate_high": ((0.0, -1e-3, NAN, INF), (1e-9,), "above 0 and finite"),
    "optimizer.epsilon": ((0.0, -1e-8, NAN, INF), (1e-12,), "above 0 and finite"),
    "optimizer.start_divisor": ((0.9, NAN, INF), (1.0,), "at least 1"),
    "optimizer.end_divisor": ((0.9, NAN, INF), (1.0,), "at least 1"),
    "optimizer.weight_decay": ((-0.1, NAN, INF), (0.0,), "0 or more and finite"),
    "optimizer.warmup_fraction": ((-0.1, 1.0, NAN), (0.0,), "at least 0 and below 1"),
    "optimizer.momentum_high": ((-0.1, 1.0, NAN), (0.0,), "at least 0 and below 1"),
    "optimizer.momentum_low": ((-0.1, 1.0, NAN), (0.0,), "at least 0 and below 1"),
    "optimizer.beta2": ((-0.1, 1.0, NAN), (0.0,), "at least 0 and below 1"),
    "optimizer.label_smoothing": ((-0.1, 1.0, NAN), (0.0,), "at least 0 and below 1"),
    "optimizer.probe_penalty": ((0.0, -1.0, NAN, INF), (1e-9,), "above 0 and finite"),
}
# Fields with other messages: rejected values, the message.
OTHERS = {
    "dataset.input": (("", "host"), "choose from auto, device, stream"),
    "model.name": (("", "resnet19"), f"choose from {', '.join(MODELS)}"),
    "model.dtype": (("", "float16"), "choose from float32, bfloat16"),
    "model.normalization": (("", "mean"), "choose from none, imagenet"),
    "train.probe_pooling": (("", "max"), "choose from mean, mean_std, mean_max"),
    "train.probe_power": ((0.0, -0.5, 1.5, NAN), "it must be (above 0 and finite|0 to 1)"),
    "train.lq_exponent": ((0.0, -0.5, 1.5, NAN), "it must be (above 0 and finite|0 to 1)"),
    "train.loss": (("", "hinge"), "choose from cross_entropy, focal, lq"),
    "train.class_weights": (("", "sqrt"), "choose from none, balanced"),
    "train.sampling": (("", "sqrt"), "choose from uniform, balanced"),
    "dataset.label_separator": (("and", "a", ";;;;"), "such as , ; or"),
    "study.margin": ((0.0, 1.0, NAN), "it must be (above 0 and finite|at least 0 and below 1)"),
    "spectral.num_frames": ((0, -1), "1 or more"),
    "spectral.num_bins": ((0, -1), "or more"),
    "spectral.range_db": ((0.0, -80.0, NAN, INF), "above 0"),
    "spectral.fft_samples": ((0, 100), "2048 or more"),
    "spectral.stride": ((0.5, NAN, INF), "from 1 to"),
    "spectral.upper_q": ((-1.0, 0.01, 100.0, NAN), "0 or from 0.1 to 64"),
    "spectral.upper_from_hz": ((-1.0, NAN, INF), "0 or more"),
    "spectral.smoothing_cells": ((-1.0, 0.01, NAN, INF), "0 or from 0.1 to 20"),
}


def changed(fields: dict, variant=log_db) -> ConfigDict:
    config = variant.get_config("demo")
    config.update_from_flattened_dict(fields)
    return config


def error_message(config: ConfigDict, pattern: str) -> str:
    """Returns the message of the UserError, which must match `pattern` and be one line."""
    with pytest.raises(UserError, match=pattern) as raised:
        parse_settings(config)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_the_tables_have_every_field_with_a_condition():
    conditions = {"seed"}
    for name, (_, kind) in SECTIONS.items():
        for field, hint in typing.get_type_hints(kind, include_extras=True).items():
            if any(isinstance(each, Condition) for each in getattr(hint, "__metadata__", ())):
                conditions.add(f"{name}.{field}")
    spectral = {name for name in OTHERS if name.startswith("spectral.")}
    assert set(TABLE) | set(OTHERS) == conditions | spectral


@pytest.mark.parametrize("name", TABLE)
def test_a_field_rejects_values_outside_its_limits(name):
    values, limits, pattern = TABLE[name]
    for value in values:
        message = error_message(changed({name: value}), rf"{pattern}\.$")
        assert message.startswith(f"config.{name} is {value}; it must be ")
    for value in limits:
        parse_settings(changed({name: value}))


@pytest.mark.parametrize("name", OTHERS)
def test_a_field_checked_where_it_is_used_rejects_bad_values(name):
    values, pattern = OTHERS[name]
    for value in values:
        message = error_message(changed({name: value}), pattern)
        assert name.rpartition(".")[2] in message
        assert str(value) in message


@pytest.mark.parametrize(
    ("fields", "pattern"),
    [
        ({"train.num_epochs": 0}, r"train\.frozen_epochs and config\.train\.num_epochs are both 0"),
        ({"train.folds": ("0",)}, r"train\.folds is \('0',\); give numbers"),
        ({"train.folds": (True,)}, r"train\.folds is \(True,\); give numbers"),
        ({"train.folds": (0.0, 1)}, r"train\.folds is \(0\.0, 1\); give numbers"),
        ({"model.pretrained": "a.pth", "model.init_from": "runs/a"}, r"model\.pretrained and .*init_from are both set"),
        ({"model.pretrained": "a.pth"}, r"model\.pretrained is for resnet18, .*, not for small"),
        (
            {"model.pretrained": "imagenet", "model.name": "resnet18"},
            r"pretrained imagenet is resnext50_32x4d or efficientnet_lite0; .*file",
        ),
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
def test_inconsistent_fields_raise(fields, pattern):
    error_message(changed(fields), pattern)


@pytest.mark.parametrize(
    "fields",
    [
        {"train.num_epochs": 0, "train.frozen_epochs": 1},
        {"train.folds": (2, 0)},
        {"model.pretrained": "a.pth", "model.name": "resnet18"},
        {"model.pretrained": "imagenet", "model.name": "resnext50_32x4d"},
        {"model.pretrained": "imagenet", "model.name": "efficientnet_lite0"},
        {"dataset.margin_s": 0.5, "dataset.on_the_fly": True},
    ],
)
def test_consistent_fields_are_accepted(fields):
    parse_settings(changed(fields))


def test_a_clip_too_short_for_the_waveform_network_raises():
    error_message(changed({"dataset.duration_s": 0.002}, waveform), r"^config\.dataset\.duration_s is too short: ")
    parse_settings(changed({"dataset.duration_s": 0.1}, waveform))


def test_on_the_fly_the_front_end_computes_the_images():
    stored, waves = (parse_settings(changed({}, variant)).front_end for variant in (log_db, waveform))
    assert (stored.length_samples, stored.spectral) == (None, None)
    assert (waves.length_samples, waves.spectral) == (44100, None)
    fields = {"dataset.on_the_fly": True, "dataset.margin_s": 0.5, "model.normalization": "imagenet"}
    fly = parse_settings(changed(fields)).front_end
    assert (fly.length_samples, fly.spectral.channels, fly.normalization) == (44100, ("log_db",), "imagenet")


def test_fields_are_passed_to_steps_and_network():
    fields = {"optimizer.label_smoothing": 0.1, "train.unverified_weight": 0.5, "augment.time_masks": 3}
    settings = step_settings(parse_settings(changed(fields)), num_classes=7)
    assert (settings.num_classes, settings.label_smoothing, settings.unverified_weight) == (7, 0.1, 0.5)
    assert settings.augmentation.time_masks == 3
    fields = {"model.width": 6, "model.dropout": 0.2, "model.dtype": "bfloat16"}
    network = parse_settings(changed(fields)).model.network(7, "batch")
    assert (network.body.width, network.head.dropout, network.head.num_classes) == (6, 0.2, 7)
    assert network.body.dtype == jnp.bfloat16
    assert network.body.axis_name == network.head.axis_name == "batch"


# Settings and their record.


@pytest.mark.parametrize("preset", default.PRESETS)
def test_config_and_settings_have_the_same_fields(preset):
    config = default.get_config(preset).to_dict()
    for name, (_, kind) in SECTIONS.items():
        assert set(config.pop(name)) == {field.name for field in recorded(kind)}, name
    assert set(config) == {"name", "preset", "seed"}


def test_imagenet_s_statistics_are_those_of_the_body_s_weights():
    names = {"resnext50_32x4d": "imagenet", "efficientnet_lite0": "imagenet_lite"}
    for name, statistics in names.items():
        settings = parse_settings(changed({"model.name": name, "model.normalization": "imagenet"}))
        assert settings.front_end.normalization == settings.waveform_front_end.normalization == statistics


def test_a_record_is_read_back_as_the_same_settings():
    fields = {"train.folds": (0, 2), "spectral.channels": ("log_db", "mel_db"), "seed": 3, "model.width": 5}
    settings = parse_settings(changed(fields))
    record = json.loads(json.dumps(recorded_fields(settings)))
    assert parse_settings(record) == dataclasses.replace(settings, study=None)
    assert (
        "study" not in record and "sample_rate_hz" not in record["spectral"] and "db_channels" not in record["augment"]
    )


def test_a_field_missing_in_an_old_record_gets_its_legacy_value():
    record = recorded_fields(parse_settings(changed({})))
    for section, fields in {
        "dataset": {"on_the_fly": False, "margin_s": 0.0},
        "model": {"normalization": "none"},
    }.items():
        for name, value in fields.items():
            assert record[section].pop(name) == value
    assert recorded_fields(parse_settings(record)) == recorded_fields(parse_settings(changed({})))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record["model"].pop("width"), r"another version of the code, without model\.width\.$"),
        (lambda record: record["model"].update(depth=3), r"with the unknown model\.depth\.$"),
        (lambda record: record.pop("optimizer"), r"has no optimizer\.$"),
        (lambda record: record.update(extra={}), r"has the unknown extra\.$"),
        (lambda record: record["spectral"].update(num_bins="many"), r"config\.spectral: num_bins must be .*'many'"),
    ],
)
def test_a_record_of_another_version_raises(change, message):
    record = recorded_fields(parse_settings(changed({})))
    change(record)
    with pytest.raises(UserError, match=message):
        parse_settings(record)


def test_settings_are_frozen_hashable_and_parsed_parts_are_shared():
    settings = parse_settings(changed({}))
    assert settings.front_end is settings.front_end and settings.clips is settings.clips
    assert hash(settings.model) == hash(parse_settings(changed({})).model)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.model.width = 3
