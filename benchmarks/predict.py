"""Measures how much faster than real time a trained run tags a long recording, and its peak memory.

    python benchmarks/predict.py --workdir=runs/log_db-demo [--minutes=10] [--repeats=3] [--audio=RECORDING]

The recording is noise and tones, or RECORDING repeated. A recording of one second is tagged first, in the same process,
so that start-up and compilation are timed separately.
"""

import argparse
import contextlib
import io
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).parents[1]))

from audiotag_jax.audio.decode import load_audio  # noqa: E402
from audiotag_jax.inference import predict  # noqa: E402

RATE_HZ = 44100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--audio", default="", help="a recording to repeat instead of noise and tones")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="predict.") as folder:
        folder = Path(folder)
        short, long = folder / "short.wav", folder / "long.wav"
        soundfile.write(short, probe_waveforms(RATE_HZ), RATE_HZ)
        write_long(long, round(options.minutes * 60 * RATE_HZ), options.audio)
        start_up_s = seconds(options.workdir, short, folder)
        print(f"{options.workdir}, {jax.default_backend()}, JAX {jax.__version__}")
        print(f"first recording, loading and compiling: {start_up_s:.1f} s, peak memory {peak_gib():.2f} GiB")
        times_s = [seconds(options.workdir, long, folder) for _ in range(options.repeats)]
        (recording,) = json.loads((folder / "out" / "predictions.json").read_text())["recordings"]
        duration_s, best_s = recording["duration_s"], min(times_s)
        print(f"{duration_s:.0f} s in {len(recording['windows'])} windows: {', '.join(f'{t:.1f}' for t in times_s)} s")
        print(f"{duration_s / best_s:.0f} times faster than real time at best; peak memory {peak_gib():.2f} GiB")


def seconds(workdir: Path, audio: Path, folder: Path) -> float:
    """Returns the seconds to tag one file, including loading the networks, reading and writing."""
    start = time.monotonic()
    with contextlib.redirect_stdout(io.StringIO()):
        predict.run(workdir, [str(audio)], out=folder / "out")
    return time.monotonic() - start


def probe_waveforms(num_samples: int, seed: int = 0) -> np.ndarray:
    """Returns amplitude-modulated noise plus a frequency-modulated tone."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(num_samples) / RATE_HZ
    tone = np.sin(2 * np.pi * (500 * time_s + 200 * np.sin(time_s)))
    return (0.1 * np.sin(time_s) * rng.standard_normal(num_samples) + 0.1 * tone).astype(np.float32)


def write_long(path: Path, num_samples: int, audio: str) -> None:
    """Writes the recording second by second, so that writing does not set the peak memory."""
    repeated = load_audio(audio, RATE_HZ)[0] if audio else None
    with soundfile.SoundFile(path, "w", RATE_HZ, 1) as file:
        for second in range(-(-num_samples // RATE_HZ)):
            left = min(RATE_HZ, num_samples - second * RATE_HZ)
            if repeated is None:
                file.write(probe_waveforms(left, second))
            else:
                file.write(np.take(repeated, np.arange(left) + second * RATE_HZ, mode="wrap"))


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
