"""Accuracy of a study's finished runs on disturbed sounds: white noise, -20 dB of gain, MP3 at 32 kbit/s.

    python benchmarks/robustness.py --study=runs/study-probes/drums --variants=log_db,mel_db,hires_q2,hires_q8

The networks were trained on clean sounds; each clip is tagged by the network whose fold held it out. The clips are
drawn evenly over the folds by a hash of their ids, the same for every variant. Run it where the study ran: the clips
are read from the prepared dataset. Variants that were saved before are not computed again. MP3 needs PyAV
(`pip install -r requirements-av.txt`).
"""

import argparse
import hashlib
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from audiotag_jax.datasets.prepare import prepare_run_clips  # noqa: E402
from audiotag_jax.datasets.reader import read_split  # noqa: E402
from audiotag_jax.evaluation.intervals import LEVEL, bootstrap_means, holm, recording_numbers  # noqa: E402
from audiotag_jax.evaluation.predictions import VALIDATION, load_predictions  # noqa: E402
from audiotag_jax.inference.tagger import load_tagger  # noqa: E402
from audiotag_jax.runtime.files import write_npz  # noqa: E402
from audiotag_jax.settings.record import read_record  # noqa: E402
from audiotag_jax.study.markdown import interval, table  # noqa: E402

CONDITIONS = ("clean", "noise 20 dB", "noise 10 dB", "noise 0 dB", "gain -20 dB", "MP3 32 kbit/s")
BATCH = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", required=True, type=Path, help="folder of a study on one data set")
    parser.add_argument("--variants", required=True, help="names separated by commas, the baseline first")
    parser.add_argument("--clips", type=int, default=600, help="number of clips, drawn over all folds")
    parser.add_argument("--out", type=Path, help="folder for the predictions (default: robustness in the study's)")
    options = parser.parse_args()
    out = options.out or options.study / "robustness"
    variants = options.variants.split(",")
    recordings: dict[str, str] = {}
    for variant in variants:
        folds = fold_dirs(options.study, variant)
        clips = drawn(folds, options.clips)
        for each in clips.values():
            recordings |= dict(zip(each["ids"].tolist(), each["recordings"].tolist(), strict=True))
        path = out / f"{variant}.npz"
        if not is_saved(path, np.concatenate([each["ids"] for each in clips.values()])):
            out.mkdir(parents=True, exist_ok=True)
            write_npz(path, **evaluate(folds, clips))
        print(f"{variant}: {path}", flush=True)
    print("", *tables(read(out, variants), recordings), sep="\n")


def fold_dirs(study: Path, variant: str) -> dict[int, Path]:
    """Returns the run's folder by fold: a search gives folds different penalties, and so different folders."""
    found = {}
    for path in sorted(study.glob(f"runs/{variant}-seed_0-rate_*/fold_*/{VALIDATION}")):
        fold = int(path.parent.name.removeprefix("fold_"))
        if fold in found:
            both = f"{found[fold].name} and {path.parents[1].name}"
            sys.exit(f"{study}: fold {fold} of {variant} is in {both}; move away what choices.json does not list")
        found[fold] = path.parents[1]
    if not found:
        sys.exit(f"{study} has no finished run of {variant}")
    return dict(sorted(found.items()))


def drawn(folds: Mapping[int, Path], count: int) -> dict[int, dict[str, np.ndarray]]:
    """Returns, by fold, the `ids`, `labels` and `recordings` of the clips drawn."""
    found = {}
    for fold, workdir in folds.items():
        saved = load_predictions(workdir / f"fold_{fold}" / VALIDATION)
        order = np.argsort([hashlib.sha256(clip.encode()).hexdigest() for clip in saved["ids"].tolist()])
        chosen = order[: -(-count // len(folds))]
        found[fold] = {name: saved[name][chosen] for name in ("ids", "labels", "recordings")}
    return found


def is_saved(path: Path, ids: np.ndarray) -> bool:
    """Returns whether figures of these clips are saved there; exits if they are of others, as with another --clips."""
    if not path.exists():
        return False
    with np.load(path) as saved:
        if saved["ids"].tolist() != ids.tolist():
            sys.exit(f"{path} is of other clips: remove it, or name another --out")
    return True


def evaluate(folds: Mapping[int, Path], clips: Mapping[int, Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Returns `ids` and `labels` [n], and by condition the log-probabilities [n, K] in float16."""
    settings = read_record(next(iter(folds.values()))).settings
    examples = read_split(prepare_run_clips(settings), "train")
    place = {clip: k for k, clip in enumerate(examples.ids.tolist())}
    parts = []
    for fold, workdir in folds.items():
        ids, labels = clips[fold]["ids"], clips[fold]["labels"]
        waveforms = examples.inputs[np.array([place[clip] for clip in ids.tolist()])]
        tagger = load_tagger(workdir, (fold,))
        part = {"ids": ids, "labels": labels}
        for name in CONDITIONS:
            sounds = [disturb(x, name, clip, tagger.sample_rate_hz) for x, clip in zip(waveforms, ids, strict=True)]
            answers = tag(tagger, np.array(sounds, np.float32))
            part[name] = np.log(np.maximum(answers, 1e-30)).astype(np.float16)
        parts.append(part)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def read(folder: Path, variants: Sequence[str] = ()) -> dict[str, dict[str, np.ndarray]]:
    """Returns what is saved in a folder, by variant, in the given order; exits if the clips are not the same."""
    found = {}
    for name in variants or sorted(path.stem for path in folder.glob("*.npz")):
        with np.load(folder / f"{name}.npz") as saved:
            found[name] = dict(saved)
    first = next(iter(found.values()))
    for name, each in found.items():
        if any(each[key].tolist() != first[key].tolist() for key in ("ids", "labels")):
            sys.exit(f"{folder / name}.npz is of other clips than {next(iter(found))}.npz; remove one of them")
    return found


def tag(tagger, waveforms: np.ndarray) -> np.ndarray:
    """Computes probabilities [n, K] of waveforms [n, N], in batches of one size."""
    padded = np.pad(waveforms, ((0, -len(waveforms) % BATCH), (0, 0)))
    batches = [jax.device_get(tagger.probabilities(part)) for part in np.split(padded, len(padded) // BATCH)]
    return np.concatenate(batches)[: len(waveforms)]


def disturb(x: np.ndarray, condition: str, clip: str, rate_hz: int) -> np.ndarray:
    """Returns a disturbed copy [N] of x; noise depends on the clip's id, its level on the power where x is not 0."""
    kind, _, rest = condition.partition(" ")
    if kind == "noise":
        rng = np.random.default_rng(int(hashlib.sha256(clip.encode()).hexdigest()[:16], 16))
        power = np.mean(np.square(x[x != 0], dtype=np.float64)) if x.any() else 0.0
        return x + np.sqrt(power / 10 ** (float(rest.split()[0]) / 10)) * rng.standard_normal(len(x))
    if kind == "gain":
        return x * 10 ** (float(rest.split()[0]) / 20)
    return mp3(x, rate_hz, 32_000) if kind == "MP3" else x


def mp3(x: np.ndarray, rate_hz: int, bits_per_second: int) -> np.ndarray:
    """Encodes x [N] as MP3 and decodes it, shifted back by the delay of both."""
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


def tables(found: Mapping[str, Mapping[str, np.ndarray]], recordings: Mapping[str, str]) -> list[str]:
    """Returns accuracies, then differences to the first variant by condition, then what each loses more than it."""
    right = {
        variant: {name: (each[name].argmax(axis=1) == each["labels"]).astype(float) for name in CONDITIONS}
        for variant, each in found.items()
    }
    baseline, first = next(iter(found.items()))
    groups = recording_numbers(first["ids"].tolist(), recordings)
    accuracies = [[f"`{v}`", *(f"{each[name].mean():.3f}" for name in CONDITIONS)] for v, each in right.items()]
    shares = {v: np.stack(list(each.values()), axis=1) for v, each in right.items()}  # [n, conditions]
    behind = {v: shares[v] - shares[baseline] for v in list(shares)[1:]}
    lost_more = {v: each[:, :1] - each[:, 1:] for v, each in behind.items()}
    return [
        *table(("variant", *CONDITIONS), accuracies),
        f"Accuracy minus that of `{baseline}` under the same condition, paired by clip, with 95 % intervals over",
        "recordings, uncorrected; \\*: below 0.05 after Holm's correction over the cells of the table:",
        "",
        *table(("variant", *CONDITIONS), _paired(behind, groups, 1.0)),
        f"Accuracy lost by the disturbance, minus what `{baseline}` loses: below 0 a variant loses less, as does one",
        "that has less to lose. Intervals and \\* as above:",
        "",
        *table(("variant", *CONDITIONS[1:]), _paired(lost_more, groups, 2.0)),
    ]


def _paired(differences: Mapping[str, np.ndarray], groups: np.ndarray, most: float) -> list[list[str]]:
    """Returns rows of the means of differences [n, R] within `most` of 0, with limits by recordings, `groups` [n]."""
    found = [bootstrap_means(values, -most, groups, highest=most) for values in differences.values()]
    p_values = np.reshape(holm(np.ravel([each.p for each in found])), (len(found), -1))
    rows = []
    for variant, bounds, corrected in zip(differences, found, p_values, strict=True):
        cells = []
        for k, column in enumerate(differences[variant].T):
            text = interval({key: float(getattr(bounds, key)[k]) for key in ("value", "low", "high")}, "+")
            cells.append(text + " \\*" * bool(corrected[k] < LEVEL) if column.any() else "0, no clip differs")
        rows.append([f"`{variant}`", *cells])
    return rows


if __name__ == "__main__":
    main()
