"""Vectors of the clips of a data set: what a network computes before its head, with the weights a run starts from."""

from typing import Any

import numpy as np

from audiotag_jax.datasets.prepare import prepare
from audiotag_jax.datasets.prepared import read_metadata
from audiotag_jax.datasets.reader import read_split
from audiotag_jax.datasets.records import SPLITS
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.settings.settings import Settings
from audiotag_jax.training.experiment import name_of_inputs, shape_of_images
from audiotag_jax.training.frozen_body import FrozenBody
from audiotag_jax.training.frozen_features import clip_features
from audiotag_jax.training.initial_weights import check_pretrained, initial_body


def embed_dataset(settings: Settings) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Returns the columns ids, labels, folds, splits and embeddings [n, D] of all clips, and what made them.

    Prepares the data set if it is missing; the vectors are the features of a probe, cached likewise. Labels are names,
    "" where there is none, several ones divided as in the table or by commas; folds are -1 in the test split. A {fold}
    in `config.model.init_from` is 0. It is not checked which clips the weights have seen. Raises UserError unless
    `settings` name weights to start from.
    """
    model = settings.model
    if not (model.pretrained or model.init_from):
        raise UserError(
            "Without config.model.pretrained or config.model.init_from the network is random: name one of them."
        )
    check_pretrained(model)
    directory = prepare(settings)
    classes = np.array([*read_metadata(directory)["classes"], ""])
    splits = {name: examples for name in SPLITS if (examples := read_split(directory, name)) is not None}
    shape = shape_of_images(settings, next(iter(splits.values())))
    body = FrozenBody(initial_body(model.network(len(classes) - 1).body, model, shape))
    columns: dict[str, list] = {name: [] for name in ("ids", "labels", "folds", "splits", "embeddings")}
    for name, examples in splits.items():
        inputs_name = name_of_inputs(settings, directory)
        columns["embeddings"].append(clip_features(settings, inputs_name, body, examples, name))
        columns["ids"].append(examples.ids)
        columns["labels"].append(_named(classes, examples.labels, settings.dataset.label_separator or ","))
        columns["folds"].append(examples.folds)
        columns["splits"].append(np.full(len(examples), name))
    about = {
        "network": model.name,
        "weights": model.pretrained or model.init_from,
        "pooling": settings.training.probe_pooling,
        "dataset": directory.parent.name,
    }
    return {name: np.concatenate(parts) for name, parts in columns.items()}, about


def _named(classes: np.ndarray, labels: np.ndarray, separator: str) -> np.ndarray:
    """Returns labels as text; the last of `classes` is "", which label -1 gives."""
    if labels.ndim == 1:
        return classes[labels]
    return np.array([separator.join(classes[np.flatnonzero(row == 1)]) for row in labels], str)
