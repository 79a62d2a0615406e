"""Measures linear reassignment and the other spectrograms: speed against NumPy, PyTorch and librosa, and accuracy.

    python benchmarks/reassignment.py --path=data/ESC-50 --clips=10

Prints three Markdown tables, from real recordings: time per clip of the high-resolution spectrograms, errors of their
sampled form against the exact one, and time of the other spectrograms. All times are wall-clock, medians after a
warm-up (the NumPy loop: one call), from samples in NumPy's memory to results on the device; PyTorch is optional. Run
it on an idle machine.
"""

import argparse
import functools
import os
import platform
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import librosa
import numpy as np
from threadpoolctl import threadpool_limits  # comes with librosa

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from audiotag_jax.audio.decode import load_audio  # noqa: E402
from audiotag_jax.datasets.esc import open_esc  # noqa: E402
from audiotag_jax.runtime.errors import UserError  # noqa: E402
from audiotag_jax.spectral import features, stft  # noqa: E402
from audiotag_jax.spectral.reassignment import high_resolution_spectrogram, high_resolution_spectrograms  # noqa: E402

# PyTorch's threads otherwise busy-wait, which takes 30 times as long if another process needs a core.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
from benchmarks.reference_spectrograms import (  # noqa: E402
    HOP_SAMPLES,
    RATE_HZ,
    librosa_loop,
    librosa_mel_loop,
    numpy_loop,
    torch,
    torch_rows,
)

QS = (1, 2, 4, 8)
TIMED_Q = 2  # of the NumPy loop and PyTorch, whose work is the same for every q
GRID = {"tdeci": HOP_SAMPLES, "over": 10, "noct": 26.2, "minf": 1.4e-3, "maxf": 0.5}  # of a clip of 2 s
SETTINGS = features.SpectralSettings(channels=("hires_q2",), sample_rate_hz=RATE_HZ)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", required=True, help="folder of ESC-10 or ESC-50")
    parser.add_argument("--clips", type=int, default=10, help="number of clips for the errors of the sampled form")
    parser.add_argument("--strides", type=float, nargs="+", default=[SETTINGS.stride], help="of the sampled form")
    parser.add_argument("--repeats", type=int, default=3, help="number of timings, whose median is reported")
    parser.add_argument("--skip-slow", action="store_true", help="leave out the NumPy loop and PyTorch")
    options = parser.parse_args()
    if options.clips < 1 or options.repeats < 1 or min(options.strides) <= 1.0:
        parser.error("--clips and --repeats must be 1 or more, --strides more than 1")
    try:
        recordings = load_spread(options.path, max(64, options.clips))
    except UserError as error:
        sys.exit(str(error))
    starts = np.stack([cut(recording, 2 * RATE_HZ) for recording in recordings])
    loud = starts[starts.any(axis=1)]
    print(machine(), flush=True)
    print_speed(loud[:8], options)
    print_fidelity(recordings[: options.clips], options.strides)
    print_standard(starts[:64], options.repeats)


def machine() -> str:
    device = jax.devices()[0]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = f"Python {platform.python_version()}, JAX {jax.__version__}, NumPy {np.__version__}"
    versions += f", librosa {librosa.__version__}" + (f", PyTorch {torch.__version__}" if torch else "")
    load = f", load {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    return f"Device: {device.platform} ({device.device_kind}). {versions}. {cores} CPU cores{load}."


def load_spread(path: str, count: int) -> list[np.ndarray]:
    """Loads samples [N] of up to `count` recordings: categories in turn, from different positions of their lists."""
    left = {}
    for clip in open_esc("esc10", path).clips:
        left.setdefault(clip.label, []).append(clip)
    chosen = []
    while len(chosen) < count and any(left.values()):
        for place, label in enumerate(sorted(left)):
            if left[label] and len(chosen) < count:
                chosen.append(left[label].pop(7 * (len(chosen) + place) % len(left[label])))
    return [load_audio(clip.path, RATE_HZ)[0] for clip in chosen]


def cut(samples: np.ndarray, length: int) -> np.ndarray:
    """Returns the first `length` samples, padded with zeros."""
    return np.pad(samples[:length], (0, max(0, length - len(samples))))


def median_seconds(function, repeats: int) -> float:
    """Returns the median seconds of `repeats` calls after one warm-up call."""
    _wait(function())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        _wait(function())
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def best_seconds(function, repeats: int) -> float:
    """Returns the smaller median with all BLAS threads or with one, which is much faster on shared cores."""
    with_all = median_seconds(function, repeats)
    with threadpool_limits(1):
        return min(with_all, median_seconds(function, repeats))


def _wait(result):
    if torch and isinstance(result, torch.Tensor) and result.is_cuda:
        torch.cuda.synchronize()
    jax.block_until_ready(result)


def print_speed(clips: np.ndarray, options) -> None:
    """Prints times of clips [B, N]: the first one alone, and all in a batch."""
    references = {} if options.skip_slow else time_references(clips[0], options.repeats)
    print(f"\nHigh resolution, milliseconds a clip of 2 s at {RATE_HZ} Hz, 224 x 224 cells.")
    print(f"The NumPy loop and PyTorch were timed for q = {TIMED_Q} only: their work is the same for every q.\n")
    heads = ["", "q", "ms a clip", *(f"times faster than {name}" for name in references)]
    print(row(heads), row(["---"] * len(heads)), sep="\n")
    for name, seconds in references.items():
        print(row([name, TIMED_Q, f"{seconds * 1e3:.1f}", *ratios(references, seconds)]), flush=True)
    for form, stride in (("exact", 1), *((f"sampled, stride {stride:g}", stride) for stride in options.strides)):
        for num_clips in (1, len(clips)):
            for q in QS:
                of_one = functools.partial(high_resolution_spectrogram, clips[0], q, **GRID, stride=stride)
                of_all = functools.partial(high_resolution_spectrograms, clips, q, **GRID, stride=stride)
                seconds = median_seconds(of_one if num_clips == 1 else of_all, options.repeats) / num_clips
                name = f"ours, {form}, " + ("one clip" if num_clips == 1 else f"batch of {num_clips}")
                print(row([name, q, f"{seconds * 1e3:.1f}", *ratios(references, seconds)]), flush=True)
    for stride in options.strides:
        for q in QS:
            form = functools.partial(high_resolution_spectrograms, q=q, **GRID, stride=stride)
            seconds = median_seconds(functools.partial(in_two_threads, clips, form), options.repeats) / len(clips)
            name = f"ours, sampled, stride {stride:g}, two calls at once"
            print(row([name, q, f"{seconds * 1e3:.1f}", *ratios(references, seconds)]), flush=True)


def in_two_threads(clips, form):
    """Computes half of the clips per thread, as the preparation of a dataset does."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda half: jax.block_until_ready(form(half)), np.array_split(clips, 2)))


def time_references(x: np.ndarray, repeats: int) -> dict[str, float]:
    """Returns seconds by name; prints errors of the exact form against the loop, and why a reference is missing."""
    start = time.perf_counter()
    published = numpy_loop(x, TIMED_Q, **GRID)
    references = {"NumPy loop": time.perf_counter() - start}
    exact = np.asarray(high_resolution_spectrogram(x, TIMED_Q, **GRID))
    print(
        f"\nAgainst the NumPy loop in double precision, q = {TIMED_Q}, the first clip: {differences(exact, published)}"
    )
    if torch is None:
        print("PyTorch is not installed: no times of it.")
        return references
    for device, rows_at_once in (("cpu", 8), ("cuda", 256)):
        if device == "cuda" and not torch.cuda.is_available():
            continue
        function = functools.partial(torch_rows, x, TIMED_Q, **GRID, device=device, rows_at_once=rows_at_once)
        references[f"PyTorch {device}"] = median_seconds(function, repeats if device == "cuda" else min(repeats, 3))
        print(
            f"PyTorch {device} against the NumPy loop: {differences(function().cpu().numpy(), published)}", flush=True
        )
    return references


def ratios(references: dict[str, float], seconds: float) -> list[str]:
    return [f"{reference / seconds:.1f}" for reference in references.values()]


def row(cells) -> str:
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def differences(energies, reference) -> str:
    error, correlation = compare(energies, reference)
    return f"relative error {error:.1e}, correlation of the dB images {correlation:.6f}."


def compare(energies, reference) -> tuple[float, float]:
    """Returns the error of `energies` [T, F] over the norm of `reference`, and the correlation of their dB images."""
    error = np.linalg.norm(energies - reference) / np.linalg.norm(reference)
    images = [np.ravel(features.decibels(np.asarray(each, np.float32), SETTINGS)) for each in (energies, reference)]
    return float(error), float(np.corrcoef(images)[0, 1])


def print_fidelity(recordings: list[np.ndarray], strides: list[float]) -> None:
    """Prints errors of the sampled form against the exact one, both in single precision."""
    print(f"\nSampled form against the exact one, {len(recordings)} recordings.")
    print("Errors are norms of the difference of the energies over the norm of the exact ones; the correlations are")
    print("those of the dB images, each reaching 80 dB below its own maximum. Clips of zeros alone are left out.\n")
    heads = ["clip", "q", "stride", "clips", "silent", "median error", "worst error"]
    heads += ["median correlation", "lowest correlation"]
    print(row(heads), row(["---"] * len(heads)), sep="\n")
    for duration_s in (2, 5):
        clips = [cut(recording, duration_s * RATE_HZ) for recording in recordings]
        loud = [clip for clip in clips if clip.any()]
        if not loud:
            print(row([f"{duration_s} s", "", "", 0, len(clips), "", "", "", ""]))
            continue
        grid = GRID | {"tdeci": stft.hop_samples(duration_s * RATE_HZ, SETTINGS.num_frames)}
        for q in QS:
            exact = [np.asarray(high_resolution_spectrogram(clip, q, **grid)) for clip in loud]
            for stride in strides:
                sampled = (np.asarray(high_resolution_spectrogram(clip, q, **grid, stride=stride)) for clip in loud)
                errors, correlations = np.array([compare(*pair) for pair in zip(sampled, exact, strict=True)]).T
                cells = [f"{np.median(errors):.4f}", f"{errors.max():.4f}"]
                cells += [f"{np.median(correlations):.4f}", f"{correlations.min():.4f}"]
                print(row([f"{duration_s} s", q, f"{stride:g}", len(loud), len(clips) - len(loud), *cells]), flush=True)


def print_standard(clips: np.ndarray, repeats: int) -> None:
    """Prints times of the other spectrograms of clips [B, N] against loops over librosa's functions, on CPU."""
    print(f"\nOther spectrograms, milliseconds a clip of 2 s in a batch of {len(clips)}, 224 x 224 cells.\n")
    heads = ["channel", "ours", "librosa.stft and our filterbank", "ratio", "librosa melspectrogram", "ratio"]
    print(row(heads), row(["---"] * len(heads)), sep="\n")
    for channel in ("linear_db", "log_db", "mel_db"):
        settings = features.SpectralSettings(channels=(channel,), sample_rate_hz=RATE_HZ)
        per_clip_ms = 1e3 / len(clips)
        ours = median_seconds(functools.partial(features.spectrograms, clips, settings), repeats) * per_clip_ms
        loop = best_seconds(functools.partial(librosa_loop, clips, channel), repeats) * per_clip_ms
        cells = [f"`{channel}`", f"{ours:.2f}", f"{loop:.2f}", f"{loop / ours:.1f}"]
        if channel == "mel_db":
            mel = best_seconds(functools.partial(librosa_mel_loop, clips), repeats) * per_clip_ms
            cells += [f"{mel:.2f}", f"{mel / ours:.1f}"]
        print(row(cells + [""] * (len(heads) - len(cells))), flush=True)


if __name__ == "__main__":
    main()
