"""Whether the options for rare classes and noisy labels help: a table with intervals, on inner splits alone.

    python benchmarks/imbalance.py --path=data/tidal-drum-machines --table=drums.csv --out=/tmp/imbalance

The data are those of a table with columns path, label, fold and recording (see study_data.py). Seed s leaves out fold s
and scores the next one, whose clips stay as they are; the training clips are changed in two ways:

- rare: half of the classes, drawn at random, keep one training clip in five (at least three);
- noisy: 70 % of the training clips are not verified, and 40 % of those have a wrong label, drawn at random.

Each option trains the same small network on the same clips from the same seeds. Values are differences to training
without options, with 95 % intervals over recordings and p values after Holm's correction. Finished runs are not
repeated; --seeds names those to train and count.
"""

import argparse
import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from audiotag_jax.evaluation.intervals import bootstrap_means, holm, recording_numbers  # noqa: E402
from audiotag_jax.evaluation.predictions import VALIDATION, load_predictions  # noqa: E402

KEPT, FEWEST = 0.2, 3  # of the training clips of a rare class
UNVERIFIED, WRONG = 0.7, 0.4
BASELINE = "no option"
Row = dict[str, str]

OPTIONS: dict[str, dict[str, dict]] = {  # by change of the data, then by name: fields of a run
    "rare": {
        BASELINE: {},
        "class_weights=balanced": {"train.class_weights": "balanced"},
        "sampling=balanced": {"train.sampling": "balanced"},
        "loss=focal": {"train.loss": "focal"},
    },
    "noisy": {
        BASELINE: {},
        "loss=lq": {"train.loss": "lq"},
        "label_smoothing=0.1": {"optimizer.label_smoothing": 0.1},
        "unverified_weight=0.3": {"train.unverified_weight": 0.3},
        "verified_epochs=5": {"train.verified_epochs": 5},
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", type=Path, required=True, help="the folder of the sounds")
    parser.add_argument("--table", default="drums.csv", help="in that folder")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--changes", nargs="+", choices=tuple(OPTIONS), default=tuple(OPTIONS))
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--only_show", action="store_true", help="train nothing; show what is finished")
    options = parser.parse_args()
    with (options.path / options.table).open(newline="") as file:
        rows = list(csv.DictReader(file))
    seeds = [int(seed) for seed in options.seeds.split(",")]
    options.out.mkdir(parents=True, exist_ok=True)
    for change in options.changes if not options.only_show else ():  # its seeds share compiled steps
        named = OPTIONS[change]
        for seed in seeds:
            table = options.out / f"{change}_seed{seed}.csv"
            write(table, changed(rows, change, seed)[0])
            for number, fields in enumerate(named.values()):
                train(options, table, seed, fields, workdir(options.out, change, seed, number))
    for change in options.changes:
        print(show(rows, change, seeds, options.out) + "\n")


def outer_fold(rows: Sequence[Row], seed: int) -> tuple[str, str]:
    """Returns the fold that a seed leaves out, and the one that it scores, by name."""
    names = sorted({row["fold"] for row in rows}, key=int)
    return names[seed % len(names)], names[(seed + 1) % len(names)]


def changed(rows: Sequence[Row], change: str, seed: int) -> tuple[list[Row], list[str]]:
    """Returns the table after a change of training clips, and the classes made rare; clips of the two folds stay."""
    rng, untouched = np.random.default_rng((seed, len(change))), outer_fold(rows, seed)
    classes = sorted({row["label"] for row in rows})
    rare = sorted(rng.choice(classes, len(classes) // 2, replace=False)) if change == "rare" else []
    kept: list[Row] = [row | {"verified": "1"} for row in rows if row["fold"] in untouched]
    training = [row | {"verified": "1"} for row in rows if row["fold"] not in untouched]
    if change == "noisy":
        for row in training:
            if rng.random() < UNVERIFIED:
                row["verified"] = "0"
                if rng.random() < WRONG:
                    row["label"] = str(rng.choice([name for name in classes if name != row["label"]]))
        return kept + training, rare
    for name in classes:
        own = [row for row in training if row["label"] == name]
        count = max(FEWEST, round(KEPT * len(own))) if name in rare else len(own)
        kept += [own[i] for i in rng.permutation(len(own))[:count]]
    return kept, rare


def write(table: Path, rows: Sequence[Row]) -> None:
    fields = ("path", "label", "fold", "recording", "verified")
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, fields)
        writer.writeheader()
        writer.writerows(rows)


def workdir(out: Path, change: str, seed: int, number: int) -> Path:
    return out / f"{change}_{number}_seed{seed}"


def train(options: argparse.Namespace, table: Path, seed: int, fields: Mapping, folder: Path) -> None:
    """Trains one run: the small network, narrow, on images of 64 x 64 of a second of sound."""
    from audiotag_jax.settings.settings import parse_settings
    from audiotag_jax.training import train as training
    from configs import log_db

    config = log_db.get_config("folder")
    fixed = {
        "seed": seed,
        "dataset.path": str(options.path),
        "dataset.table": str(table.absolute()),
        "dataset.prepared_dir": str(options.out / "prepared"),
        "dataset.duration_s": 1.0,
        "spectral.num_frames": 64,
        "spectral.num_bins": 64,
        "model.width": 12,
        "train.batch_size": 64,
        "train.num_epochs": options.epochs,
        "train.inner_split": True,
        "train.folds": (seed % 5,),
        "train.evaluate_every_epochs": 0,
        "train.checkpoint_every_epochs": options.epochs,
    }
    config.update_from_flattened_dict(fixed | fields)
    training.run(parse_settings(config), folder)


def show(rows: Sequence[Row], change: str, seeds: Sequence[int], out: Path) -> str:
    """Returns the table of a change, in Markdown, over the seeds of which all runs are finished."""
    named = list(OPTIONS[change])
    files = {
        seed: [workdir(out, change, seed, n) / f"fold_{seed % 5}" / VALIDATION for n in range(len(named))]
        for seed in seeds
    }
    finished = [seed for seed in seeds if all(file.is_file() for file in files[seed])]
    if not finished:
        return f"{change}: no seed is finished"
    parts = [
        columns([load_predictions(file) for file in files[seed]], rows, changed(rows, change, seed)[1])
        for seed in finished
    ]
    recordings = np.concatenate([part[1] for part in parts])
    groups = recording_numbers([str(i) for i in range(len(recordings))], dict(enumerate_names(recordings)))
    lines = [f"{change}: {len(finished)} seeds, {len(groups)} scored clips, {groups.max() + 1} recordings", ""]
    scores = [name for name in parts[0][0] if all(np.isfinite(part[0][name]).all() for part in parts)]
    lines += [f"| option | {' | '.join(scores)} | p (Holm) of {scores[-1]} |", "| --- " * (len(scores) + 2) + "|"]
    cells: list[list[str]] = [[name] for name in named]
    for score in scores:
        values = np.concatenate([part[0][score] for part in parts])
        found = bootstrap_means(values[:, :1], 0.0, groups)
        cells[0].append(f"{found.value[0]:.3f} ({found.low[0]:.3f} to {found.high[0]:.3f})")
        found = bootstrap_means(values[:, 1:] - values[:, :1], -1.0, groups)
        for n in range(len(named) - 1):
            cells[n + 1].append(f"{found.value[n]:+.3f} ({found.low[n]:+.3f} to {found.high[n]:+.3f})")
    p_values = holm(found.p.tolist())
    for cell, p in zip(cells, ["", *(f"{p:.3f}" for p in p_values)], strict=True):
        lines.append(f"| {' | '.join(cell)} | {p} |")
    return "\n".join(lines)


def enumerate_names(recordings: np.ndarray):
    return ((str(i), name) for i, name in enumerate(recordings.tolist()))


def columns(
    predictions: Sequence, rows: Sequence[Row], rare: Sequence[str]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Returns per-clip values `[n, options]` whose means are the scores of a seed, and the clips' recordings `[n]`."""
    classes = sorted({row["label"] for row in rows})
    labels, ids = predictions[0]["labels"], predictions[0]["ids"]
    right = np.stack([each["logits"].argmax(1) == each["labels"] for each in predictions], axis=1).astype(float)
    if any((each["ids"] != ids).any() for each in predictions):
        raise ValueError("the runs scored other clips")
    is_rare = np.isin(np.array(classes)[labels], rare)
    counts = np.bincount(labels, minlength=len(classes))
    shares = 1 / counts[labels]  # of a clip in the recall of its class
    scored_classes = (counts > 0).sum()
    found = {"accuracy": right}
    if len(rare):
        found["recall of rare classes"] = right * (is_rare * shares * len(labels) / len(set(labels[is_rare])))[:, None]
    found["mean recall of classes"] = right * (shares * len(labels) / scored_classes)[:, None]
    return found, predictions[0]["recordings"]


if __name__ == "__main__":
    main()
