"""Tags a recording of a day with a trained run and cuts its clip, and measures time and peak memory of both.

    python benchmarks/long_recording.py --workdir=runs/log_db-demo [--hours=24] [--kinds=wav,flac,ogg,wav4g] [--hop_s=0]

Kinds: `wav`, `flac` and `ogg` have one channel at 16 kHz; `ogg` is a chain of hours; `wav4g` has four channels, so that
24 h exceed 4 GiB, and the length in its header is that modulo 2**32, as writers leave it. The recording is noise; in
the last hour but one a second is louder. Each measurement runs in a process of its own. It checks that the windows
reach the end, and that the clip has the loud second.
"""

import argparse
import json
import resource
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).parents[1]))

RATE_HZ = 16000
HOUR_S = 3600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--hours", type=int, default=24)
    parser.add_argument("--kinds", default="wav,flac,ogg,wav4g")
    parser.add_argument("--hop_s", type=float, default=0.0, help="0: windows side by side")
    parser.add_argument("--measure", choices=("write", "predict", "clip"), help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure == "write":  # in its own process: a child's peak memory is at least its parent's
        write(options.file, options.kinds, options.hours)
        return
    if options.measure:
        print(json.dumps(measure(options)))
        return
    for kind in options.kinds.split(","):
        with tempfile.TemporaryDirectory(prefix="long_recording.") as folder:
            path = Path(folder, f"long.{kind.removesuffix('4g')}")
            arguments = [f"--file={path}", f"--workdir={options.workdir}", f"--hop_s={options.hop_s}"]
            command = [sys.executable, __file__, *arguments, f"--hours={options.hours}", f"--kinds={kind}"]
            subprocess.run([*command, "--measure=write"], check=True)
            print(f"{kind}: {options.hours} h, {path.stat().st_size / 2**30:.2f} GiB", flush=True)
            for what in ("clip", "predict"):
                done = subprocess.run([*command, f"--measure={what}"], stdout=subprocess.PIPE, text=True, check=True)
                found = json.loads(done.stdout.splitlines()[-1])
                print(f"  {what}: {', '.join(f'{name} {value}' for name, value in found.items())}", flush=True)


def write(path: Path, kind: str, hours: int) -> None:
    """Writes the recording hour by hour."""
    rng = np.random.default_rng(0)
    hour = (0.02 * rng.standard_normal(HOUR_S * RATE_HZ)).astype(np.float32)
    loud = hour.copy()
    loud[1000 * RATE_HZ : 1001 * RATE_HZ] *= 10
    order = [loud if n == max(0, hours - 2) else hour for n in range(hours)]
    if kind == "ogg":
        write_chain(path, order, {id(each): path.with_name(f"{n}.ogg") for n, each in enumerate((hour, loud))})
    elif kind == "wav4g":
        write_wrapped(path, order, 4)
    else:
        with soundfile.SoundFile(path, "w", RATE_HZ, 1, "PCM_16") as file:
            for each in order:
                file.write(each)


def write_chain(path: Path, order: list[np.ndarray], links: dict[int, Path]) -> None:
    for samples in order:
        link = links[id(samples)]
        if not link.exists():
            with soundfile.SoundFile(link, "w", RATE_HZ, 1) as file:
                for start in range(0, len(samples), RATE_HZ):  # libvorbis overflows its stack with long blocks
                    file.write(samples[start : start + RATE_HZ])
        with path.open("ab") as file:
            file.write(link.read_bytes())


def write_wrapped(path: Path, order: list[np.ndarray], channels: int) -> None:
    """Writes a WAV file whose lengths are modulo 2**32."""
    size = sum(map(len, order)) * 2 * channels
    with path.open("wb") as file:
        file.write(b"RIFF" + struct.pack("<I", (size + 36) % 2**32) + b"WAVEfmt ")
        file.write(struct.pack("<IHHIIHH", 16, 1, channels, RATE_HZ, 2 * channels * RATE_HZ, 2 * channels, 16))
        file.write(b"data" + struct.pack("<I", size % 2**32))
        for samples in order:
            for start in range(0, len(samples), 60 * RATE_HZ):
                minute = np.round(samples[start : start + 60 * RATE_HZ] * 32767).astype("<i2")
                file.write(np.repeat(minute, channels).tobytes())


def measure(options: argparse.Namespace) -> dict:
    start = time.monotonic()
    if options.measure == "clip":
        from audiotag_jax.audio.clip import load_clip

        clip, note = load_clip(options.file, RATE_HZ, 2 * RATE_HZ)
        found = {"level": round(float(np.sqrt(np.square(clip).mean())), 3), "note": repr(note)}
        assert found["level"] > 0.1 and not note, found
    else:
        found = predicted(options)
    return {**found, "seconds": round(time.monotonic() - start), "peak_gib": round(peak_gib(), 2)}


def predicted(options: argparse.Namespace) -> dict:
    from audiotag_jax.inference import predict

    out = options.file.parent / "out"
    predict.run(options.workdir, [str(options.file)], out=out, hop_s=options.hop_s)
    with (out / "windows.csv").open() as file:
        num_windows = sum(1 for _ in file) - 1
    with (out / "predictions.csv").open() as file:
        row = file.readlines()[1]
    assert f",{options.hours * HOUR_S}.000," in row, row
    with (out / "windows.csv").open("rb") as file:
        file.seek(-300, 2)
        last = file.read().decode().splitlines()[-1]
    assert f",{options.hours * HOUR_S}.000," in last, last
    return {"windows": num_windows}


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
