"""Reads a prepared dataset without TensorFlow: what is known of its clips from its index, inputs from its records."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from audiotag_jax.datasets.index import label_array, read_index, rows_of
from audiotag_jax.datasets.prepared import read_metadata, record_source

_CHUNK = 256  # records per read


@dataclasses.dataclass(frozen=True)
class Stored:
    """Images or waveforms of a split on disk, read on access: `stored[indices]`."""

    directory: Path
    split: str
    name: str  # "image" or "waveform"
    shape: tuple[int, ...]  # the number of clips first
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        records = record_source(self.directory, self.split, (self.name,)).__getitems__([int(i) for i in indices])
        return (
            np.stack([record[self.name] for record in records])
            if records
            else np.empty((0, *self.shape[1:]), self.dtype)
        )

    def load(self) -> np.ndarray:
        """Reads all of them into memory."""
        values = np.empty(self.shape, self.dtype)
        for start in range(0, len(values), _CHUNK):
            values[start : start + _CHUNK] = self[np.arange(start, min(start + _CHUNK, len(values)))]
        return values


@dataclasses.dataclass(frozen=True)
class Examples:
    """One split of a prepared dataset, in the dataset's order: by clip id.

    `ids` `[n]` str, `labels` `[n]` int (-1: none) or `[n, K]` (see `evaluation.task`), `folds` `[n]` int (-1 in the
    test split), `verified` `[n]` bool. `inputs` are images `[n, T, F, C]` float16 in [0, 1] or waveforms `[n, N]`
    float32, in memory or `Stored`. `sounds` `[n]` bytes are hashes of the recordings' files, empty where they are not
    known.
    """

    ids: np.ndarray
    inputs: np.ndarray | Stored
    labels: np.ndarray
    folds: np.ndarray
    verified: np.ndarray
    sounds: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def in_memory(self) -> "Examples":
        """Returns the same examples with their inputs in memory."""
        return dataclasses.replace(self, inputs=self.load_inputs()) if isinstance(self.inputs, Stored) else self

    def load_inputs(self) -> np.ndarray:
        """Returns all inputs, in memory."""
        return self.inputs.load() if isinstance(self.inputs, Stored) else self.inputs


def read_split(directory: Path, split: str) -> Examples | None:
    """Returns the examples of `split` with their inputs on disk; None if the dataset has no such split."""
    info = tfds.builder_from_directory(directory).info
    if split not in info.splits:
        return None
    rows = rows_of(read_index(directory), split)
    name = "image" if "image" in info.features else "waveform"
    feature = info.features[name]
    return Examples(
        ids=np.array(rows["id"].to_pylist(), str),
        inputs=Stored(directory, split, name, (len(rows), *feature.shape), np.dtype(feature.np_dtype)),
        labels=label_array(rows, len(read_metadata(directory)["classes"])),
        folds=rows["fold"].to_numpy().astype(np.int64),
        verified=rows["verified"].to_numpy(),
        sounds=np.array(rows["sound"].to_pylist(), "S"),
    )
