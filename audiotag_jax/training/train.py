"""Training: every fold in one process, each continued from where it was interrupted."""

import functools
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from audiotag_jax.datasets.digests import digests
from audiotag_jax.datasets.prepare import warn_of_copies
from audiotag_jax.runtime.errors import Stopped, UserError
from audiotag_jax.runtime.paths import check_checkpoint_path
from audiotag_jax.runtime.processes import any_process, broadcast_from_main, describe_devices, is_main_process
from audiotag_jax.runtime.progress import log, progress
from audiotag_jax.settings.record import FILE_NAME, check_same_settings, fold_dir, is_only_recorded, recorded_dataset
from audiotag_jax.settings.settings import Settings
from audiotag_jax.training import checkpoints
from audiotag_jax.training.evaluate import conclude, is_finished, predict_logits, save_predictions
from audiotag_jax.training.experiment import Experiment, check_devices, open_experiment
from audiotag_jax.training.imbalance import strata_of
from audiotag_jax.training.initial_weights import check_initial_weights, check_pretrained, record_seen
from audiotag_jax.training.input_pipeline import Batches, TrainingOrder, close, read_ahead
from audiotag_jax.training.interruption import sigterm_flag
from audiotag_jax.training.loop import Loop, listed, scores_of
from audiotag_jax.training.probe import Predict, Probes
from audiotag_jax.training.state import TrainState
from audiotag_jax.training.workdir import MetricsWriter, lock_workdir, record_config


def run(settings: Settings, workdir: Path) -> None:
    """Runs mode `train`: prepares what is missing, trains and evaluates each unfinished fold, writes the summary."""
    check_devices(settings)
    check_checkpoint_path(str(workdir.absolute()))
    with lock_workdir(workdir):
        experiment = _open_experiment(settings, workdir)
        finished = all(is_finished(experiment, workdir, fold) for fold in experiment.folds)
        trained_on = None if finished else experiment.metadata.get("provenance", {})
        record_config(workdir, settings, experiment.classes, experiment.fingerprint, trained_on=trained_on)
        unfinished = [
            fold for fold in experiment.folds if not broadcast_from_main(is_finished(experiment, workdir, fold))
        ]
        for fold in unfinished:
            check_fold(experiment, workdir, fold)
        if unfinished:
            warn_of_copies(experiment.dataset_dir)
        probes = Probes(experiment)
        if len(unfinished) > 1 and not settings.training.folds and not settings.training.probe:
            alone = f'--config.train.folds="({unfinished[0]},)"'
            log(f"training {len(unfinished)} folds, one after the other; one fold alone: {alone}")
        for fold in unfinished if settings.training.probe else ():
            probes.compute_features(fold)
        with sigterm_flag() as stop:  # from here on: preparing has nothing to save, so SIGTERM may end it at once
            for fold in experiment.folds:
                if fold not in unfinished:
                    log(f"fold {fold}: finished before")
                    continue
                start = time.monotonic()
                logits = None
                if settings.training.probe:
                    predict = train_probe(experiment, probes, workdir, fold)
                else:
                    state, logits = train_fold(experiment, workdir, fold, stop)
                    checkpoints.check_saved(fold_dir(workdir, fold) / "checkpoints", state)
                    predict = functools.partial(predict_logits, experiment, state)
                scores = listed(scores_of(*save_predictions(experiment, workdir, fold, predict, logits)))
                log(f"fold {fold}: finished in {time.monotonic() - start:.0f} s; held out: {scores}")
                if any_process(stop()):
                    raise Stopped(f"SIGTERM received: fold {fold} is finished.")
        conclude(experiment, workdir)


def _open_experiment(settings: Settings, workdir: Path) -> Experiment:
    """Opens the run's experiment; raises UserError, before a long preparation, for other settings and lost weights."""
    is_new = not (workdir / FILE_NAME).exists() or is_only_recorded(workdir)
    if is_new:
        check_pretrained(settings.model)
    if not is_only_recorded(workdir):  # else the first attempt may have had wrong flags, which are corrected now
        check_same_settings(workdir, settings)
    return open_experiment(settings, None if is_new else recorded_dataset(workdir))


def check_fold(experiment: Experiment, workdir: Path, fold: int) -> None:
    """Raises UserError, before any step, if the initial weights do not fit the fold, or it lacks verified clips."""
    settings = experiment.settings
    if not checkpoints.kept_steps(fold_dir(workdir, fold) / "checkpoints"):
        check_initial_weights(settings.model, fold, experiment.scored_clips(fold))
    training = settings.training
    needing = {"unverified_weight": training.unverified_weight == 0, "verified_epochs": training.verified_epochs > 0}
    field = next((name for name, needs in needing.items() if needs), None)
    if field and not experiment.examples.verified[experiment.training_clips(fold)].any():
        value = getattr(training, field)
        raise UserError(f"config.train.{field} is {value:g}, and fold {fold} leaves no verified clip to train on.")


def train_probe(experiment: Experiment, probes: Probes, workdir: Path, fold: int) -> Predict:
    """Trains the probe of one fold, writing checkpoint and metrics; returns its predictions."""
    if not checkpoints.kept_steps(fold_dir(workdir, fold) / "checkpoints"):
        fold_dir(workdir, fold).mkdir(exist_ok=True)
        _record_seen(experiment, workdir, fold)
    predict, values = probes.train(workdir, fold)
    if values:
        clips = experiment.validation_clips(fold)
        scores = scores_of(predict(experiment.examples, clips, ""), experiment.examples.labels[clips])
        with MetricsWriter(workdir, fold, 0) as writer:
            writer.write(experiment.num_steps, "train", values)
            writer.write(experiment.num_steps, "validation", scores)
    return predict


def train_fold(
    experiment: Experiment, workdir: Path, fold: int, stop: Callable[[], bool]
) -> tuple[TrainState, np.ndarray | None]:
    """Trains one fold, writing checkpoints and metrics; returns the state after the last step.

    Beside it are the logits `[n, K]` of the held-out clips, or None if an earlier process took the last step.
    When `stop()` becomes true, as after SIGTERM, saves a checkpoint of the current step and raises Stopped.
    """
    settings, num_steps = experiment.settings, experiment.num_steps
    with checkpoints.open_checkpoints(fold_dir(workdir, fold)) as manager:
        state, position = experiment.starting_state(fold, manager)
        first_step = int(state.step)
        if position:
            if position["epoch"] * experiment.steps_per_epoch + position["batch"] != first_step:
                raise UserError(f"Fold {fold}: the input position {position} is not that of step {first_step}.")
            log(f"fold {fold}: continuing at step {first_step} of {num_steps}")
        clips, held_out = experiment.training_clips(fold), experiment.validation_clips(fold)
        if not position and is_main_process():
            _record_seen(experiment, workdir, fold)
        counts = f"{num_steps} steps on {len(clips)} clips, {len(held_out)} held out, {describe_devices()}"
        log(f"fold {fold}{_place(experiment, fold)}: {counts}; the first step compiles")
        order = _training_order(experiment, fold, clips)
        batches = Batches(experiment.examples, order, settings.training.batch_size, experiment.resident)
        reader = read_ahead(batches, first_step, settings.dataset.num_workers)
        with MetricsWriter(workdir, fold, first_step, enabled=is_main_process()) as writer:
            loop = Loop(experiment, workdir, fold, manager, writer)
            what = f"training fold {fold}"
            shown = progress(reader, num_steps, what, "steps", first=first_step, status=loop.status)
            try:
                state = loop.run(state, shown, stop)
            finally:
                loop.end_profile()
                close(reader)
    return state, loop.last_logits


def _training_order(experiment: Experiment, fold: int, clips: np.ndarray) -> TrainingOrder:
    """Returns the order of a fold's training clips that its settings define."""
    training, is_verified = experiment.settings.training, experiment.examples.verified[clips]
    labels, balanced = experiment.examples.labels[clips], training.sampling == "balanced"
    verified = strata_of(labels, is_verified, balanced=balanced) if training.verified_epochs else None
    return TrainingOrder(
        clips,
        experiment.steps_per_epoch,
        experiment.num_steps,
        experiment.settings.seed,
        fold,
        strata_of(labels) if balanced else None,
        verified,
        training.verified_epochs,
    )


def _place(experiment: Experiment, fold: int) -> str:
    """Returns which of the folds to train this is, as " (1 of 5)"; "" if it is the only one."""
    folds = experiment.folds
    return f" ({folds.index(fold) + 1} of {len(folds)})" if fold in folds and len(folds) > 1 else ""


def _record_seen(experiment: Experiment, workdir: Path, fold: int) -> None:
    seen = digests(experiment.examples, experiment.training_clips(fold))
    record_seen(fold_dir(workdir, fold), experiment.settings.model, fold, seen)
