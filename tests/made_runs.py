"""Finished runs without a training: networks of random numbers, evaluated as trained ones are, on a few tiny sounds."""

import csv
from pathlib import Path

import jax
import numpy as np
import soundfile
from ml_collections import ConfigDict

from audiotag_jax import checkpoint, evaluate
from audiotag_jax.experiment import open_experiment
from audiotag_jax.workdir import claim, fold_dir
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
    experiment = open_experiment(config)
    workdir.mkdir()
    claim(workdir, config, experiment.classes, experiment.fingerprint)
    for fold in experiment.folds:
        state = experiment.initial_state(fold)
        rng = np.random.default_rng(fold)
        stats = jax.tree.map_with_path(
            lambda path, x, rng=rng: _statistic(path[-1].key, x.shape, rng), state.batch_stats
        )
        state = state.replace(step=np.int32(experiment.num_steps), batch_stats=stats)
        with checkpoint.open_checkpoints(fold_dir(workdir, fold)) as manager:
            checkpoint.save(manager, state, {"step": experiment.num_steps})
    evaluate.run(config, workdir)
    return workdir


def _statistic(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Small variances, so that activations do not fade away from layer to layer."""
    return (rng.normal(0, 0.05, shape) if name == "mean" else rng.uniform(0.05, 0.2, shape)).astype(np.float32)
