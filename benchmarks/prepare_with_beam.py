"""Prepares a folder locally and by Apache Beam, compares all records, and kills Beam at random moments.

    python benchmarks/prepare_with_beam.py --path=data/ESC-50 --kills=20

Needs requirements-beam.txt. The folder is read as data set esc10, its clips as `log_db`; shards are made small, so that
all workers have some. Processes are killed with their children by SIGKILL, after a random share of an undisturbed run.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

ROOT = Path(__file__).parents[1]
SCRIPT = """
import sys
sys.path[:0] = [{root!r}]
from audiotag_jax import cli
from audiotag_jax.datasets import builders
builders.SHARD_CLIPS = {shard}
cli.run()
"""


def start(options: argparse.Namespace, folder: Path, *, beam: bool) -> subprocess.Popen:
    """Starts preparing into `folder`, in a process group of its own."""
    arguments = [
        f"--config={ROOT}/configs/log_db.py:esc10",
        "--mode=prepare",
        f"--config.dataset.path={options.path}",
        f"--config.dataset.prepared_dir={folder}",
    ]
    if beam:
        workers = f"--direct_num_workers={options.workers} --direct_running_mode=multi_processing"
        arguments += ["--config.dataset.beam_runner=DirectRunner", f"--config.dataset.beam_options={workers}"]
    script = SCRIPT.format(root=str(ROOT), shard=options.shard)
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def count_equal(one: Path, other: Path) -> tuple[int, int]:
    """Returns how many records there are, and how many of them are equal in both folders."""
    total = equal = 0
    for directory in sorted(path.parent for path in one.glob("*/*/*/dataset_info.json")):
        sources = [
            tfds.builder_from_directory(folder / directory.relative_to(one)).as_data_source("train")
            for folder in (one, other)
        ]
        for first, second in zip(*sources, strict=True):
            total += 1
            equal += all(np.array_equal(first[name], second[name]) for name in first)
    return total, equal


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--shard", type=int, default=50, help="clips a shard")
    parser.add_argument("--kills", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        local, beam = Path(scratch) / "local", Path(scratch) / "beam"
        seconds = {}
        for folder in (local, beam):
            began = time.monotonic()
            status = start(options, folder, beam=folder == beam).wait()
            seconds[folder] = time.monotonic() - began
            assert status == 0, f"preparing {folder.name} ended with status {status}"
        total, equal = count_equal(local, beam)
        rates = {folder: total / 2 / each for folder, each in seconds.items()}
        print(f"{total} records, {equal} of them equal; start-up included, locally {rates[local]:.1f} clips a second,")
        print(f"by Beam with {options.workers} workers {rates[beam]:.1f}: {rates[beam] / rates[local]:.2f} times")
        shutil.rmtree(beam)
        rng, killed = random.Random(0), 0
        for _ in range(options.kills):
            process = start(options, beam, beam=True)
            try:
                process.wait(rng.uniform(0.1, 1) * seconds[beam])
                shutil.rmtree(beam)  # it was complete
            except subprocess.TimeoutExpired:
                killed += 1
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if options.kills:
            assert start(options, beam, beam=True).wait() == 0
            total, equal = count_equal(local, beam)
            print(f"killed {killed} of {options.kills} times; after the last run {equal} of {total} records are equal")


if __name__ == "__main__":
    main()
