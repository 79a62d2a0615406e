"""Vectors of the clips of a data set: what a network computes before its head, with the weights a run starts from."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from audiotag_jax.datasets.prepare import prepare
from audiotag_jax.datasets.prepared import read_metadata
from audiotag_jax.datasets.reader import Examples, read_split
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.progress import progress
from audiotag_jax.settings.settings import Settings
from audiotag_jax.spectral.front_end import normalize, to_images
from audiotag_jax.training.initial_weights import initial_body

_BATCH_CLIPS = 16


def embed_dataset(settings: Settings) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Returns the columns ids, labels, folds, splits and embeddings [n, D] of all clips, and what made them.

    Prepares the data set if it is missing. Labels are names, "" where there is none; folds are -1 in the test split.
    Raises UserError unless `settings` name weights to start from.
    """
    model = settings.model
    if not (model.pretrained or model.init_from):
        raise UserError(
            "Without config.model.pretrained or config.model.init_from the network is random: name one of them."
        )
    directory = prepare(settings)
    classes = np.array([*read_metadata(directory)["classes"], ""])
    splits = {name: examples for name in ("train", "test") if (examples := read_split(directory, name)) is not None}
    body = model.network(len(classes) - 1).body
    front_end = settings.front_end

    def images_of(inputs):
        return normalize(to_images(inputs, front_end), front_end)

    shape = jax.eval_shape(images_of, jax.ShapeDtypeStruct(*_batch(splits["train"]))).shape[1:]
    variables = initial_body(body, model, shape)

    @jax.jit
    def embed(variables, inputs):
        features = jnp.asarray(body.apply(variables, images_of(inputs), train=False), jnp.float32)
        return features.mean(range(1, features.ndim - 1))

    columns: dict[str, list] = {name: [] for name in ("ids", "labels", "folds", "splits", "embeddings")}
    for name, examples in splits.items():
        columns["embeddings"] += _embedded(embed, variables, examples, name)
        columns["ids"].append(examples.ids)
        columns["labels"].append(classes[examples.labels])  # -1 is the last, ""
        columns["folds"].append(examples.folds)
        columns["splits"].append(np.full(len(examples), name))
    about = {"network": model.name, "weights": model.pretrained or model.init_from, "dataset": directory.parent.name}
    return {name: np.concatenate(parts) for name, parts in columns.items()}, about


def _embedded(embed, variables, examples: Examples, name: str) -> list[np.ndarray]:
    starts = range(0, len(examples), _BATCH_CLIPS)
    rows = []
    for start in progress(starts, len(starts), f"embedding {name} clips", "batches"):
        indices = np.arange(start, min(start + _BATCH_CLIPS, len(examples)))
        inputs = np.zeros(*_batch(examples))
        inputs[: len(indices)] = examples.inputs[indices]
        rows.append(np.asarray(embed(variables, inputs))[: len(indices)])
    return rows


def _batch(examples: Examples) -> tuple[tuple[int, ...], np.dtype]:
    return (_BATCH_CLIPS, *examples.inputs.shape[1:]), examples.inputs.dtype
