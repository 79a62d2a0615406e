"""Training: every fold in one process, each continued from where it was interrupted."""

import time
from pathlib import Path

import jax
import numpy as np
import scipy.special
from ml_collections import ConfigDict

from audiotag_jax import checkpoint
from audiotag_jax.config_check import check_config
from audiotag_jax.errors import UserError
from audiotag_jax.evaluate import conclude, is_finished, predict_logits, save_predictions
from audiotag_jax.experiment import Experiment, open_experiment
from audiotag_jax.files import locked
from audiotag_jax.input_pipeline import training_batches
from audiotag_jax.metrics import label_ranks
from audiotag_jax.progress import progress, say
from audiotag_jax.train_state import TrainState
from audiotag_jax.workdir import MetricsWriter, check_unclaimed, claim, fold_dir


def run(config: ConfigDict, workdir: Path) -> None:
    """Mode `train`: prepares what is missing, trains and evaluates each unfinished fold, writes the summary."""
    check_config(config)
    with locked(workdir, "using"):
        check_unclaimed(workdir, config)
        experiment = open_experiment(config)
        claim(workdir, config, experiment.classes, experiment.dataset_dir.parent.name)
        for fold in experiment.folds:
            if is_finished(experiment, workdir, fold):
                say(f"fold {fold}: finished before")
                continue
            save_predictions(experiment, workdir, fold, train_fold(experiment, workdir, fold))
        conclude(experiment, workdir)


def train_fold(experiment: Experiment, workdir: Path, fold: int) -> TrainState:
    """The state after the last step of one fold; checkpoints and metrics are left on the way."""
    config, num_steps = experiment.config, experiment.num_steps
    start = time.monotonic()
    with checkpoint.open_checkpoints(fold_dir(workdir, fold)) as manager:
        state, position = checkpoint.restore(manager, experiment.initial_state(fold))
        first_step = int(state.step)
        if position:
            if position["epoch"] * experiment.steps_per_epoch + position["batch"] != first_step:
                raise UserError(f"Fold {fold}: the input position {position} is not that of step {first_step}.")
            say(f"fold {fold}: continuing at step {first_step} of {num_steps}")
        clips, held_out = experiment.training_clips(fold), experiment.validation_clips(fold)
        say(f"fold {fold}: {num_steps} steps on {len(clips)} clips, {len(held_out)} held out; the first step compiles")
        batches = training_batches(
            experiment.examples,
            clips,
            batch_size=config.train.batch_size,
            steps_per_epoch=experiment.steps_per_epoch,
            first_step=first_step,
            num_steps=num_steps,
            seed=config.seed,
            fold=fold,
        )
        batches = progress(batches, num_steps, f"training fold {fold}", "steps", first=first_step)
        with MetricsWriter(workdir, fold, first_step) as writer:
            state = _steps(experiment, fold, state, batches, manager, writer)
    say(f"fold {fold}: {num_steps - first_step} steps in {time.monotonic() - start:.0f} s")
    return state


def _steps(experiment: Experiment, fold: int, state, batches, manager, writer: MetricsWriter) -> TrainState:
    train, key = experiment.config.train, experiment.key(fold)
    waiting = None  # metrics are fetched one step late, so that the device never waits for the host
    step = int(state.step)
    for batch in batches:
        state, metrics = experiment.train_step(state, batch, key)
        step += 1
        if waiting:
            _log(experiment, writer, *waiting)
        waiting = (step, metrics) if step % train.log_every_steps == 0 or step == experiment.num_steps else None
        epoch, inside = divmod(step, experiment.steps_per_epoch)
        if inside:
            continue
        if waiting:  # now, since a run continued from this epoch's checkpoint will not come to it again
            _log(experiment, writer, *waiting)
            waiting = None
        last = step == experiment.num_steps
        if train.evaluate_every_epochs and (epoch % train.evaluate_every_epochs == 0 or last):
            scores = _validate(experiment, fold, state)
            writer.write(step, "validation", scores)
            say(f"fold {fold}, epoch {epoch}: validation " + ", ".join(f"{name} {scores[name]:.3f}" for name in scores))
        if epoch % train.checkpoint_every_epochs == 0 or last:
            checkpoint.save(manager, state, {"fold": fold, "epoch": epoch, "batch": inside})
    return state


def _log(experiment: Experiment, writer: MetricsWriter, step: int, metrics: dict) -> None:
    if not np.isfinite(metrics["loss"]):
        raise UserError(
            f"The training diverged: the loss is {float(metrics['loss'])} at step {step}.\n"
            "Train with a lower config.optimizer.learning_rate_high, in another --workdir."
        )
    rates = {f"learning_rate_{label}": rate(step - 1) for label, rate in experiment.rates.items() if "_" not in label}
    writer.write(step, "train", jax.device_get(metrics | rates))


def _validate(experiment: Experiment, fold: int, state: TrainState) -> dict[str, float]:
    """Mean loss, accuracy and top-3 error of the held-out clips, for the learning curve alone."""
    clips, examples = experiment.validation_clips(fold), experiment.examples
    batch_size = experiment.config.train.batch_size
    logits = predict_logits(experiment.eval_step, state, examples, clips, batch_size, f"validating fold {fold}")
    labels = examples.labels[clips]
    ranks = label_ranks(logits, labels)
    loss = -scipy.special.log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean()
    return {"loss": loss, "accuracy": np.mean(ranks == 0), "top3_error": np.mean(ranks >= 3)}
