"""Measures clips a second of preparing spectrogram datasets from a clips dataset, including start-up and writing.

    python benchmarks/prepare_spectrograms.py --path=data/ESC-50 --variants hires_q1 hires_q8 log_db

Each variant is prepared by `main.py --mode=prepare` in its own process, in a temporary folder, from clips of 2 s that
were prepared before. Run it on an idle machine.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", required=True, help="folder of ESC-10 or ESC-50")
    parser.add_argument("--variants", nargs="+", default=["hires_q1", "hires_q2", "hires_q4", "hires_q8", "log_db"])
    options = parser.parse_args()
    path = Path(options.path).resolve()
    with tempfile.TemporaryDirectory() as folder:
        prepare(path, Path(folder), "log_db")  # the clips
        print("| variant | clips | s | clips a second |", "| --- | --- | --- | --- |", sep="\n")
        for variant in options.variants:
            shutil.rmtree(Path(folder) / "audiotag_spectrograms")
            shutil.rmtree(Path(folder) / "compiled", ignore_errors=True)
            start = time.perf_counter()
            prepare(path, Path(folder), variant)
            seconds, clips = time.perf_counter() - start, count(Path(folder) / "audiotag_spectrograms")
            print(f"| `{variant}` | {clips} | {seconds:.1f} | {clips / seconds:.1f} |", flush=True)


def prepare(path: Path, folder: Path, variant: str) -> None:
    command = [sys.executable, "main.py", f"--config=configs/{variant}.py:esc10", "--mode=prepare"]
    fields = {"dataset.path": path, "dataset.prepared_dir": folder, "dataset.duration_s": 2.0}
    command += [f"--config.{name}={value}" for name, value in fields.items()]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def count(folder: Path) -> int:
    [info] = folder.glob("*/*/dataset_info.json")
    splits = json.loads(info.read_text())["splits"]
    return sum(int(number) for split in splits for number in split["shardLengths"])


if __name__ == "__main__":
    main()
