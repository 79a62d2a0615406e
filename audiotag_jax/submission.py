"""The challenge's submission: three labels for every test clip."""

import csv
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scipy.special
from ml_collections import ConfigDict

from audiotag_jax.datasets.fsdkaggle2018 import submission_order
from audiotag_jax.errors import UserError
from audiotag_jax.files import write_atomic


def load_predictions(path: Path) -> dict[str, np.ndarray]:
    """`ids`, `labels`, `verified` `[n]`, `logits` `[n, K]` of a prediction file; raises UserError on a damaged one."""
    try:
        with np.load(path) as saved:
            return {name: saved[name] for name in ("ids", "labels", "verified", "logits")}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged ({error}).\nRemove it and run the same command again.") from error


def average_predictions(files: Sequence[Path]) -> dict[str, np.ndarray]:
    """The arrays of prediction files of the same clips, with the log of their mean probabilities as `logits`.

    Raises UserError if the clips differ.
    """
    first, total = None, 0.0
    for file in files:
        saved = load_predictions(file)
        first = first or saved
        if not np.array_equal(first["ids"], saved["ids"]):
            raise UserError(f"{file} and {files[0]} hold different clips.")
        total = total + scipy.special.softmax(saved["logits"].astype(np.float64), axis=1)
    return first | {"logits": np.log(np.maximum(total / len(files), np.finfo(np.float64).tiny))}


def write_submission(path: Path, test_predictions: Sequence[Path], classes: Sequence[str], dataset: ConfigDict) -> None:
    """Writes `fname,label` rows, the label column holding the three likeliest labels separated by spaces.

    Probabilities are averaged over the runs in `test_predictions` (`.npz` files with ids and logits). Rows follow
    the challenge's sample submission where the data has one, else the ids. Raises UserError if ids do not match.
    """
    ensemble = average_predictions(test_predictions)
    best = np.argsort(-ensemble["logits"], axis=1, kind="stable")[:, :3]
    rows = dict(zip(ensemble["ids"].tolist(), best, strict=True))
    order = submission_order(dataset.path) if dataset.source == "fsdkaggle2018" else sorted(rows)
    if set(order) != set(rows):
        raise UserError(f"The test clips predicted and those of the sample submission in {dataset.path} differ.")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("fname", "label"))
    writer.writerows((clip, " ".join(classes[k].replace(" ", "_") for k in rows[clip])) for clip in order)
    write_atomic(path, lambda file: file.write(text.getvalue().encode()))
