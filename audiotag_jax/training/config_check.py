"""Values of a configuration that could not work, found before any long step."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from audiotag_jax.training.augmentation import AugmentSettings
from audiotag_jax.datasets.prepare import clip_settings, spectral_settings, trains_on_clips
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.spectral.front_end import FrontEnd
from audiotag_jax.training.input_pipeline import choose_place
from audiotag_jax.models.build import Tagger, build_model
from audiotag_jax.models.pretrained import IMAGENET
from audiotag_jax.models.resnet import BODIES
from audiotag_jax.spectral.features import CHANNELS, decibels
from audiotag_jax.training.steps import AXIS, StepSettings

IMAGENET_NETWORK = "resnext50_32x4d"  # whose weights are downloaded
AT_LEAST_ONE = (
    "model.width",
    "train.batch_size",
    "train.log_every_steps",
    "train.checkpoint_every_epochs",
)
DIVISORS = ("optimizer.start_divisor", "optimizer.end_divisor")
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
    "train.profile_steps",
    "dataset.num_threads",
    "dataset.num_workers",
)
AMOUNTS = ("optimizer.weight_decay", "dataset.margin_s")
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
    (DIVISORS, lambda value: 1 <= value < math.inf, "at least 1 and finite"),
    (AMOUNTS, lambda value: 0 <= value < math.inf, "0 or more and finite"),
    (BELOW_ONE, lambda value: 0 <= value < 1, "at least 0 and below 1"),
    (("train.unverified_weight",), lambda value: 0 <= value <= 1, "0 to 1"),
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
    rows = -(-config.train.batch_size // jax.device_count())
    if config.augment.mixup_alpha and rows % 2:
        raise UserError(
            f"config.train.batch_size {config.train.batch_size} gives a device {rows} clips, an odd number, and "
            "config.augment.mixup_alpha mixes them in pairs."
        )
    if config.model.pretrained and config.model.init_from:
        raise UserError("config.model.pretrained and config.model.init_from are both set; a network starts from one.")
    if config.model.pretrained and config.model.name not in BODIES:
        raise UserError(f"config.model.pretrained is for {', '.join(BODIES)}, not for {config.model.name}.")
    if config.model.pretrained == IMAGENET and config.model.name != IMAGENET_NETWORK:
        raise UserError(f"config.model.pretrained imagenet is {IMAGENET_NETWORK}; for others name a file of weights.")
    if config.dataset.margin_s and not trains_on_clips(config):
        raise UserError("config.dataset.margin_s needs config.dataset.on_the_fly: stored images have been cropped.")
    if (config.model.name == "waveform") != (spectral_settings(config) is None):
        raise UserError("config.model.name waveform and config.spectral.channels ('waveform',) go together.")
    choose_place(config.dataset.input, 0)
    clip_settings(config)
    step_settings(config, num_classes=2)
    network = build_network(config, num_classes=2)
    if config.model.name == "waveform":
        length = clip_settings(config).length_samples
        try:
            jax.eval_shape(partial(network.init, train=False), jax.random.key(0), jnp.zeros((1, length, 1, 1)))
        except ValueError as error:
            raise UserError(f"config.dataset.duration_s is too short: {error}") from error


def step_settings(config: ConfigDict, num_classes: int) -> StepSettings:
    """The static settings of the steps; raises UserError on a bad value."""
    try:
        augment = AugmentSettings(**config.augment, db_channels=_db_channels(config), range_db=config.spectral.range_db)
    except ValueError as error:
        raise UserError(f"config.{error}") from error
    return StepSettings(
        num_classes, config.optimizer.label_smoothing, augment, front_end(config), config.train.unverified_weight
    )


def front_end(config: ConfigDict) -> FrontEnd:
    """How the steps make images of their inputs; raises UserError on a bad value."""
    length = clip_settings(config).length_samples if trains_on_clips(config) else None
    spectral = spectral_settings(config) if trains_on_clips(config) else None
    try:
        return FrontEnd(length, spectral, config.model.normalization)
    except ValueError as error:
        raise UserError(str(error)) from error


def _db_channels(config: ConfigDict) -> tuple[bool, ...]:
    """For each channel of what the network sees, whether it is in dB."""
    settings = spectral_settings(config)
    return tuple(CHANNELS[name].amplitude_scale is decibels for name in settings.channels) if settings else (False,)


def build_network(config: ConfigDict, num_classes: int) -> Tagger:
    """The network of a configuration; raises UserError on an unknown name."""
    model = config.model
    try:
        return build_model(
            model.name, num_classes, width=model.width, dropout=model.dropout, dtype=model.dtype, axis_name=AXIS
        )
    except ValueError as error:
        raise UserError(str(error)) from error
