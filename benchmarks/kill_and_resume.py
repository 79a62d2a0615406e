"""Kills runs of the demo at random times and checks that the same command resumes them with identical results.

    python benchmarks/kill_and_resume.py --trials=20
    python benchmarks/kill_and_resume.py --trials=10 --mode=study

One run is not interrupted; the kills are spread over its duration, so over writing sounds, preparing, training and
evaluating. All other runs get SIGKILL, with all children, once or twice, and are then restarted. Their summaries must
have the same text and their parameters the same bits; a study (two variants, two seeds, a search of two learning
rates) must have the same scores and reports, byte for byte. Every third run writes the demo's sounds again.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

ROOT = Path(__file__).parents[1]
SETTINGS = (
    "--config=configs/log_db.py:demo",
    "--config.dataset.num_folds=2",
    "--config.dataset.duration_s=1",
    "--config.spectral.num_frames=64",
    "--config.spectral.num_bins=64",
    "--config.model.width=8",
    "--config.train.frozen_epochs=1",
    "--config.train.num_epochs=5",
    "--config.train.checkpoint_every_epochs=1",
    "--config.train.log_every_steps=1",
    "--config.augment.mixup_alpha=0.3",
)
STUDY = (
    "--mode=study",
    "--config.dataset.num_folds=3",  # the fewest that leave an inner split
    "--config.train.num_epochs=2",
    "--config.study.variants=('log_db', 'mel_db')",
    "--config.study.seeds=(0, 1)",
    "--config.study.rate_factors=(1.0, 3.0)",
    "--config.study.search_epochs=1",
)
REPORTS = ("choices.json", "scores.json", "report*")  # of a study


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the times of the kills")
    parser.add_argument("--mode", choices=("train", "study"), default="train")
    options = parser.parse_args()
    settings = (*SETTINGS, *STUDY) if options.mode == "study" else SETTINGS
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="kill_and_resume.") as folder:
        folder = Path(folder)
        start = time.monotonic()
        run(settings, folder / "reference", folder / "sounds")
        length_s = time.monotonic() - start
        print(f"uninterrupted: {length_s:.1f} s", flush=True)
        same = 0
        for trial in range(options.trials):
            kills_s = [rng.uniform(0.0, length_s) for _ in range(rng.choice((1, 1, 2)))]
            same += attempt(settings, folder, trial, kills_s)
    compared = "reports" if options.mode == "study" else "summary and parameters"
    print(f"{same} of {options.trials} killed runs ended with the uninterrupted run's {compared}")
    sys.exit(same < options.trials)


def attempt(settings: Sequence[str], folder: Path, trial: int, kills_s: list[float]) -> bool:
    """Kills a new run at these times after its starts, resumes it to the end, and compares; prints one line."""
    own = folder / "killed"
    sounds = own / "sounds" if trial % 3 == 0 else folder / "sounds"
    states = [kill(settings, own, sounds, after_s) for after_s in kills_s]
    run(settings, own, sounds)
    differences = compare(folder / "reference", own)
    times = ", ".join(f"{after_s:.1f} s ({state})" for after_s, state in zip(kills_s, states, strict=True))
    print(f"trial {trial}: killed after {times}: {'; '.join(differences) or 'same'}", flush=True)
    shutil.rmtree(own)
    return not differences


def command(settings: Sequence[str], folder: Path, sounds: Path) -> list[str]:
    """Returns the command of a run with its work directory and datasets below `folder`."""
    paths = (f"--workdir={folder}/run", f"--config.dataset.prepared_dir={folder}/prepared")
    return [sys.executable, "main.py", *settings, *paths, f"--config.dataset.path={sounds}"]


def run(settings: Sequence[str], folder: Path, sounds: Path) -> None:
    """Runs to the end; exits with the output of a run that fails."""
    done = subprocess.run(command(settings, folder, sounds), cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"the run failed with status {done.returncode}:\n{done.stdout}{done.stderr}")


def kill(settings: Sequence[str], folder: Path, sounds: Path, after_s: float) -> str:
    """Starts the run, kills it and its children after `after_s` seconds, and returns its progress."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command(settings, folder, sounds), cwd=ROOT, start_new_session=True, **quiet)
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return progress(folder, sounds)


def progress(folder: Path, sounds: Path) -> str:
    """Describes the progress of a killed run from its files."""
    if any((folder / "run" / name).exists() for name in ("summary.json", "report.html")):
        return "finished"
    cells = sorted(folder.glob("run/*/*/fold_*/predictions.npz"))
    if cells:
        return f"{len(cells)} cells of the study"
    steps = [
        f"{path.parts[-3]} step {path.name}" for path in folder.glob("run/fold_*/checkpoints/*") if path.name.isdigit()
    ]
    if steps:
        return max(steps, key=lambda text: (text.split()[0], int(text.split()[-1])))
    for name, pattern in (("prepared", "prepared/audiotag_spectrograms/*/1.0.0"), ("clips", "prepared/*/*/1.0.0")):
        if list(folder.glob(pattern)):
            return name
    return "sounds" if list(sounds.glob("demo_*")) else "nothing"


def compare(reference: Path, killed: Path) -> list[str]:
    """Lists the differences between two finished runs."""
    if (reference / "run" / "report.html").exists():
        found = [
            {path.name: path.read_bytes() for pattern in REPORTS for path in sorted((folder / "run").glob(pattern))}
            for folder in (reference, killed)
        ]
        names = sorted(found[0].keys() | found[1].keys())
        return [f"{name} differs" for name in names if found[0].get(name) != found[1].get(name)]
    differences = []
    for name in ("summary.json", "submission.csv"):
        if (reference / "run" / name).read_bytes() != (killed / "run" / name).read_bytes():
            differences.append(f"{name} differs")
    if metrics(reference / "run") != metrics(killed / "run"):
        differences.append("metrics.jsonl differs")
    for fold in (0, 1):
        (step, state), (other_step, other_state) = (last_checkpoint(each / "run", fold) for each in (reference, killed))
        leaves = jax.tree.map(np.array_equal, state, other_state)
        if step != other_step or not all(jax.tree.leaves(leaves)):
            differences.append(f"fold {fold} differs, step {step} and {other_step}")
    return differences


def metrics(workdir: Path) -> list[dict]:
    """Reads the lines of the metrics, without the speed."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "clips_per_second"} for line in lines]


def last_checkpoint(workdir: Path, fold: int) -> tuple[int, dict]:
    """Reads step and state of a fold's latest checkpoint: parameters, batch statistics and the optimizer's moments."""
    folder = workdir.absolute() / f"fold_{fold}" / "checkpoints"
    step = max(int(path.name) for path in folder.iterdir() if path.name.isdigit())
    with ocp.StandardCheckpointer() as checkpointer:
        return step, jax.tree.map(np.asarray, checkpointer.restore(folder / str(step) / "state"))


if __name__ == "__main__":
    main()
