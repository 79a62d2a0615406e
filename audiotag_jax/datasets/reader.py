"""Reads a prepared dataset without TensorFlow."""

import dataclasses
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds


@dataclasses.dataclass(frozen=True)
class Examples:
    """One split of a spectrogram dataset, in the dataset's order: by clip id.

    `ids` `[n]` str, `images` `[n, T, F, C]` float16 in [0, 1], `labels` `[n]` int (-1: none), `folds` `[n]` int (-1 in
    the test split), `verified` `[n]` bool.
    """

    ids: np.ndarray
    images: np.ndarray
    labels: np.ndarray
    folds: np.ndarray
    verified: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


def read_split(directory: Path, split: str, chunk: int = 256) -> Examples | None:
    """The examples of `split`, all in memory; None if the dataset has no such split."""
    builder = tfds.builder_from_directory(directory)
    if split not in builder.info.splits:
        return None
    source = builder.as_data_source(split)
    images = np.empty((len(source), *builder.info.features["image"].shape), np.float16)
    ids, labels, folds, verified = [], [], [], []
    for start in range(0, len(source), chunk):
        records = source.__getitems__(list(range(start, min(start + chunk, len(source)))))
        for offset, record in enumerate(records):
            images[start + offset] = record["image"]
            ids.append(record["id"].decode())
            labels.append(record["label"])
            folds.append(record["fold"])
            verified.append(record["verified"])
    return Examples(np.array(ids), images, np.array(labels), np.array(folds), np.array(verified, bool))


def read_metadata(directory: Path) -> dict:
    """The metadata a builder stored beside the examples: classes, number of folds, settings, problems."""
    return dict(tfds.builder_from_directory(directory).info.metadata)
