"""Predictions that this project did not make: scikit-learn on mean spectra, and a PyTorch network, by official folds.

    python benchmarks/predictions_elsewhere.py --images=prepared/audiotag_spectrograms/NAME/1.0.0 --out=runs/elsewhere
    python main.py --mode=compare --workdir=runs/compared --predictions=benchmarks/study/small/predictions/esc50 \\
        --predictions=scikit-learn=runs/elsewhere/scikit-learn.csv --predictions=pytorch=runs/elsewhere/pytorch.npz

`--images` is a prepared dataset of spectrograms, read by plain TFDS. Each fold is predicted by a classifier of the
others. scikit-learn: logistic regression, C = 1, on standardized means and deviations over time. PyTorch (left out
where it is not installed): four convolutions on images of half the size, 15 epochs, no augmentation, last epoch.
Nothing is tuned.
"""

import argparse
import csv
import time
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True, help="folder of a prepared dataset, with its version")
    parser.add_argument("--out", required=True, type=Path, help="folder of the predictions")
    parser.add_argument("--epochs", type=int, default=15, help="of PyTorch's network")
    options = parser.parse_args()
    builder = tfds.builder_from_directory(options.images)
    classes = builder.info.features["label"].names
    rows = list(builder.as_data_source(split="train"))
    ids = [row["id"].decode() if isinstance(row["id"], bytes) else str(row["id"]) for row in rows]
    labels, folds = (np.array([row[name] for row in rows]) for name in ("label", "fold"))
    images = np.stack([np.asarray(row["image"], np.float16) for row in rows])
    options.out.mkdir(parents=True, exist_ok=True)

    start = time.monotonic()
    probabilities = by_fold(folds, lambda train, test: scikit_learn(images, labels, train, test), len(classes))
    with (options.out / "scikit-learn.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", *classes])
        table.writerows([clip, *map(repr, map(float, row))] for clip, row in zip(ids, probabilities, strict=True))
    describe("scikit-learn", probabilities, labels, start)
    try:
        import torch
    except ImportError:
        print("no PyTorch: its network is left out")
        return
    start = time.monotonic()
    logits = by_fold(
        folds, lambda train, test: pytorch(torch, images, labels, train, test, options.epochs), len(classes)
    )
    np.savez(
        options.out / "pytorch.npz", ids=np.array(ids), logits=logits.astype(np.float32), classes=np.array(classes)
    )
    describe("pytorch", logits, labels, start)


def by_fold(folds: np.ndarray, predict, num_classes: int) -> np.ndarray:
    """[n, K] of each clip from the classifier of the other folds."""
    found = np.zeros((len(folds), num_classes))
    for fold in np.unique(folds):
        found[folds == fold] = predict(np.flatnonzero(folds != fold), np.flatnonzero(folds == fold))
    return found


def describe(name: str, scores: np.ndarray, labels: np.ndarray, start: float) -> None:
    print(
        f"{name}: accuracy {(scores.argmax(axis=1) == labels).mean():.3f}, {time.monotonic() - start:.0f} s", flush=True
    )


def scikit_learn(images, labels, train, test) -> np.ndarray:
    """Probabilities [n, K] of logistic regression on each bin's mean and deviation over time."""
    features = np.concatenate([images.mean(1, np.float32), images.std(1, np.float32)], axis=1).reshape(len(images), -1)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return model.fit(features[train], labels[train]).predict_proba(features[test])


def pytorch(torch, images, labels, train, test, epochs: int) -> np.ndarray:
    """Logits [n, K] of a small network."""
    nn = torch.nn
    torch.manual_seed(0)
    widths = (images.shape[-1], 16, 32, 64, 128)
    layers = []
    for first, second in zip(widths, widths[1:], strict=False):
        layers += [nn.Conv2d(first, second, 3, 2, 1), nn.BatchNorm2d(second), nn.ReLU()]
    model = nn.Sequential(
        nn.AvgPool2d(2), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, labels.max() + 1)
    )
    inputs, targets = torch.from_numpy(np.moveaxis(images, -1, 1).copy()), torch.from_numpy(labels).long()
    steps = epochs * (len(train) // 32)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    rng = np.random.default_rng(0)
    for _ in range(epochs):
        for batch in rng.permutation(train)[: 32 * (len(train) // 32)].reshape(-1, 32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs[batch].float()), targets[batch]).backward()
            optimizer.step()
            schedule.step()
    model.eval()
    with torch.no_grad():
        return torch.cat([model(inputs[part].float()) for part in np.array_split(test, 8)]).numpy()


if __name__ == "__main__":
    main()
