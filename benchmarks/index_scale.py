"""Measures how a run starts and feeds its steps with an index of many clips: seconds, memory, overhead a step.

    python benchmarks/index_scale.py --clips=2000000

A small dataset of clips is prepared; then its index and its counts are replaced by those of `--clips` synthetic rows,
and the recordings are removed. Starting is `open_experiment`, as in modes train and evaluate: it finds the dataset and
reads its index. A step's overhead is that of its indices, labels and padding; the inputs are left out, since there are
none. Printed for comparison: a permutation drawn in every step, as before epochs were cached, and decoding every
record for its label, as before there was an index, from the records that were written.
"""

import argparse
import json
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import pyarrow as pa
import soundfile

sys.path.insert(0, str(Path(__file__).parents[1]))

from audiotag_jax.datasets import index as indexes  # noqa: E402
from audiotag_jax.datasets.prepare import prepare_run_clips  # noqa: E402
from audiotag_jax.datasets.prepared import record_source  # noqa: E402
from audiotag_jax.settings.settings import Settings, parse_settings  # noqa: E402
from audiotag_jax.settings.variants import get_config  # noqa: E402
from audiotag_jax.training.experiment import open_experiment  # noqa: E402
from audiotag_jax.training.input_pipeline import Batches, TrainingOrder, epoch_order  # noqa: E402

CLASSES, SMALL, RATE_HZ, TEST_SHARE = 400, 800, 4000, 20
BATCH_SIZE = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=2_000_000)
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    with tempfile.TemporaryDirectory() as folder:
        settings = small_dataset(Path(folder))
        clips_dir = prepare_run_clips(settings)
        decoding_s = time_decoding(clips_dir)
        enlarge(clips_dir, options.clips)
        shutil.rmtree(settings.dataset.path)
        print(f"index of {options.clips} rows: {(clips_dir / indexes.FILE_NAME).stat().st_size / 2**20:.1f} MiB")
        before = peak_gib()
        start = time.monotonic()
        experiment = open_experiment(settings)
        starting_s = time.monotonic() - start
        print(f"start-up: {starting_s:.1f} s; {decoding_s * options.clips:.0f} s if labels were decoded from records")
        order = TrainingOrder(experiment.training_clips(0), experiment.steps_per_epoch, 10**9, 0, 0)
        step_s, redrawn_s = time_steps(experiment, order, options.steps), time_redrawing(order)
        print(f"overhead a step: {1e3 * step_s:.3f} ms; {1e3 * redrawn_s:.0f} ms if the epoch were drawn in every step")
        print(f"first step of an epoch, which draws its order: {1e3 * time_first_step(order):.0f} ms")
        print(f"peak memory: {peak_gib():.2f} GiB, {before:.2f} before the start")


def small_dataset(folder: Path) -> Settings:
    """Returns settings of `SMALL` short noises in two folders of labels."""
    rng = np.random.default_rng(0)
    for n in range(SMALL):
        path = folder / "sounds" / f"label_{n % 2}" / f"{n}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * rng.standard_normal(RATE_HZ // 10), RATE_HZ)
    config = get_config("waveform", "folder")
    config.dataset.path, config.dataset.prepared_dir = str(folder / "sounds"), str(folder / "prepared")
    config.dataset.sample_rate_hz, config.dataset.duration_s = RATE_HZ, 1.0
    config.dataset.input, config.train.batch_size = "stream", BATCH_SIZE
    return parse_settings(config)


def time_decoding(directory: Path) -> float:
    """Returns seconds a record, of reading label, fold and id from the records."""
    source = record_source(directory, "train", ("id", "label", "fold", "verified"))
    start = time.monotonic()
    for n in range(0, SMALL, 200):
        source.__getitems__(list(range(n, n + 200)))
    return (time.monotonic() - start) / SMALL


def enlarge(directory: Path, num_clips: int) -> None:
    """Replaces the index and the counts of a dataset by those of `num_clips` rows, a twentieth of them test clips."""
    rng, num_test = np.random.default_rng(0), num_clips // TEST_SHARE
    num_train = num_clips - num_test
    labels = rng.integers(0, CLASSES, num_clips)
    columns = {
        "split": ["train"] * num_train + ["test"] * num_test,
        "id": [f"uploader_{n % 50021:05d}/recording_{n:07d}.wav" for n in range(num_clips)],
        "label": labels,
        "fold": np.where(np.arange(num_clips) < num_train, np.arange(num_clips) % 5, -1),
        "verified": rng.random(num_clips) < 0.3,
        "recording": [f"recording_{n // 3:07d}" for n in range(num_clips)],
        "sound": [f"{n:016x}" for n in rng.integers(0, 2**63, num_clips).tolist()],
        "place": np.full(num_clips, -1),
    }
    indexes.write_index(directory, pa.table(columns, schema=indexes.SCHEMA))
    path = directory / "dataset_info.json"
    info = json.loads(path.read_text())
    [train] = info["splits"]
    sizes = {"train": num_train, "test": num_test}
    info["splits"] = [train | {"name": name, "shardLengths": [str(size)]} for name, size in sizes.items()]
    path.write_text(json.dumps(info))
    path = directory / "metadata.json"
    metadata = json.loads(path.read_text())
    path.write_text(json.dumps(metadata | {"classes": [f"class {n}" for n in range(CLASSES)]}))


def time_steps(experiment, order: TrainingOrder, num_steps: int) -> float:
    """Returns the median seconds of a step's part on the host, its inputs left out."""
    batches = Batches(experiment.examples, order, BATCH_SIZE, resident=True)
    batches[0]
    times = []
    for step in np.linspace(0, experiment.steps_per_epoch - 1, num_steps).astype(int).tolist():
        start = time.perf_counter()
        batch = batches[step]
        experiment.examples.labels[batch["index"]], experiment.examples.verified[batch["index"]]
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def time_redrawing(order: TrainingOrder) -> float:
    start = time.perf_counter()
    rng = np.random.default_rng((0, 0, 0))
    np.array_split(rng.permutation(len(order.clips)), order.steps_per_epoch)[7]
    return time.perf_counter() - start


def time_first_step(order: TrainingOrder) -> float:
    start = time.perf_counter()
    first = order[3 * order.steps_per_epoch]
    elapsed = time.perf_counter() - start
    expected = epoch_order(len(order.clips), order.steps_per_epoch, seed=0, fold=0, epoch=3)[0]
    assert np.array_equal(first, order.clips[expected]), "the order has changed"
    return elapsed


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
