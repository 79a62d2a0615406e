"""Saved predictions: the logits of every clip, keyed by its id."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from audiotag_jax.evaluation.task import is_scored, task_of
from audiotag_jax.runtime.errors import NPZ_ERRORS, UserError

VALIDATION, TEST = "predictions.npz", "test_predictions.npz"  # in the folder of a fold

# By name: `ids`, `labels` (-1: none), `verified`, `recordings` ("": a recording of its own) [n], `logits` [n, K]. Where
# a clip has any number of labels, `labels` is [n, K] (see `task`).
Predictions = dict[str, np.ndarray]


def load_predictions(path: Path, *, logits: bool = True) -> Predictions:
    """Loads the arrays of a prediction file, but for `logits` all small; raises UserError on a damaged one.

    Older files name no recordings.
    """
    names = ("ids", "labels", "verified", *(("logits",) if logits else ()))
    try:
        with np.load(path) as saved:
            found = {name: saved[name] for name in names}
            recordings = saved["recordings"] if "recordings" in saved else np.full(len(found["ids"]), "")
            return found | {"recordings": recordings}
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing.") from error
    except NPZ_ERRORS as error:
        raise UserError(f"{path} is damaged ({error}).\nRemove it and run the same command again.") from error


def mean_loss(predictions: Predictions) -> float:
    """Returns the mean cross-entropy of the clips whose labels are known."""
    known = select(predictions, is_scored(predictions["labels"]))
    return float(task_of(known["labels"]).losses(known["logits"], known["labels"]).mean())


def select(predictions: Predictions, chosen: np.ndarray) -> Predictions:
    """Returns the clips at indices, or under a mask, `chosen`."""
    return {name: values[chosen] for name, values in predictions.items()}


def concatenate(parts: Sequence[Predictions]) -> Predictions:
    """Returns the clips of all parts, in their order."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def average_predictions(files: Sequence[Path]) -> Predictions:
    """Averages probabilities of prediction files of the same clips; returns the arrays, `logits` of the means.

    Raises UserError if the clips differ.
    """
    first = load_predictions(files[0])
    task = task_of(first["labels"])
    total = np.zeros(first["logits"].shape)
    for file in files:
        saved = load_predictions(file)
        if not np.array_equal(first["ids"], saved["ids"]):
            raise UserError(f"{file} and {files[0]} contain different clips.")
        total += task.probabilities(saved["logits"])
    return first | {"logits": task.logits(total / len(files))}
