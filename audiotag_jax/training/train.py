"""Training: every fold in one process, each continued from where it was interrupted."""

import functools
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import scipy.special

from audiotag_jax.datasets.digests import digests
from audiotag_jax.evaluation import metrics
from audiotag_jax.runtime.errors import Stopped, UserError
from audiotag_jax.runtime.paths import check_checkpoint_path
from audiotag_jax.runtime.processes import any_process, broadcast_from_main, is_main_process
from audiotag_jax.runtime.progress import log, progress
from audiotag_jax.settings.record import FILE_NAME, check_same_settings, fold_dir, is_only_recorded, recorded_dataset
from audiotag_jax.settings.settings import Settings
from audiotag_jax.training import checkpoints
from audiotag_jax.training.evaluate import conclude, is_finished, predict_logits, save_predictions
from audiotag_jax.training.experiment import Experiment, check_devices, open_experiment
from audiotag_jax.training.initial_weights import check_initial_weights, check_pretrained, record_seen
from audiotag_jax.training.input_pipeline import Batches, TrainingOrder, close, read_ahead
from audiotag_jax.training.interruption import DivergenceMonitor, sigterm_flag
from audiotag_jax.training.probe import Predict, Probes
from audiotag_jax.training.state import TrainState
from audiotag_jax.training.workdir import MetricsWriter, lock_workdir, record_config

_PROFILE_AFTER = 10  # steps of a process before its profile: they compile and warm up


def run(settings: Settings, workdir: Path) -> None:
    """Mode `train`: prepares what is missing, trains and evaluates each unfinished fold, writes the summary."""
    check_devices(settings)
    check_checkpoint_path(str(workdir.absolute()))
    with lock_workdir(workdir):
        experiment = _open_experiment(settings, workdir)
        finished = all(is_finished(experiment, workdir, fold) for fold in experiment.folds)
        trained_on = None if finished else experiment.metadata.get("provenance", {})
        record_config(workdir, settings, experiment.classes, experiment.fingerprint, trained_on=trained_on)
        for fold in experiment.folds:
            check_fold(experiment, workdir, fold)
        unfinished = [
            fold for fold in experiment.folds if not broadcast_from_main(is_finished(experiment, workdir, fold))
        ]
        probes = Probes(experiment)
        for fold in unfinished if settings.training.probe else ():
            probes.compute_features(fold)
        with sigterm_flag() as stop:  # from here on: preparing has nothing to save, so SIGTERM may end it at once
            for fold in experiment.folds:
                if fold not in unfinished:
                    log(f"fold {fold}: finished before")
                    continue
                if settings.training.probe:
                    predict = train_probe(experiment, probes, workdir, fold)
                else:
                    state = train_fold(experiment, workdir, fold, stop)
                    checkpoints.check_saved(fold_dir(workdir, fold) / "checkpoints", state)
                    predict = functools.partial(predict_logits, experiment, state)
                save_predictions(experiment, workdir, fold, predict)
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
    """Raises UserError, before any step, if the initial weights do not fit the fold or all its clips have weight 0."""
    settings = experiment.settings
    if not checkpoints.kept_steps(fold_dir(workdir, fold) / "checkpoints"):
        check_initial_weights(settings.model, fold, experiment.scored_clips(fold))
    if (
        settings.training.unverified_weight == 0
        and not experiment.examples.verified[experiment.training_clips(fold)].any()
    ):
        raise UserError(f"config.train.unverified_weight is 0, and fold {fold} leaves no verified clip to train on.")


def train_probe(experiment: Experiment, probes: Probes, workdir: Path, fold: int) -> Predict:
    """Trains the probe of one fold, writing checkpoint and metrics; returns its predictions."""
    if not checkpoints.kept_steps(fold_dir(workdir, fold) / "checkpoints"):
        fold_dir(workdir, fold).mkdir(exist_ok=True)
        _record_seen(experiment, workdir, fold)
    predict, values = probes.train(workdir, fold)
    if values:
        clips = experiment.validation_clips(fold)
        scores = _scores(predict(experiment.examples, clips, ""), experiment.examples.labels[clips])
        with MetricsWriter(workdir, fold, 0) as writer:
            writer.write(experiment.num_steps, "train", values)
            writer.write(experiment.num_steps, "validation", scores)
    return predict


def train_fold(experiment: Experiment, workdir: Path, fold: int, stop: Callable[[], bool]) -> TrainState:
    """Trains one fold, writing checkpoints and metrics; returns the state after the last step.

    When `stop()` becomes true, as after SIGTERM, saves a checkpoint of the current step and raises Stopped.
    """
    settings, num_steps = experiment.settings, experiment.num_steps
    start = time.monotonic()
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
        counts = f"{num_steps} steps on {len(clips)} clips, {len(held_out)} held out, devices: {jax.device_count()}"
        log(f"fold {fold}: {counts}; the first step compiles")
        order = TrainingOrder(clips, experiment.steps_per_epoch, num_steps, settings.seed, fold)
        batches = Batches(experiment.examples, order, settings.training.batch_size, experiment.resident)
        reader = read_ahead(batches, first_step, settings.dataset.num_workers)
        shown = progress(reader, num_steps, f"training fold {fold}", "steps", first=first_step)
        with MetricsWriter(workdir, fold, first_step, enabled=is_main_process()) as writer:
            loop = _Loop(experiment, workdir, fold, manager, writer)
            try:
                state = loop.run(state, shown, stop)
            finally:
                loop.end_profile()
                close(reader)
    log(f"fold {fold}: {num_steps - first_step} steps in {time.monotonic() - start:.0f} s")
    return state


def _record_seen(experiment: Experiment, workdir: Path, fold: int) -> None:
    seen = digests(experiment.examples, experiment.training_clips(fold))
    record_seen(fold_dir(workdir, fold), experiment.settings.model, fold, seen)


class _Loop:
    """Runs the steps of one fold with logging, validation, checkpoints and profiling between them."""

    def __init__(self, experiment: Experiment, workdir: Path, fold: int, manager, writer: MetricsWriter):
        self.experiment, self.workdir, self.fold = experiment, workdir, fold
        self.manager, self.writer, self.monitor = manager, writer, DivergenceMonitor(manager, fold)
        self.profiling = False
        steps = np.arange(experiment.num_steps)  # all rates at once: fetching one a step would wait for the device
        rates = {label: rate for label, rate in experiment.programs.rates.items() if "_" not in label}
        self.rates = {f"learning_rate_{label}": np.asarray(jax.vmap(rate)(steps)) for label, rate in rates.items()}
        self.clips_per_step = len(experiment.training_clips(fold)) / experiment.steps_per_epoch
        self.clock, self.clock_step = time.monotonic(), 0  # when and at which step metrics were last logged

    def run(self, state: TrainState, batches, stop: Callable[[], bool]) -> TrainState:
        experiment, fold = self.experiment, self.fold
        key, data = experiment.key(fold), experiment.data
        step = first_step = self.clock_step = int(state.step)
        # Metrics are fetched one step late, so that the device never waits for the host.
        waiting: tuple[int, dict] | None = None
        stop_flags = {flag: np.full(jax.local_device_count(), flag, np.float32) for flag in (False, True)}
        for batch in batches:
            profiled = self._profile(step - first_step)
            state, metrics = experiment.programs.train_step(state, batch | {"stop": stop_flags[stop()]}, data, key)
            step += 1
            stopping = waiting is not None and self._check(*waiting)
            waiting = (step, metrics)
            if profiled:
                jax.block_until_ready(metrics)
            ends_epoch = step % experiment.steps_per_epoch == 0
            if ends_epoch or stopping:  # now: a run that continues from this checkpoint will not see this step again
                stopping |= self._check(*waiting)
                waiting = None
            if ends_epoch:
                self._end_epoch(state, step)
            if stopping and step < experiment.num_steps:
                if self.manager.latest_step() != step:
                    self._save(state, step)
                raise Stopped(f"SIGTERM received: fold {fold} is saved at step {step}.")
        return state

    def _check(self, step: int, metrics: dict) -> bool:
        """Logs a step's metrics; returns whether any process got SIGTERM. Raises Diverged if they are not finite."""
        train = self.experiment.settings.training
        stopping = self.monitor.check(step, metrics)
        if step % train.log_every_steps == 0 or step == self.experiment.num_steps:
            self._log(step, metrics)
        return stopping

    def _log(self, step: int, metrics: dict) -> None:
        values = {name: value for name, value in jax.device_get(metrics).items() if name != "health"}
        values |= {name: rates[step - 1] for name, rates in self.rates.items()}
        now = time.monotonic()
        values["clips_per_second"] = self.clips_per_step * (step - self.clock_step) / max(now - self.clock, 1e-9)
        self.clock, self.clock_step = now, step
        self.monitor.remember(step, values)
        self.writer.write(step, "train", values)

    def _end_epoch(self, state: TrainState, step: int) -> None:
        experiment, train, start = self.experiment, self.experiment.settings.training, time.monotonic()
        epoch, last = step // experiment.steps_per_epoch, step == experiment.num_steps
        if train.evaluate_every_epochs and (epoch % train.evaluate_every_epochs == 0 or last):
            scores = _validate(experiment, self.fold, state)
            self.writer.write(step, "validation", scores)
            listed = ", ".join(f"{name} {scores[name]:.3f}" for name in scores)
            log(f"fold {self.fold}, epoch {epoch}: validation {listed}")
        if epoch % train.checkpoint_every_epochs == 0 or last:
            self._save(state, step)
        self.clock += time.monotonic() - start  # throughput is that of training alone

    def _save(self, state: TrainState, step: int) -> None:
        epoch, inside = divmod(step, self.experiment.steps_per_epoch)
        checkpoints.save(self.manager, state, {"fold": self.fold, "epoch": epoch, "batch": inside})

    def _profile(self, steps_done: int) -> bool:
        """Starts and stops the main process's profile; returns whether the next step is part of it."""
        wanted = self.experiment.settings.training.profile_steps
        if wanted and is_main_process() and steps_done == _PROFILE_AFTER:
            self.profiling = True
            jax.profiler.start_trace(str(self.workdir / "profile" / f"fold_{self.fold}"))
        if steps_done == _PROFILE_AFTER + wanted:
            self.end_profile()
        return self.profiling

    def end_profile(self) -> None:
        """Writes the profile, if one was begun."""
        if self.profiling:
            self.profiling = False
            jax.profiler.stop_trace()


def _validate(experiment: Experiment, fold: int, state: TrainState) -> dict[str, float]:
    """Mean loss and metrics of the held-out clips, for the learning curve alone."""
    clips = experiment.validation_clips(fold)
    logits = predict_logits(experiment, state, experiment.examples, clips, f"validating fold {fold}")
    return _scores(logits, experiment.examples.labels[clips])


def _scores(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    ranks = metrics.label_ranks(logits, labels)
    loss = -scipy.special.log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean()
    return {"loss": loss} | {each.name: each.values(ranks).mean() for each in metrics.METRICS}
