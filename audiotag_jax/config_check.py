"""Values of a configuration that could not work, found before any long step."""

import math

import jax
from ml_collections import ConfigDict

from audiotag_jax.augment import AugmentSettings
from audiotag_jax.datasets.prepare import clip_settings, spectral_settings
from audiotag_jax.errors import UserError
from audiotag_jax.models.build import Tagger, build_model
from audiotag_jax.spectral.features import CHANNELS, decibels
from audiotag_jax.steps import AXIS, StepSettings

AT_LEAST_ONE = (
    "model.width",
    "train.batch_size",
    "train.log_every_steps",
    "train.checkpoint_every_epochs",
    "optimizer.start_divisor",
    "optimizer.end_divisor",
)
POSITIVE = (
    "optimizer.frozen_learning_rate",
    "optimizer.learning_rate_low",
    "optimizer.learning_rate_high",
    "optimizer.epsilon",
)
NOT_NEGATIVE = (
    "train.frozen_epochs",
    "train.num_epochs",
    "train.evaluate_every_epochs",
    "optimizer.weight_decay",
    "dataset.num_threads",
)
BELOW_ONE = (
    "optimizer.warmup_fraction",
    "optimizer.momentum_high",
    "optimizer.momentum_low",
    "optimizer.beta2",
    "optimizer.label_smoothing",
    "model.dropout",
)
RULES = (
    (AT_LEAST_ONE, lambda value: value >= 1, "at least 1"),
    (POSITIVE, lambda value: 0 < value < math.inf, "above 0 and finite"),
    (NOT_NEGATIVE, lambda value: value >= 0, "0 or more"),
    (BELOW_ONE, lambda value: 0 <= value < 1, "at least 0 and below 1"),
    (("seed", "dataset.fold_seed"), lambda value: 0 <= value < 2**32, "0 to 2^32 - 1"),
    (("dataset.num_folds",), lambda value: value >= 2, "at least 2"),
)


def check_config(config: ConfigDict) -> None:
    """Raises UserError on a bad value, naming the field."""
    for names, holds, wanted in RULES:
        for name in names:
            section, _, field = name.rpartition(".")
            value = config[section][field] if section else config[field]
            if not holds(value):
                raise UserError(f"config.{name} is {value}; it must be {wanted}.")
    if config.train.frozen_epochs + config.train.num_epochs < 1:
        raise UserError("config.train.frozen_epochs and config.train.num_epochs are both 0; there is nothing to train.")
    if any(type(fold) is not int for fold in config.train.folds):  # True would be an int, too
        raise UserError(f"config.train.folds is {config.train.folds}; give numbers of folds, such as (0,) or (0, 1).")
    rows = -(-config.train.batch_size // jax.local_device_count())
    if config.augment.mixup_alpha and rows % 2:
        raise UserError(
            f"config.train.batch_size {config.train.batch_size} gives a device {rows} clips, an odd number, and "
            "config.augment.mixup_alpha mixes them in pairs."
        )
    clip_settings(config)
    spectral_settings(config)
    step_settings(config, num_classes=2)
    build_network(config, num_classes=2)


def step_settings(config: ConfigDict, num_classes: int) -> StepSettings:
    """The static settings of the steps; raises UserError on a bad value."""
    try:
        augment = AugmentSettings(**config.augment, db_channels=_db_channels(config), range_db=config.spectral.range_db)
    except ValueError as error:
        raise UserError(f"config.{error}") from error
    return StepSettings(num_classes, config.optimizer.label_smoothing, augment)


def _db_channels(config: ConfigDict) -> tuple[bool, ...]:
    """For each channel of what the network sees, whether it is in dB."""
    if config.model.name == "waveform":
        return (False,)
    return tuple(CHANNELS[name].loudness is decibels for name in spectral_settings(config).channels)


def build_network(config: ConfigDict, num_classes: int) -> Tagger:
    """The network of a configuration; raises UserError on an unknown name."""
    model = config.model
    try:
        return build_model(
            model.name, num_classes, width=model.width, dropout=model.dropout, dtype=model.dtype, axis_name=AXIS
        )
    except ValueError as error:
        raise UserError(str(error)) from error
