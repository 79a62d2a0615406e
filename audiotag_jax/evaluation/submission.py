"""The challenge's submission: three labels for every test clip."""

import csv
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import scipy.special
from ml_collections import ConfigDict

from audiotag_jax.datasets.fsdkaggle2018 import submission_order
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.files import write_atomic

HEADER = ("fname", "label")
NUM_LABELS = 3  # in a row


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
    the challenge's sample submission where the data has one, else the ids. Raises UserError if ids do not match
    or if `check_submission` would, and then leaves `path` as it was.
    """
    ensemble = average_predictions(test_predictions)
    best = np.argsort(-ensemble["logits"], axis=1, kind="stable")[:, :NUM_LABELS]
    rows = dict(zip(ensemble["ids"].tolist(), best, strict=True))
    order = submission_order(dataset.path) if dataset.source == "fsdkaggle2018" else sorted(rows)
    if set(order) != set(rows):
        raise UserError(f"The test clips predicted and those of the sample submission in {dataset.path} differ.")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows((clip, " ".join(_spelled(classes[k]) for k in rows[clip])) for clip in order)

    def write(file: BinaryIO) -> None:
        file.write(text.getvalue().encode())
        file.flush()
        check_submission(Path(file.name), classes, order)  # what is wrong is never put in place

    write_atomic(path, write)


def check_submission(path: Path, classes: Sequence[str], order: Sequence[str]) -> None:
    """Reads a submission as the challenge would, and raises UserError, naming the row, where it would not do.

    It needs the header, the ids of `order` in that order, and in each row three different labels of `classes` (all
    of them where there are fewer), blanks in labels as underscores, separated by single spaces.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a submission: {error}.") from error
    header, rows = ",".join(rows[0] if rows else ()), rows[1:]
    if header != ",".join(HEADER):
        raise UserError(f"{path} begins with {header!r}; a submission begins with {','.join(HEADER)!r}.")
    if len(rows) != len(order):
        raise UserError(f"{path} has {len(rows)} rows below the header; the sample submission has {len(order)}.")
    known, num_labels = {_spelled(name) for name in classes}, min(NUM_LABELS, len(classes))
    for number, (row, clip) in enumerate(zip(rows, order, strict=True), start=2):
        if len(row) != len(HEADER) or row[0] != clip:
            raise UserError(
                f"{path}, row {number}: {','.join(row)!r}; a row of clip {clip!r} and its labels belongs here."
            )
        labels = row[1].split(" ")
        if not set(labels) <= known:
            raise UserError(f"{path}, row {number}: unknown label {next(x for x in labels if x not in known)!r}.")
        if len(labels) != num_labels or len(set(labels)) < num_labels:
            raise UserError(f"{path}, row {number}: {row[1]!r}; {num_labels} different labels are needed.")


def _spelled(name: str) -> str:
    """A class as submissions spell it."""
    return name.replace(" ", "_")
