"""Finished runs without a training: networks of random numbers, evaluated as trained ones are, on a few tiny sounds."""

import csv
import functools
from pathlib import Path

import jax
import numpy as np
import soundfile
from ml_collections import ConfigDict

from audiotag_jax.settings.record import fold_dir
from audiotag_jax.settings.settings import parse_settings
from audiotag_jax.training import checkpoints, evaluate
from audiotag_jax.training.experiment import Experiment, open_experiment
from audiotag_jax.training.state import TrainState
from audiotag_jax.training.steps import replicate
from audiotag_jax.training.workdir import record_config
from configs import log_db

RATE_HZ = 4000
LENGTH = 1200  # samples of a clip
CLASSES = ("bell", "bird", 'dog, "loud"', "rain")
NUM_CLIPS = 14


def make_sounds(folder: Path) -> None:
    """Noises and tones of 0.4 s with a table."""
    rng = np.random.default_rng(0)
    with (folder / "clips.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label"))
        for n in range(NUM_CLIPS):
            tone = np.sin(2 * np.pi * 100 * 2 ** (n % 4) * np.arange(1600) / RATE_HZ)
            soundfile.write(folder / f"{n:02d}.wav", 0.2 * tone + 0.1 * rng.standard_normal(1600), RATE_HZ)
            writer.writerow((f"{n:02d}.wav", CLASSES[n % 4]))


def tiny_config(folder: Path, channels: tuple[str, ...] = ("log_db",)) -> ConfigDict:
    """For the sounds in `folder`, beside which the datasets will lie."""
    config = log_db.get_config("folder")
    config.dataset.path, config.dataset.table = str(folder), "clips.csv"
    config.dataset.prepared_dir = str(folder.with_name("prepared"))
    config.dataset.sample_rate_hz = RATE_HZ
    config.dataset.duration_s = LENGTH / RATE_HZ
    config.dataset.num_folds = 2
    config.spectral.channels = channels
    config.spectral.num_frames = config.spectral.num_bins = 32
    config.spectral.window_samples = config.spectral.fft_samples = 256
    config.model.width = 4
    config.train.batch_size = 16
    config.train.num_epochs = 1
    return config


def make_run(config: ConfigDict, workdir: Path) -> Path:
    """A work directory as a training leaves it, of networks whose answers are far apart."""
    experiment = open_experiment(parse_settings(config))
    workdir.mkdir()
    record_config(workdir, parse_settings(config), experiment.classes, experiment.fingerprint)
    for fold in experiment.folds:
        state = experiment.initial_state(fold)
        stats = jax.tree.map_with_path(functools.partial(_statistic, np.random.default_rng(fold)), state.batch_stats)
        state = _standardized(experiment, state.replace(step=np.int32(experiment.num_steps), batch_stats=stats))
        with checkpoints.open_checkpoints(fold_dir(workdir, fold)) as manager:
            position = {"fold": fold, "epoch": experiment.num_steps // experiment.steps_per_epoch, "batch": 0}
            checkpoints.save(manager, state, position)
    evaluate.run(parse_settings(config), workdir)
    return workdir


def make_believable(workdir: Path) -> Path:
    """Changes the labels of a run's held-out clips to those that it names, but for one clip in five."""
    for path in workdir.glob("fold_*/predictions.npz"):
        with np.load(path) as saved:
            arrays = dict(saved)
        order = np.argsort(-arrays["logits"], axis=1)
        arrays["labels"] = order[np.arange(len(order)), (np.arange(len(order)) % 5 == 2).astype(int)]
        np.savez(path, **arrays)
    return workdir


def _statistic(rng: np.random.Generator, path: tuple, values: jax.Array) -> np.ndarray:
    """Variances below 1, so that activations do not fade away from layer to layer."""
    draw = rng.normal(0, 0.05, values.shape) if path[-1].key == "mean" else rng.uniform(0.25, 0.5, values.shape)
    return draw.astype(np.float32)


def _standardized(experiment: Experiment, state: TrainState) -> TrainState:
    """The state with a last layer by which each class' logits have mean 0 and deviation 1.5 over the sounds."""
    clips = np.arange(len(experiment.examples))
    logits = evaluate.predict_logits(experiment, replicate(state), experiment.examples, clips, "trying")
    scale = 1.5 / logits.std(axis=0)
    last = state.params["head"]["linear2"]
    last = {"kernel": last["kernel"] * scale, "bias": (last["bias"] - logits.mean(axis=0)) * scale}
    return state.replace(params=state.params | {"head": state.params["head"] | {"linear2": last}})
