"""Reads a prepared dataset without TensorFlow."""

import dataclasses
import functools
import math
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

_CHUNK = 256  # records per read
_COLUMNS = ("id", "label", "fold", "verified")  # fields besides the input


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
        records = _source(self.directory, self.split, (self.name,)).__getitems__([int(i) for i in indices])
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

    `ids` `[n]` str, `labels` `[n]` int (-1: none), `folds` `[n]` int (-1 in the test split), `verified` `[n]` bool.
    `inputs` are images `[n, T, F, C]` float16 in [0, 1] or waveforms `[n, N]` float32, in memory or `Stored`.
    """

    ids: np.ndarray
    inputs: np.ndarray | Stored
    labels: np.ndarray
    folds: np.ndarray
    verified: np.ndarray

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
    builder = tfds.builder_from_directory(directory)
    if split not in builder.info.splits:
        return None
    source = _source(directory, split, _COLUMNS)
    columns: dict[str, list] = {name: [] for name in _COLUMNS}
    for start in range(0, len(source), _CHUNK):
        for record in source.__getitems__(list(range(start, min(start + _CHUNK, len(source))))):
            for name in _COLUMNS:
                columns[name].append(record[name])
    name = "image" if "image" in builder.info.features else "waveform"
    feature = builder.info.features[name]
    return Examples(
        ids=np.array([clip_id.decode() for clip_id in columns["id"]]),
        inputs=Stored(directory, split, name, (len(source), *feature.shape), np.dtype(feature.np_dtype)),
        labels=np.array(columns["label"]),
        folds=np.array(columns["fold"]),
        verified=np.array(columns["verified"], bool),
    )


def read_metadata(directory: Path) -> dict:
    """Returns the metadata that a builder stored: classes, settings, problems."""
    return dict(tfds.builder_from_directory(directory).info.metadata)


@functools.lru_cache(maxsize=8)
def _source(directory: Path, split: str, names: tuple[str, ...]):
    """Returns a TFDS data source that decodes only the named fields."""
    builder = tfds.builder_from_directory(directory)
    unwanted = {name: tfds.decode.SkipDecoding() for name in builder.info.features if name not in names}
    return builder.as_data_source(split, decoders=unwanted)
