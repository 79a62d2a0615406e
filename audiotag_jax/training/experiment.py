"""What training and evaluation share: the data, the compiled steps and the folds of one run."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from audiotag_jax.datasets.digests import digests, earlier_digests, has_earlier_digests
from audiotag_jax.datasets.index import recordings_of_clips
from audiotag_jax.datasets.names import spectrograms_fingerprint
from audiotag_jax.datasets.prepare import prepare
from audiotag_jax.datasets.prepared import read_metadata
from audiotag_jax.datasets.reader import Examples, read_split
from audiotag_jax.models.build import TaggingNetwork
from audiotag_jax.models.yamnet import YAMNET
from audiotag_jax.models.yamnet_weights import is_folded, with_statistics
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.processes import broadcast_from_main
from audiotag_jax.settings.sections import ModelSettings, OptimizerSettings
from audiotag_jax.settings.settings import Settings
from audiotag_jax.spectral.front_end import normalize, to_images
from audiotag_jax.training import checkpoints
from audiotag_jax.training.imbalance import balanced_class_weights
from audiotag_jax.training.initial_weights import clips_seen, initial_weights
from audiotag_jax.training.input_pipeline import choose_place, resident_data
from audiotag_jax.training.optimizer import Phase, learning_rates, make_optimizer, make_phases
from audiotag_jax.training.state import TrainState, create_train_state
from audiotag_jax.training.steps import AXIS, StepSettings, pmapped_steps, replicate, step_settings

_STATISTICS_CLIPS = 32  # enough for the mean and variance of a channel


class Programs(NamedTuple):
    """The compiled steps, and the network, optimizer and schedules that they are compiled for."""

    phases: tuple[Phase, ...]
    network: TaggingNetwork
    tx: optax.GradientTransformation
    rates: dict[str, optax.Schedule]
    train_step: Callable
    eval_step: Callable


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A run, ready to train: every fold uses the same compiled steps."""

    settings: Settings
    dataset_dir: Path
    metadata: dict
    examples: Examples
    resident: bool  # the inputs are stored on the devices
    folds: tuple[int, ...]  # to hold out now
    all_folds: tuple[int, ...]  # of the data
    steps_per_epoch: int
    programs: Programs

    @property
    def num_steps(self) -> int:
        return 1 if self.settings.training.probe else sum(phase.num_steps for phase in self.programs.phases)

    @property
    def fingerprint(self) -> str:
        """The name of what the network sees: that of the dataset, or of the images made of it in the steps."""
        return name_of_inputs(self.settings, self.dataset_dir)

    @property
    def classes(self) -> list[str]:
        return self.metadata["classes"]

    @functools.cached_property
    def test_examples(self) -> Examples | None:
        """The test clips; None on an inner split, which chooses settings."""
        return None if self.settings.training.inner_split else self._test_split

    @functools.cached_property
    def _test_split(self) -> Examples | None:
        return read_split(self.dataset_dir, "test")

    @functools.cached_property
    def data(self) -> dict:
        """What the steps gather their batches from: all clips on every device; empty where batches are streamed."""
        return replicate(resident_data(self.examples)) if self.resident else {}

    @functools.cached_property
    def image_shape(self) -> tuple[int, ...]:
        """[T, F, C] of what the network sees."""
        return shape_of_images(self.settings, self.examples)

    def key(self, fold: int) -> jax.Array:
        """Returns the random key of a fold."""
        return jax.random.fold_in(jax.random.PRNGKey(self.settings.seed), fold)

    def initial_state(self, fold: int) -> TrainState:
        """Returns the state before the first step."""
        return create_train_state(self.programs.network, self.programs.tx, self.image_shape, self.key(fold))

    def starting_state(self, fold: int, manager: checkpoints.Manager) -> tuple[TrainState, dict]:
        """Returns state, on all devices, and input position to continue from: the latest checkpoint's, or the first."""
        state, position = checkpoints.restore(manager, self.initial_state(fold))
        if not position:
            state = initial_weights(state, self.settings.model, self.classes, fold, self.scored_clips(fold))
            state = self._with_statistics(state, fold)
        return replicate(state), position

    def _with_statistics(self, state: TrainState, fold: int) -> TrainState:
        """Returns the state, with batch statistics of some training clips of the fold if its weights lack them."""
        model, front_end = self.settings.model, self.settings.front_end
        is_first = bool(model.pretrained or model.init_from)
        if model.name != YAMNET or not is_first or not is_folded(state.batch_stats["body"]):
            return state
        clips = self.training_clips(fold)
        clips = clips[:: max(1, len(clips) // _STATISTICS_CLIPS)][:_STATISTICS_CLIPS]
        images = normalize(to_images(jnp.asarray(self.examples.inputs[clips]), front_end), front_end)
        body = model.network(len(self.classes)).body
        found = with_statistics(
            body, {"params": state.params["body"], "batch_stats": state.batch_stats["body"]}, images
        )
        params, batch_stats = ({**getattr(state, kind), "body": found[kind]} for kind in ("params", "batch_stats"))
        return state.replace(params=params, batch_stats=batch_stats)

    @functools.cached_property
    def recordings(self) -> dict[str, str]:
        """By clip id, the name of the recording it was cut from; clips without one are left out."""
        return recordings_of_clips(self.dataset_dir)

    def scored_clips(self, fold: int) -> dict[str, str]:
        """Returns ids by digest of the clips that no network of the fold may have seen: held-out and test clips."""
        held_out = np.isin(self.examples.folds, _held_out(self.settings.training.inner_split, self.all_folds, fold))
        scored = digests(self.examples, np.flatnonzero(held_out))
        if (test := self._test_split) is not None:
            scored |= digests(test, np.arange(len(test)))
        if has_earlier_digests(clips_seen(self.settings.model, fold)):
            scored |= earlier_digests(self.settings.dataset, set(scored.values()))
        return scored

    def training_clips(self, fold: int) -> np.ndarray:
        """Returns indices of the clips outside the fold, and outside the one that is scored for it."""
        return np.flatnonzero(
            ~np.isin(self.examples.folds, _held_out(self.settings.training.inner_split, self.all_folds, fold))
        )

    def class_weights(self, fold: int) -> np.ndarray | None:
        """Returns the classes' weights in a fold's loss, `[K]` or `[K, 2]`, from its training clips; None if unset."""
        if self.settings.training.class_weights == "none":
            return None
        return balanced_class_weights(self.examples.labels[self.training_clips(fold)], len(self.classes))

    def validation_clips(self, fold: int) -> np.ndarray:
        """Returns indices of the clips to score: those of the fold; of an inner split, of the next fold."""
        return np.flatnonzero(
            self.examples.folds == _held_out(self.settings.training.inner_split, self.all_folds, fold)[-1]
        )


def name_of_inputs(settings: Settings, dataset_dir: Path) -> str:
    """Returns the name of what a network sees: that of the dataset, or of the images made of it in the steps."""
    if settings.trains_on_clips and settings.images:
        return spectrograms_fingerprint(dataset_dir, settings.images)
    return dataset_dir.parent.name


def shape_of_images(settings: Settings, examples: Examples) -> tuple[int, ...]:
    """Returns the shape [T, F, C] of what a network sees of the examples."""
    inputs = jax.ShapeDtypeStruct((1, *examples.inputs.shape[1:]), examples.inputs.dtype)
    return jax.eval_shape(functools.partial(to_images, front_end=settings.front_end), inputs).shape[1:]


def check_devices(settings: Settings, *, trains: bool = True) -> None:
    """Raises UserError if the devices do not suit the run.

    Where it `trains`, mixup must be able to pair the clips of a batch on each of them; a probe needs one process.
    """
    if settings.training.probe:
        if jax.process_count() > 1:
            raise UserError("config.train.probe trains in one process: leave out --coordinator.")
        return
    rows = -(-settings.training.batch_size // jax.device_count())
    if trains and settings.augmentation.mixup_alpha and rows % 2:
        raise UserError(
            f"config.train.batch_size {settings.training.batch_size} gives a device {rows} clips, an odd number, and "
            "config.augment.mixup_alpha mixes them in pairs."
        )


def open_experiment(settings: Settings, recorded: str | None = None, *, trains: bool = True) -> Experiment:
    """Prepares what is missing and builds the network, the optimizer and the steps.

    `recorded` is the name of the dataset that an earlier part of the run recorded (`prepare.prepare`). Raises
    UserError where the data has too few folds for the settings, or the devices do not fit them (`check_devices`).
    """
    check_devices(settings, trains=trains)
    training = settings.training
    dataset_dir = prepare(settings, recorded)
    metadata = read_metadata(dataset_dir)
    examples = read_split(dataset_dir, "train")
    if examples is None:
        raise UserError(f"{dataset_dir} has no training clips.")
    all_folds = tuple(np.unique(examples.folds).tolist())
    folds = tuple(dict.fromkeys(training.folds)) or all_folds
    unknown = [fold for fold in folds if fold not in all_folds]
    listed = ", ".join(map(str, all_folds))
    if len(all_folds) < 2:
        raise UserError(
            f"Training needs two folds, and only fold {listed} has readable clips; --mode=doctor lists the others."
        )
    if unknown:
        raise UserError(f"config.train.folds is {list(folds)}, but the readable clips have folds {listed}.")
    if training.inner_split and len(all_folds) < 3:
        raise UserError(f"config.train.inner_split needs three folds, but there are {len(all_folds)}.")
    sizes = {
        fold: int(np.sum(~np.isin(examples.folds, _held_out(training.inner_split, all_folds, fold))))
        for fold in all_folds
    }
    own = [sizes[fold] for fold in folds]
    steps_per_epoch = 1 if training.probe else count_steps_per_epoch(list(sizes.values()), own, training.batch_size)
    return Experiment(
        settings=settings,
        dataset_dir=dataset_dir,
        metadata=metadata,
        examples=examples,
        resident=broadcast_from_main(choose_place(settings.dataset.input, examples.inputs.nbytes) == "device"),
        folds=folds,
        all_folds=all_folds,
        steps_per_epoch=steps_per_epoch,
        programs=_programs(
            settings.model,
            settings.optimizer,
            (training.frozen_epochs, training.num_epochs),
            steps_per_epoch,
            step_settings(settings, len(metadata["classes"])),
        ),
    )


def _held_out(inner_split: bool, folds: Sequence[int], fold: int) -> tuple[int, ...]:
    """Returns the folds that training leaves out; the last of them is the one to score."""
    if not inner_split:
        return (fold,)
    return fold, folds[(folds.index(fold) + 1) % len(folds)]


@functools.lru_cache(maxsize=8)  # compiling takes long: runs of one process share compiled steps
def _programs(
    model: ModelSettings,
    optimizer: OptimizerSettings,
    epochs: tuple[int, int],
    steps_per_epoch: int,
    step: StepSettings,
) -> Programs:
    phases = make_phases(optimizer, *epochs, steps_per_epoch)
    network = model.network(step.num_classes, AXIS)
    rates = learning_rates(optimizer, phases)
    return Programs(phases, network, make_optimizer(optimizer, phases), rates, *pmapped_steps(step))


def count_steps_per_epoch(sizes: Sequence[int], own: Sequence[int], batch_size: int) -> int:
    """Returns the batches an epoch, the same for every fold: as many as the largest of the training `sizes` fills.

    `own` are the sizes of the folds that this run trains. Raises UserError if one of these would get batches of one
    clip, whose batch statistics are useless.
    """
    steps = -(-max(sizes) // batch_size)
    if min(own) < 2 * steps:
        raise UserError(
            f"With one fold held out, {min(own)} to {max(sizes)} clips remain: too uneven, or too few, for {steps} "
            f"batches of up to {batch_size}.\nMake the folds more even, or raise config.train.batch_size."
        )
    return steps
