"""All that training and evaluation share: the data, the compiled steps and the folds of one configuration."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from audiotag_jax.augment import AugmentSettings
from audiotag_jax.datasets.prepare import clip_settings, prepare, spectral_settings
from audiotag_jax.datasets.reader import Examples, read_metadata, read_split
from audiotag_jax.errors import UserError
from audiotag_jax.models.build import Tagger, build_model
from audiotag_jax.optimizer import Phase, learning_rates, make_optimizer, make_phases
from audiotag_jax.steps import AXIS, StepSettings, pmapped_steps, replicate
from audiotag_jax.train_state import TrainState, create_train_state


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One configuration, ready to train: every fold uses the same compiled steps."""

    config: ConfigDict
    dataset_dir: Path
    metadata: dict
    examples: Examples
    folds: tuple[int, ...]
    steps_per_epoch: int
    phases: tuple[Phase, ...]
    model: Tagger
    tx: optax.GradientTransformation
    rates: dict[str, optax.Schedule]
    train_step: Callable
    eval_step: Callable

    @property
    def num_steps(self) -> int:
        return sum(phase.num_steps for phase in self.phases)

    @property
    def classes(self) -> list[str]:
        return self.metadata["classes"]

    @functools.cached_property
    def test_examples(self) -> Examples | None:
        return read_split(self.dataset_dir, "test")

    def key(self, fold: int) -> jax.Array:
        """The random key of a fold."""
        return jax.random.fold_in(jax.random.PRNGKey(self.config.seed), fold)

    def initial_state(self, fold: int) -> TrainState:
        """The state before the first step, on all devices."""
        return replicate(create_train_state(self.model, self.tx, self.examples.images.shape[1:], self.key(fold)))

    def training_clips(self, fold: int) -> np.ndarray:
        """Indices of the clips outside the fold."""
        return np.flatnonzero(self.examples.folds != fold)

    def validation_clips(self, fold: int) -> np.ndarray:
        """Indices of the clips inside the fold."""
        return np.flatnonzero(self.examples.folds == fold)


def check_config(config: ConfigDict) -> None:
    """Raises UserError on a value that could not work, before any long step."""
    clip_settings(config)
    spectral_settings(config)
    step_settings(config, num_classes=2)
    _model(config, num_classes=2)
    train, optimizer = config.train, config.optimizer
    positive = {f"train.{name}": train[name] for name in ("batch_size", "log_every_steps", "checkpoint_every_epochs")}
    names = ("frozen_learning_rate", "learning_rate_low", "learning_rate_high", "start_divisor", "end_divisor", "epsilon")
    positive |= {f"optimizer.{name}": optimizer[name] for name in names}
    positive |= {"model.width": config.model.width, "dataset.num_folds": config.dataset.num_folds - 1}
    positive |= {"train.frozen_epochs + train.num_epochs": train.frozen_epochs + train.num_epochs}
    counts = {f"train.{name}": train[name] for name in ("frozen_epochs", "num_epochs", "evaluate_every_epochs")}
    counts |= {"optimizer.weight_decay": optimizer.weight_decay, "dataset.num_threads": config.dataset.num_threads}
    for name, value in positive.items():
        if not value > 0:
            minimum = "at least 2" if name == "dataset.num_folds" else "above 0"
            raise UserError(f"config.{name} must be {minimum}.")
    for name, value in counts.items():
        if not value >= 0:
            raise UserError(f"config.{name} is {value}; it cannot be negative.")
    shares = {f"optimizer.{name}": optimizer[name] for name in ("momentum_high", "momentum_low", "beta2")}
    shares |= {"optimizer.label_smoothing": optimizer.label_smoothing, "model.dropout": config.model.dropout}
    for name, value in shares.items():
        if not 0 <= value < 1:
            raise UserError(f"config.{name} is {value}; it must be at least 0 and below 1.")
    if not 0 < optimizer.warmup_fraction < 1:
        raise UserError(f"config.optimizer.warmup_fraction is {optimizer.warmup_fraction}; it must lie between 0 and 1.")


def open_experiment(config: ConfigDict) -> Experiment:
    """Prepares what is missing and builds the network, the optimizer and the steps; raises UserError on bad values."""
    check_config(config)
    dataset_dir = prepare(config)
    metadata = read_metadata(dataset_dir)
    examples = read_split(dataset_dir, "train")
    all_folds = sorted(set(examples.folds.tolist()))
    folds = tuple(config.train.folds) or tuple(all_folds)
    unknown = [fold for fold in folds if fold not in all_folds]
    if unknown or len(all_folds) < 2:
        listed = ", ".join(map(str, all_folds))
        raise UserError(f"config.train.folds {list(folds)}: the readable clips have folds {listed}, of which one is held out.")
    largest = max(int(np.sum(examples.folds != fold)) for fold in all_folds)
    steps_per_epoch = -(-largest // config.train.batch_size)
    phases = make_phases(config, steps_per_epoch)
    train_step, eval_step = pmapped_steps(step_settings(config, len(metadata["classes"])))
    return Experiment(
        config=config,
        dataset_dir=dataset_dir,
        metadata=metadata,
        examples=examples,
        folds=folds,
        steps_per_epoch=steps_per_epoch,
        phases=phases,
        model=_model(config, len(metadata["classes"])),
        tx=make_optimizer(config, phases),
        rates=learning_rates(config, phases),
        train_step=train_step,
        eval_step=eval_step,
    )


def step_settings(config: ConfigDict, num_classes: int) -> StepSettings:
    """The static settings of the steps; raises UserError on a bad value."""
    try:
        augment = AugmentSettings(**config.augment)
    except ValueError as error:
        raise UserError(f"config.{error}") from error
    return StepSettings(num_classes, config.optimizer.label_smoothing, augment)


def _model(config: ConfigDict, num_classes: int) -> Tagger:
    model = config.model
    try:
        return build_model(
            model.name, num_classes, width=model.width, dropout=model.dropout, dtype=model.dtype, axis_name=AXIS
        )
    except ValueError as error:
        raise UserError(str(error)) from error
