"""Prepares, trains and evaluates FSDKaggle2018 at its real size: real tables, synthesized audio.

    python benchmarks/fsdkaggle2018_standin.py --tables=data/fsdkaggle2018 --out=/tmp/standin

Writes a WAV file of a simple sound for each of the 9,473 + 9,400 names, three of them corrupt as in the Kaggle release,
then runs main.py and prints clips a second, peak memory and the checks. The scores have no meaning for real recordings.
Needs about 5 GB of disk.
"""

import argparse
import csv
import json
import re
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import soundfile

ROOT = Path(__file__).parents[1]
RATE_HZ = 44100
DURATION_S = (0.3, 6.0)
CORRUPT = ("0b0427e2.wav", "6ea0099f.wav", "b39975f5.wav")
TABLES = ("train.csv", "train_post_competition.csv", "test_post_competition.csv", "sample_submission.csv")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=Path, required=True, help="folder of the real tables")
    parser.add_argument("--out", type=Path, required=True, help="folder for the audio, datasets and run")
    parser.add_argument("--limit", type=int, help="number of clips of each table, for a quick run")
    options = parser.parse_args()
    options.out = options.out.resolve()  # main.py runs in another folder
    start = time.monotonic()
    data = synthesize(options.tables, options.out / f"data_{options.limit or 'all'}", options.limit)
    print(f"synthesized audio in {time.monotonic() - start:.0f} s", flush=True)
    prepared = options.out / f"prepared_{options.limit or 'all'}"
    for step in ("clips and spectrograms", "nothing (all exists)"):
        seconds, peak_gib, output = run_main(data, prepared, options.out, "--mode=prepare")
        total = sum(map(int, re.findall(r"(\d+) (?:train|test) clips", output))) // 2
        speed = f", {total / seconds:.0f} clips a second" if total else ""
        print(f"prepared {step}: {total} clips in {seconds:.0f} s{speed}, peak {peak_gib:.2f} GiB", flush=True)
    budget = ["--config.model.name=small", "--config.train.num_epochs=1", "--config.train.folds=(0,)"]
    seconds, peak_gib, output = run_main(data, prepared, options.out, *budget)
    print(output[output.index("train clip") if "train clip" in output else output.index("test clip") :])
    print(f"one epoch of one fold, evaluation and submission: {seconds:.0f} s, peak {peak_gib:.2f} GiB")
    check(data, options.out / "run")
    print("counts, classes, corrupt clips and submission: all correct")


def synthesize(tables: Path, data: Path, limit: int | None) -> Path:
    """Copies the tables and writes the missing sounds; returns the folder."""
    data.mkdir(parents=True, exist_ok=True)
    for name in TABLES:
        header, *rows = (tables / name).read_text().splitlines(keepends=True)
        kept = [row for row in rows if row.startswith(CORRUPT)] if limit else []
        (data / name).write_text(header + "".join(rows if limit is None else sorted({*rows[:limit], *kept})))
    labels = {row["fname"]: row["label"] for row in read(data / "train.csv")}
    kinds = {label: n for n, label in enumerate(sorted(set(labels.values())))}
    bank = np.random.default_rng(0).standard_normal(int(RATE_HZ * (DURATION_S[1] + 1)))
    for folder, names in (("audio_train", list(labels)), ("audio_test", test_names(data))):
        (data / folder).mkdir(exist_ok=True)
        for name in names:
            if not (data / folder / name).exists():
                kind = kinds.get(labels.get(name), int(name[:4], 16) % len(kinds))
                soundfile.write(data / folder / name, sound(name, kind, bank), RATE_HZ, "PCM_16")
    (data / "audio_test" / CORRUPT[0]).write_bytes(b"")
    (data / "audio_test" / CORRUPT[1]).write_bytes(b"RIFF\0\0\0\0WAVE")
    soundfile.write(data / "audio_test" / CORRUPT[2], np.zeros(0), RATE_HZ, "PCM_16")
    return data


def sound(name: str, kind: int, noise: np.ndarray) -> np.ndarray:
    """Returns a tone in noise: pitch and tremolo depend on the class; length, level and noise on the file's name."""
    rng = np.random.default_rng(int(name[:8], 16))
    num_samples = int(RATE_HZ * np.exp(rng.uniform(*np.log(DURATION_S))))
    cycles = np.arange(num_samples) * (150 * 2 ** (kind / 8) * rng.uniform(0.98, 1.02) / RATE_HZ)
    tremolo = 1 + 0.8 * np.sin(np.arange(num_samples) * (2 * np.pi * (1 + kind % 7) / RATE_HZ))
    offset = rng.integers(RATE_HZ)
    mixed = tremolo * np.sin(2 * np.pi * cycles) + rng.uniform(0.05, 0.5) * noise[offset : offset + num_samples]
    return mixed / np.abs(mixed).max() * 10 ** rng.uniform(-2, 0)


def run_main(data: Path, prepared: Path, out: Path, *flags: str) -> tuple[float, float, str]:
    """Runs main.py; returns wall seconds, peak resident GiB of the largest child so far, and the output."""
    shutil.rmtree(out / "run", ignore_errors=True)
    command = [sys.executable, "main.py", "--config=configs/log_db.py:fsdkaggle2018", f"--workdir={out / 'run'}"]
    command += [f"--config.dataset.path={data}", f"--config.dataset.prepared_dir={prepared}", *flags]
    start = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    peak_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return time.monotonic() - start, peak_kib / 2**20, done.stdout


def check(data: Path, run: Path) -> None:
    """Raises AssertionError if the run's counts, classes or submission differ from the tables."""
    classes = json.loads((run / "config.json").read_text())["classes"]
    train, order = read(data / "train.csv"), test_names(data)
    assert classes == sorted({row["label"] for row in train})
    summary = json.loads((run / "summary.json").read_text())
    scored = sum(row["usage"] in ("Public", "Private") for row in read(data / "test_post_competition.csv"))
    assert summary["test"]["all"]["num_clips"] == scored
    assert summary["problems"]["kept as silence"] == len(CORRUPT)
    submission = read(run / "submission.csv")
    assert [row["fname"] for row in submission] == order
    assert all(len(set(row["label"].split()) & set(classes)) == 3 for row in submission)
    print(f"{len(train)} training and {len(order)} test clips, {scored} of them scored; {len(classes)} classes")


def test_names(data: Path) -> list[str]:
    """Returns the test clips in the order of the sample submission."""
    return [row["fname"] for row in read(data / "sample_submission.csv")]


def read(table: Path) -> list[dict[str, str]]:
    """Reads the rows of a CSV file."""
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    main()
