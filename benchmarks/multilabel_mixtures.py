r"""A data set with several labels a clip, mixed from ESC-50, and scikit-learn's classifier on a body's features of it.

    python benchmarks/multilabel_mixtures.py make --path=data/ESC-50 --out=data/mixtures
    audiotag --config=yamnet:folder_probe --config.dataset.path=data/mixtures --config.dataset.table=mixtures.csv \
        --config.dataset.label_separator=, --config.dataset.duration_s=5 --workdir=runs/mixtures
    audiotag --mode=embed … (the same) --out=runs/mixtures/embedded
    python benchmarks/multilabel_mixtures.py compare --run=runs/mixtures \
        --embeddings=runs/mixtures/embedded/embeddings.npz

`make` mixes one to three clips of the same fold, each at a level of -20 dB of full scale to 12 dB below that, and
writes mixtures.csv (path, label, fold, recording). Clips are mixed within groups of ten of a fold's recordings alone;
the group is named as the recording, so that intervals resample what is independent. `compare` fits one against the rest
on the folds' training clips, with the power, the scaling and the penalty of the probe, and scores both on the same
clips.
"""

import argparse
import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

RATE_HZ, DURATION_S = 16_000, 5.0
LEVEL_DB, RANGE_DB, PEAK = -20.0, 12.0, 0.99
GROUP_RECORDINGS = 10
MOST_CLIPS = 3  # in a mixture
SEPARATOR = ","


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    make = actions.add_parser("make")
    make.add_argument("--path", type=Path, required=True, help="a folder in the layout of ESC-50")
    make.add_argument("--out", type=Path, required=True)
    make.add_argument("--per_fold", type=int, default=2000)
    make.add_argument("--seed", type=int, default=0)
    compare = actions.add_parser("compare")
    compare.add_argument("--run", type=Path, required=True, help="work directory of a finished probe")
    compare.add_argument("--embeddings", type=Path, required=True, help="embeddings.npz of the same clips and weights")
    compare.add_argument("--out", type=Path, help="a CSV file for scikit-learn's probabilities, for mode compare")
    options = parser.parse_args()
    if options.action == "make":
        rows = write_mixtures(options.path, options.out, options.per_fold, options.seed)
        counts = np.bincount([row[1].count(SEPARATOR) + 1 for row in rows])[1:]
        print(f"{options.out / 'mixtures.csv'}: {len(rows)} mixtures, of 1, 2, … labels: {', '.join(map(str, counts))}")
    else:
        print(compare_probes(options.run, options.embeddings, options.out))


def write_mixtures(source: Path, out: Path, per_fold: int, seed: int) -> list[tuple[str, str, str, str]]:
    """Writes the sounds as 16-bit FLAC, and the table; returns its rows."""
    with (source / "meta" / "esc50.csv").open(newline="") as file:
        clips = list(csv.DictReader(file))
    rows = []
    for fold in sorted({clip["fold"] for clip in clips}):
        rng = np.random.default_rng((seed, int(fold)))
        groups = recording_groups([clip for clip in clips if clip["fold"] == fold], rng)
        (out / f"fold{fold}").mkdir(parents=True, exist_ok=True)
        for number in range(per_fold):
            group = int(rng.integers(len(groups)))
            chosen = rng.choice(len(groups[group]), rng.integers(1, MOST_CLIPS + 1), replace=False)
            parts = [groups[group][i] for i in chosen]
            levels = LEVEL_DB - RANGE_DB * rng.random(len(parts))
            sounds = [read_sound(source / "audio" / part["filename"]) for part in parts]
            path = f"fold{fold}/{number:05d}.flac"
            soundfile.write(out / path, mix(sounds, levels), RATE_HZ, subtype="PCM_16")
            labels = sorted({part["category"] for part in parts})
            rows.append((path, SEPARATOR.join(labels), fold, f"fold{fold}_group{group:03d}"))
    with (out / "mixtures.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "fold", "recording"), *rows])
    return rows


def recording_groups(clips: list[dict], rng: np.random.Generator) -> list[list[dict]]:
    """Draws groups of ten recordings each and returns their clips; all takes of a recording are in one group."""
    names = sorted({clip["src_file"] for clip in clips})
    order = [names[i] for i in rng.permutation(len(names))]
    parts = [set(order[i : i + GROUP_RECORDINGS]) for i in range(0, len(order), GROUP_RECORDINGS)]
    groups = [[clip for clip in clips if clip["src_file"] in part] for part in parts]
    return [group for group in groups if len(group) >= MOST_CLIPS]


def read_sound(path: Path) -> np.ndarray:
    """Reads the first five seconds at 16 kHz, mono, padded with zeros."""
    import librosa

    samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    samples = samples.mean(axis=1)
    if rate_hz != RATE_HZ:
        samples = librosa.resample(samples, orig_sr=rate_hz, target_sr=RATE_HZ)
    length = round(DURATION_S * RATE_HZ)
    return np.pad(samples[:length], (0, max(0, length - len(samples))))


def mix(sounds: list[np.ndarray], levels_db: np.ndarray) -> np.ndarray:
    """Sums the sounds, each at its level (RMS of the samples that are not zero), scaled to fit."""
    total = np.zeros_like(sounds[0])
    for sound, level_db in zip(sounds, levels_db, strict=True):
        audible = sound[sound != 0]
        rms = np.sqrt(np.mean(np.square(audible, dtype=np.float64))) if len(audible) else 1.0
        total += sound * np.float32(10 ** (level_db / 20) / max(rms, 1e-9))
    return total * min(1.0, PEAK / max(np.abs(total).max(), 1e-9))


def compare_probes(run: Path, embeddings: Path, out: Path | None = None) -> str:
    """Returns a table of the scores of the run and of scikit-learn's one against the rest on the same features.

    `out` is a CSV file for the latter's probabilities.
    """
    from audiotag_jax.evaluation.multilabel import METRICS, score_table
    from audiotag_jax.evaluation.predictions import VALIDATION, concatenate, load_predictions
    from audiotag_jax.settings.record import fold_dir, read_record

    record = read_record(run)
    summary = json.loads((run / "summary.json").read_text())
    with np.load(embeddings) as saved:
        number_of = {clip: number for number, clip in enumerate(saved["ids"].tolist())}
        features, folds = saved["embeddings"], saved["folds"]
    power, penalty = record.settings.training.probe_power, record.settings.optimizer.probe_penalty
    features = np.sign(features) * np.abs(features) ** power
    finished = [entry["fold"] for entry in summary["folds"]]
    held_out = {fold: load_predictions(fold_dir(run, fold) / VALIDATION) for fold in finished}
    every = concatenate(list(held_out.values()))
    labels = np.zeros((len(number_of), len(record.classes)), bool)
    labels[[number_of[clip] for clip in every["ids"].tolist()]] = every["labels"] == 1
    theirs = []
    for fold, predictions in held_out.items():
        chosen = [number_of[clip] for clip in predictions["ids"].tolist()]
        train = np.flatnonzero((folds != fold) & (folds >= 0))
        logits = one_against_the_rest(features[train], labels[train], features[chosen], penalty)
        theirs.append(predictions | {"logits": logits})
    if out is not None:
        write_probabilities(out, concatenate(theirs), record.classes)
    tables = {"ours": score_table(every), "scikit-learn": score_table(concatenate(theirs))}
    lines = [f"| classifier | {' | '.join(METRICS.values())} |", "| --- " * (1 + len(METRICS)) + "|"]
    for name, table in tables.items():
        scores = [table[each] for each in METRICS]
        cells = [f"{each['value']:.4f} ({each['low']:.4f} to {each['high']:.4f})" for each in scores]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    first = tables["ours"]
    lines.append(f"\n{first['num_clips']} clips, {first['num_recordings']} groups of recordings")
    return "\n".join(lines)


def write_probabilities(path: Path, predictions: dict[str, np.ndarray], classes: Sequence[str]) -> None:
    """Writes a CSV table of probabilities, a row a clip and a column a class."""
    probabilities = 1 / (1 + np.exp(-predictions["logits"]))
    with path.open("w", newline="") as file:
        csv.writer(file).writerow(("id", *classes))
        csv.writer(file).writerows((clip, *row) for clip, row in zip(predictions["ids"], probabilities, strict=True))


def one_against_the_rest(train: np.ndarray, labels: np.ndarray, test: np.ndarray, penalty: float) -> np.ndarray:
    """Returns logits `[m, K]` of scikit-learn's logistic regressions, one a class."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(train)
    train, test = scaler.transform(train), scaler.transform(test)
    columns = [
        LogisticRegression(C=1 / penalty, max_iter=1000).fit(train, labels[:, k]).decision_function(test)
        for k in range(labels.shape[1])
    ]
    return np.stack(columns, axis=1)


if __name__ == "__main__":
    main()
