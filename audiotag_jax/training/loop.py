"""The steps of one fold, and what happens between them: logging, validation, checkpoints, a profile."""

import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import scipy.special

from audiotag_jax.evaluation import metrics, multilabel
from audiotag_jax.evaluation.task import MULTI_LABEL, task_of
from audiotag_jax.runtime.errors import Stopped
from audiotag_jax.runtime.processes import is_main_process
from audiotag_jax.runtime.progress import log
from audiotag_jax.training import checkpoints
from audiotag_jax.training.evaluate import predict_logits
from audiotag_jax.training.experiment import Experiment
from audiotag_jax.training.interruption import DivergenceMonitor
from audiotag_jax.training.state import TrainState
from audiotag_jax.training.workdir import MetricsWriter

_PROFILE_AFTER = 10  # steps of a process before its profile: they compile and warm up


class Loop:
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
        self.latest: dict | None = None  # metrics of the last step of which they have arrived
        self.last_logits: np.ndarray | None = None  # of the held-out clips after the last step, once they are there

    def run(self, state: TrainState, batches, stop: Callable[[], bool]) -> TrainState:
        experiment, fold = self.experiment, self.fold
        key, data = experiment.key(fold), experiment.data
        step = first_step = self.clock_step = int(state.step)
        # Metrics are fetched one step late, so that the device never waits for the host.
        waiting: tuple[int, dict] | None = None
        num_devices = jax.local_device_count()
        stop_flags = {flag: np.full(num_devices, flag, np.float32) for flag in (False, True)}
        weights = experiment.class_weights(fold)
        extra = {} if weights is None else {"class_weights": np.stack([weights] * num_devices)}
        for batch in batches:
            profiled = self._profile(step - first_step)
            batch = batch | extra | {"stop": stop_flags[stop()]}
            state, metrics = experiment.programs.train_step(state, batch, data, key)
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

    def status(self) -> str:
        """Returns the training loss of the last step whose metrics have arrived; "" before."""
        return "" if self.latest is None else f"loss {np.asarray(self.latest['loss']):.3f}"

    def _check(self, step: int, metrics: dict) -> bool:
        """Logs a step's metrics; returns whether any process got SIGTERM. Raises Diverged if they are not finite."""
        self.latest, train = metrics, self.experiment.settings.training
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
        if last or (train.evaluate_every_epochs and epoch % train.evaluate_every_epochs == 0):
            logits, scores = validate(experiment, self.fold, state)
            self.last_logits = logits if last else None
            self.writer.write(step, "validation", scores)
            if not last:  # else the fold's last line has them
                log(f"fold {self.fold}, epoch {epoch}: validation {listed(scores)}")
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


def validate(experiment: Experiment, fold: int, state: TrainState) -> tuple[np.ndarray, dict[str, float]]:
    """Returns logits `[n, K]` of the held-out clips, and their mean loss and metrics for the learning curve."""
    clips = experiment.validation_clips(fold)
    logits = predict_logits(experiment, state, experiment.examples, clips, f"validating fold {fold}")
    return logits, scores_of(logits, experiment.examples.labels[clips])


def listed(scores: dict[str, float]) -> str:
    """Formats the loss and metrics as one line for a log."""
    labels = multilabel.METRICS | {each.name: each.label_in_text for each in metrics.METRICS}
    return ", ".join(f"{labels.get(name, name)} {value:.3f}" for name, value in scores.items())


def scores_of(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Computes mean cross-entropy and metrics of logits `[n, K]` and labels `[n]`, or `[n, K]` of any number a clip."""
    if task_of(labels) is MULTI_LABEL:
        truth = labels == 1
        loss = np.logaddexp(0, np.where(truth, -1.0, 1.0) * logits).mean()
        found = multilabel.scores(logits, truth, np.ones((1, len(truth))))
        scores = {name: float(found[name][0]) for name in multilabel.METRICS}
        return {"loss": loss} | {name: value for name, value in scores.items() if np.isfinite(value)}
    ranks = metrics.label_ranks(logits, labels)
    loss = -scipy.special.log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean()
    return {"loss": loss} | {each.name: each.values(ranks).mean() for each in metrics.METRICS}
