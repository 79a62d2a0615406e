"""Accuracy of a study's finished runs on disturbed sounds: white noise, -20 dB of gain, MP3 at 32 kbit/s.

    python benchmarks/robustness.py --study=runs/study-probes/drums --variants=log_db,mel_db,hires_q2,hires_q8

The networks were trained on clean sounds; each clip is tagged by the network whose fold held it out. The clips are
drawn evenly over the folds by a hash of their ids, the same for every variant. Run it where the study ran: the clips
are read from the prepared dataset. MP3 needs PyAV (`pip install -r requirements-av.txt`). The tables show accuracies,
and how much more a variant loses than the first one, paired by clip, with 95 % intervals over recordings, uncorrected.
"""

import argparse
import hashlib
import io
import sys
from pathlib import Path

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from audiotag_jax.datasets.prepare import prepare_run_clips  # noqa: E402
from audiotag_jax.datasets.reader import read_split  # noqa: E402
from audiotag_jax.evaluation.intervals import bootstrap_means, recording_numbers  # noqa: E402
from audiotag_jax.evaluation.predictions import VALIDATION, load_predictions  # noqa: E402
from audiotag_jax.inference.tagger import load_tagger  # noqa: E402
from audiotag_jax.runtime.files import write_npz  # noqa: E402
from audiotag_jax.settings.record import read_record  # noqa: E402

CONDITIONS = ("clean", "noise 20 dB", "noise 10 dB", "noise 0 dB", "gain -20 dB", "MP3 32 kbit/s")
BATCH = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", required=True, type=Path, help="folder of a study on one data set")
    parser.add_argument("--variants", required=True, help="names separated by commas, the baseline first")
    parser.add_argument("--clips", type=int, default=600, help="number of clips, drawn over all folds")
    parser.add_argument("--out", type=Path, help="folder for the predictions: a file for each variant")
    options = parser.parse_args()
    variants = options.variants.split(",")
    correct, recordings = {}, {}
    for variant in variants:
        folds = fold_dirs(options.study, variant)
        correct[variant], ids, recordings = evaluate(folds, options.clips, options.out, variant)
        print(variant, *(f"{name} {correct[variant][name].mean():.3f}" for name in CONDITIONS), flush=True)
    print_table(correct, recording_numbers(ids, recordings))


def fold_dirs(study: Path, variant: str) -> dict[int, Path]:
    """The run's folder by fold: a search gives folds different penalties, and so different folders."""
    found = {}
    for path in sorted(study.glob(f"runs/{variant}-seed_0-rate_*/fold_*/{VALIDATION}")):
        found[int(path.parent.name.removeprefix("fold_"))] = path.parents[1]
    if not found:
        sys.exit(f"{study} has no finished run of {variant}")
    return dict(sorted(found.items()))


def evaluate(folds: dict[int, Path], count: int, out: Path | None, variant: str):
    """Right or wrong [n] by condition, the ids [n] and the recordings by id."""
    settings = read_record(next(iter(folds.values()))).settings
    examples = read_split(prepare_run_clips(settings), "train")
    place = {clip: k for k, clip in enumerate(examples.ids.tolist())}
    parts, recordings = [], {}
    for fold, workdir in folds.items():
        saved = load_predictions(workdir / f"fold_{fold}" / VALIDATION)
        order = np.argsort([hashlib.sha256(clip.encode()).hexdigest() for clip in saved["ids"].tolist()])
        chosen = order[: -(-count // len(folds))]
        ids, labels = saved["ids"][chosen], saved["labels"][chosen]
        recordings |= dict(zip(ids.tolist(), saved["recordings"][chosen].tolist(), strict=True))
        waveforms = examples.inputs[np.array([place[clip] for clip in ids.tolist()])]
        tagger = load_tagger(workdir, (fold,))
        answers = {}
        for name in CONDITIONS:
            sounds = [disturb(x, name, clip, tagger.sample_rate_hz) for x, clip in zip(waveforms, ids, strict=True)]
            answers[name] = tag(tagger, np.array(sounds, np.float32))
        parts.append((ids, labels, answers))
    ids, labels = (np.concatenate([part[k] for part in parts]) for k in (0, 1))
    answers = {name: np.concatenate([part[2][name] for part in parts]) for name in CONDITIONS}
    if out:
        out.mkdir(parents=True, exist_ok=True)
        logs = {name: np.log(np.maximum(p, 1e-30)).astype(np.float16) for name, p in answers.items()}
        write_npz(out / f"{variant}.npz", ids=ids, labels=labels, **logs)
    return {name: p.argmax(axis=1) == labels for name, p in answers.items()}, ids.tolist(), recordings


def tag(tagger, waveforms: np.ndarray) -> np.ndarray:
    """[n, K] probabilities in batches of one size."""
    padded = np.pad(waveforms, ((0, -len(waveforms) % BATCH), (0, 0)))
    batches = [jax.device_get(tagger.probabilities(part)) for part in np.split(padded, len(padded) // BATCH)]
    return np.concatenate(batches)[: len(waveforms)]


def disturb(x: np.ndarray, condition: str, clip: str, rate_hz: int) -> np.ndarray:
    """A disturbed copy [N] of x; noise depends on the clip's id, and its level on the power where x is not silent."""
    kind, _, rest = condition.partition(" ")
    if kind == "noise":
        rng = np.random.default_rng(int(hashlib.sha256(clip.encode()).hexdigest()[:16], 16))
        power = np.mean(np.square(x[x != 0], dtype=np.float64)) if x.any() else 0.0
        return x + np.sqrt(power / 10 ** (float(rest.split()[0]) / 10)) * rng.standard_normal(len(x))
    if kind == "gain":
        return x * 10 ** (float(rest.split()[0]) / 20)
    return mp3(x, rate_hz, 32_000) if kind == "MP3" else x


def mp3(x: np.ndarray, rate_hz: int, bits_per_second: int) -> np.ndarray:
    """x [N] encoded and decoded, shifted back by the delay of both."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="mp3") as container:
        stream = container.add_stream("libmp3lame", rate=rate_hz, layout="mono")
        stream.bit_rate = bits_per_second
        scale = max(1.0, float(np.abs(x).max()))
        frame = av.AudioFrame.from_ndarray((x / scale).astype(np.float32)[None], format="fltp", layout="mono")
        frame.sample_rate = rate_hz
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    file.seek(0)
    with av.open(file) as container:
        decoded = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)]).astype(np.float32) * scale
    size = 2 * (len(x) + len(decoded))
    correlation = np.fft.irfft(np.fft.rfft(decoded, size) * np.conj(np.fft.rfft(x, size)), size)
    lag = int(np.argmax(correlation[: len(decoded)]))
    shifted = decoded[lag : lag + len(x)]
    return np.pad(shifted, (0, len(x) - len(shifted)))


def print_table(correct: dict[str, dict[str, np.ndarray]], groups: np.ndarray) -> None:
    baseline = next(iter(correct))
    print("\n| variant |", " | ".join(CONDITIONS), "|\n|", " | ".join(["---"] * (len(CONDITIONS) + 1)), "|")
    for variant, found in correct.items():
        print(f"| `{variant}` |", " | ".join(f"{found[name].mean():.3f}" for name in CONDITIONS), "|")
    print(f"\nAccuracy lost by the disturbance, minus what `{baseline}` loses:\n")
    print("| variant |", " | ".join(CONDITIONS[1:]), "|\n|", " | ".join(["---"] * len(CONDITIONS)), "|")
    for variant in list(correct)[1:]:
        cells = []
        for name in CONDITIONS[1:]:
            lost = [correct[v]["clean"].astype(float) - correct[v][name] for v in (variant, baseline)]
            interval = bootstrap_means((lost[0] - lost[1])[:, None], -2.0, groups)
            cells.append(f"{np.mean(lost[0] - lost[1]):+.3f} ({interval.low[0]:+.3f} to {interval.high[0]:+.3f})")
        print(f"| `{variant}` |", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
