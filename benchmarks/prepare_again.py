"""Prepares a folder of sounds, changes one thing, and prints what the same command then decodes, computes and copies.

    python benchmarks/prepare_again.py --clips=400
    python benchmarks/prepare_again.py --python=/path/of/another/environment/bin/python
    python benchmarks/prepare_again.py --kills=20

Sounds and table are synthetic; each preparation is a process of its own. `--python` adds an upgrade: the interpreter of
an environment with other libraries. With `--kills`, every preparation, half of them from nothing and half after a
changed label, gets SIGKILL at a random moment and is then run again; its records must be, bit for bit, those of one
that was left alone.
"""

import argparse
import csv
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

ROOT = Path(__file__).parents[1]
READY = "ready"  # a process prints it when it has loaded its modules
RATE_HZ, LABELS = 22050, ("dog", "rain", "siren", "wind")
MODIFIED = {"changed label": (0, "label", "wind"), "changed verified flag": (1, "verified", "0")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=400)
    parser.add_argument("--python", default="", help="interpreter of another environment")
    parser.add_argument("--kills", type=int, default=0, help="preparations to kill, in place of the table")
    parser.add_argument("--seed", type=int, default=0, help="of the times of the kills")
    parser.add_argument("--child", nargs=2, metavar=("FOLDER", "FOLD_SEED"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        prepare_and_count(Path(options.child[0]), int(options.child[1]))
        return
    with tempfile.TemporaryDirectory(prefix="prepare_again.") as folder:
        write_sounds(Path(folder) / "base" / "sounds", options.clips)
        if options.kills:
            sys.exit(kill_again_and_again(Path(folder), options.kills, random.Random(options.seed)))
        print_changes(Path(folder), options.python)


def print_changes(folder: Path, other_python: str) -> None:
    print("| change | decoded | images computed | seconds |\n| --- | --- | --- | --- |", flush=True)

    def row(what: str, change: Callable[[Path], None] = lambda _: None, **options) -> None:
        own = Path(shutil.copytree(folder / "base", folder / "own")) if what != "from nothing" else folder / "base"
        change(own)
        start = time.monotonic()
        counts = prepare(own, **options)
        seconds = time.monotonic() - start
        print(f"| {what} | {counts['decoded']} | {counts['computed']} | {seconds:.1f} |", flush=True)
        if own != folder / "base":
            shutil.rmtree(own)

    row("from nothing")
    row("none")
    if other_python:
        row(f"upgrade: {versions(sys.executable)} to {versions(other_python)}", python=other_python)
        row("upgrade and changed label", lambda own: modify(own, 0, "label", "wind"), python=other_python)
    row("another backend's name", environment={"PREPARE_AGAIN_BACKEND": "gpu"})
    for what, (number, column, value) in MODIFIED.items():
        row(what, lambda own, cell=(number, column, value): modify(own, *cell))
    row("changed fold seed", fold_seed=1)
    row("moved folder (copied, other dates)", touch)
    row("ten clips removed", lambda own: remove_rows(own, 10))
    row("one sound changed", lambda own: write_sound(own / "sounds" / "0000.wav", seed=10**6))


def kill_again_and_again(folder: Path, kills: int, rng: random.Random) -> int:
    """Returns the status of the program: 0 if all killed preparations ended with the same records."""
    changed = Path(shutil.copytree(folder / "base", folder / "changed"))
    modify(changed, 0, "label", "wind")
    lengths_s, expected = {}, {}
    for name in ("base", "changed"):
        lengths_s[name], expected[name] = prepare(folder / name)["seconds"], records(folder / name)
    shutil.copytree(folder / "base" / "prepared", folder / "before")
    same = 0
    for trial in range(kills):
        name = ("base", "changed")[trial % 2]
        shutil.rmtree(folder / name / "prepared")
        if name == "changed":  # what it was prepared from before is there, to copy from
            shutil.copytree(folder / "before", folder / name / "prepared")
        after_s = rng.uniform(0.0, 0.5) * lengths_s[name]
        state = kill(folder / name, after_s)
        counts = prepare(folder / name)
        found = {key: value for key, value in records(folder / name).items() if key in expected[name]}
        equal = found == expected[name]
        same += equal
        print(
            f"trial {trial}: {'preparing' if name == 'base' else 'copying'} killed after {after_s:.1f} s ({state}); "
            f"then {counts['decoded']} decoded, {counts['computed']} computed: {'same' if equal else 'DIFFERENT'}",
            flush=True,
        )
    print(f"{same} of {kills} killed preparations ended with the records of those that were left alone")
    return int(same < kills)


def command(folder: Path, fold_seed: int = 0, python: str = sys.executable) -> list[str]:
    return [python, str(Path(__file__)), "--child", str(folder), str(fold_seed)]


def prepare(folder: Path, fold_seed: int = 0, python: str = sys.executable, environment: dict | None = None) -> dict:
    """Prepares in a process of its own; returns how many clips it decoded and how many images it computed."""
    variables = os.environ | {"PYTHONPATH": str(ROOT)} | (environment or {})
    done = subprocess.run(command(folder, fold_seed, python), capture_output=True, text=True, env=variables)
    if done.returncode:
        sys.exit(f"preparing failed with status {done.returncode}:\n{done.stdout}{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def kill(folder: Path, after_s: float) -> str:
    """Starts preparing, kills it `after_s` seconds after its start-up, and returns what had been completed."""
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command(folder), start_new_session=True, env=variables, **pipes)
    process.stdout.readline()  # READY
    time.sleep(after_s)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    counts = [
        len(list(folder.glob(f"prepared/{name}/*/1.0.0"))) for name in ("audiotag_clips", "audiotag_spectrograms")
    ]
    partial = len(list(folder.glob("prepared/*/*/incomplete.*/*.array_record*")))
    return f"complete: {counts[0]} of clips, {counts[1]} of images; {partial} files of an incomplete one"


def records(folder: Path) -> dict[str, str]:
    """Returns a hash of each dataset's records, all fields decoded, and of each index, by path.

    Files are not compared: a record is a message whose fields may be in any order.
    """
    import tensorflow_datasets as tfds

    found = {}
    for path in sorted((folder / "prepared").rglob("dataset_info.json")):
        builder, text = tfds.builder_from_directory(path.parent), hashlib.sha256()
        for record in builder.as_data_source("train"):
            for name in sorted(record):
                text.update(name.encode() + np.asarray(record[name]).tobytes())
        found[path.parent.relative_to(folder).as_posix()] = text.hexdigest()
    for path in (folder / "prepared").rglob("index.parquet"):
        found[path.relative_to(folder).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def versions(python: str) -> str:
    code = "import sys, jax, numpy; print(f'Python {sys.version_info[0]}.{sys.version_info[1]}, JAX {jax.__version__}')"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def write_sounds(folder: Path, num_clips: int) -> None:
    folder.mkdir(parents=True)
    rows = []
    for n in range(num_clips):
        write_sound(folder / f"{n:04d}.wav", seed=n)
        rows.append({"path": f"{n:04d}.wav", "label": LABELS[n % 4], "verified": "1"})
    write_table(folder, rows)


def write_sound(path: Path, seed: int) -> None:
    soundfile.write(path, 0.1 * np.random.default_rng(seed).standard_normal(3 * RATE_HZ), 2 * RATE_HZ)


def write_table(folder: Path, rows: list[dict[str, str]]) -> None:
    with (folder / "clips.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def read_table(folder: Path) -> list[dict[str, str]]:
    with (folder / "clips.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def modify(own: Path, number: int, column: str, value: str) -> None:
    rows = read_table(own / "sounds")
    rows[number][column] = value
    write_table(own / "sounds", rows)


def remove_rows(own: Path, count: int) -> None:
    write_table(own / "sounds", read_table(own / "sounds")[count:])


def touch(own: Path) -> None:
    for path in (own / "sounds").iterdir():
        os.utime(path, ns=(0, 10**18))


def prepare_and_count(folder: Path, fold_seed: int) -> None:
    """Prepares the datasets of `log_db` below `folder`, and prints as JSON what was decoded and computed."""
    from audiotag_jax.datasets import images, waveforms
    from audiotag_jax.datasets.prepare import prepare
    from audiotag_jax.runtime import environment
    from audiotag_jax.settings.settings import parse_settings
    from audiotag_jax.settings.variants import get_config

    counts = {"decoded": 0, "computed": 0}
    decode_clip, compute_images = waveforms.decode_clip, images.compute_images

    def decode(clip, settings):
        counts["decoded"] += 1
        return decode_clip(clip, settings)

    def compute(waveforms, settings):
        counts["computed"] += len(waveforms)
        return compute_images(waveforms, settings)

    waveforms.decode_clip, images.compute_images = decode, compute
    if name := os.environ.get("PREPARE_AGAIN_BACKEND"):
        environment._device = lambda: name
    config = get_config("log_db", "folder")
    config.dataset.path, config.dataset.table = str(folder / "sounds"), "clips.csv"
    config.dataset.prepared_dir, config.dataset.fold_seed = str(folder / "prepared"), fold_seed
    settings = parse_settings(config)
    print(READY, flush=True)
    start = time.monotonic()
    prepare(settings)
    print(json.dumps(counts | {"seconds": time.monotonic() - start}))


if __name__ == "__main__":
    main()
