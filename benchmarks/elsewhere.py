"""Predictions for ESC-50 or ESC-10 without this project: scikit-learn on mean spectra, and a network in PyTorch.

    python benchmarks/elsewhere.py data/ESC-50 --out=elsewhere
    python main.py --mode=compare --workdir=runs/elsewhere --predictions=benchmarks/study/networks/predictions/esc50 \
        --predictions=elsewhere/mean_spectra.csv --predictions=elsewhere/torch_cnn.npz --baseline=small --score=accuracy

`elsewhere/labels.csv`, for `--labels`, has what compare takes from our predictions, where there are none, as on ESC-10.
The official folds are held out one after the other. Needs scikit-learn and, unless `--epochs=0`, torch.
"""

import argparse
import csv
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import librosa
import numpy as np
import soundfile
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

RATE_HZ, BANDS, HOP = 16000, 64, 1024
COLUMNS = ("filename", "category", "fold", "src_file")
BATCH, RATE, PENALTY = 32, 3e-3, 0.01  # fixed before any score was seen


def main() -> None:
    """Writes `labels.csv`, `mean_spectra.csv` and `torch_cnn.npz`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="folder with audio/ and a table in meta/, of ESC-50 or of a part of it")
    parser.add_argument("--out", type=Path, required=True, help="folder of what is written")
    parser.add_argument("--epochs", type=int, default=20, help="of the network; 0: without it")
    parser.add_argument("--clips", type=int, default=None, help="only the first so many of each class and fold")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    ids, labels, folds, recordings = read_table(next(options.path.glob("meta/*.csv")), options.clips)
    write_csv(options.out / "labels.csv", ["filename", "label", "recording"], zip(ids, labels, recordings, strict=True))
    images = [log_mel(options.path / "audio" / name) for name in ids]
    shortest = min(image.shape[1] for image in images)  # compressed copies of 5 s differ by a frame
    images = np.stack([image[:, :shortest] for image in images])
    classes, numbers = np.unique(labels, return_inverse=True)
    start = time.monotonic()
    probabilities = held_out(mean_spectra, images, numbers, folds)
    rows = ([name, *(f"{value:.6g}" for value in row)] for name, row in zip(ids, probabilities, strict=True))
    write_csv(options.out / "mean_spectra.csv", ["filename", *classes], rows)
    describe("scikit-learn on mean spectra", probabilities, numbers, start)
    if options.epochs:
        start = time.monotonic()
        logits = held_out(lambda *data: torch_cnn(*data, options.epochs), images, numbers, folds)
        np.savez_compressed(options.out / "torch_cnn.npz", ids=ids, classes=classes, logits=logits.astype(np.float32))
        describe("a network in PyTorch", logits, numbers, start)


def read_table(path: Path, most: int | None) -> tuple[np.ndarray, ...]:
    """Returns names, labels, folds and recordings [n], of at most `most` clips of a class in a fold."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    seen: dict[tuple[str, str], int] = {}
    chosen = []
    for row in rows:
        key = (row["category"], row["fold"])
        seen[key] = seen.get(key, 0) + 1
        chosen += [row] if most is None or seen[key] <= most else []
    return tuple(np.array([row[name] for row in chosen]) for name in COLUMNS)


def log_mel(path: Path) -> np.ndarray:
    """Computes [64, T] log-mel energies: 0 is 80 dB below the clip's own maximum, 1 the maximum."""
    samples, rate_hz = soundfile.read(path, dtype="float32")
    samples = samples if samples.ndim == 1 else samples.mean(axis=1)
    samples = samples if rate_hz == RATE_HZ else librosa.resample(samples, orig_sr=rate_hz, target_sr=RATE_HZ)
    power = librosa.feature.melspectrogram(y=samples, sr=RATE_HZ, n_fft=2048, hop_length=HOP, n_mels=BANDS)
    return (librosa.power_to_db(power, ref=np.max) / 80 + 1).astype(np.float32)


def held_out(answer, images: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Returns [n, K] of `answer(training images, labels, other images)`, each clip's by training without its fold."""
    found = np.zeros((len(labels), labels.max() + 1))
    for fold in np.unique(folds):
        inside = folds == fold
        found[inside] = answer(images[~inside], labels[~inside], images[inside])
    return found


def mean_spectra(images: np.ndarray, labels: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns probabilities [m, K] of a logistic regression on mean and standard deviation over time."""
    features, unseen = (np.concatenate([each.mean(2), each.std(2)], axis=1) for each in (images, others))
    model = make_pipeline(StandardScaler(), LogisticRegression(C=PENALTY, max_iter=2000))
    return model.fit(features, labels).predict_proba(unseen)


def torch_cnn(images: np.ndarray, labels: np.ndarray, others: np.ndarray, epochs: int) -> np.ndarray:
    """Returns logits of four convolutions and global pooling after `epochs` of AdamW; clips are shifted in time."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after in ((1, 16), (16, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        layers += [nn.MaxPool2d(2)]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, int(labels.max()) + 1))
    mean, scale = images.mean(), images.std()
    inputs, unseen = (torch.tensor((each - mean) / scale)[:, None] for each in (images, others))
    targets = torch.tensor(labels)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.05)
    steps = epochs * -(-len(targets) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=RATE, total_steps=steps)
    for _ in range(epochs):
        network.train()
        for chosen in torch.randperm(len(targets)).split(BATCH):
            shifted = torch.roll(inputs[chosen], int(torch.randint(inputs.shape[-1], ())), dims=-1)
            loss = nn.functional.cross_entropy(network(shifted), targets[chosen], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    network.eval()
    with torch.no_grad():
        return torch.cat([network(batch) for batch in unseen.split(256)]).numpy()


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Writes a table."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def describe(name: str, scores: np.ndarray, labels: np.ndarray, start: float) -> None:
    """Prints the share of clips whose greatest score is that of their label."""
    right = float((scores.argmax(axis=1) == labels).mean())
    print(f"{name}: {right:.3f} of {len(labels)} held-out clips right, {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
