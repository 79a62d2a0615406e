"""Submissions: three labels for every test clip, or, where a clip has several labels, a probability for each class."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from audiotag_jax.evaluation.predictions import Predictions
from audiotag_jax.evaluation.task import MULTI_LABEL, task_of
from audiotag_jax.runtime.errors import UserError

HEADER = ("fname", "label")
NUM_LABELS = 3  # in a row


def check_classes(classes: Sequence[str]) -> None:
    """Raises UserError, naming them, if two classes are spelled alike in a submission, where blanks are underscores."""
    spelled: dict[str, str] = {}
    for name in classes:
        other = spelled.setdefault(_spelled(name), name)
        if other != name:
            raise UserError(
                f"The labels {other!r} and {name!r} are the same in a submission, which spells blanks as underscores.\n"
                "Rename one of them, or leave the test clips out."
            )


def format_submission(predictions: Predictions, classes: Sequence[str], order: Sequence[str]) -> str:
    """Formats CSV with a row for each id of `order`; the label column has the three likeliest labels, space-separated.

    Where clips have any number of labels, a column for each class has its probability, as FSDKaggle2019 asks. Raises
    UserError if the ids of `predictions` and `order` differ.
    """
    if task_of(predictions["labels"]) is MULTI_LABEL:
        probabilities = MULTI_LABEL.probabilities(predictions["logits"])
        cells = [[f"{value:.6g}" for value in row] for row in probabilities.tolist()]
        header = (HEADER[0], *classes)
    else:
        best = np.argsort(-predictions["logits"], axis=1, kind="stable")[:, :NUM_LABELS]
        cells = [[" ".join(_spelled(classes[k]) for k in row)] for row in best]
        header = HEADER
    rows = dict(zip(predictions["ids"].tolist(), cells, strict=True))
    if set(order) != set(rows):
        raise UserError("The test clips predicted and those of the sample submission differ.")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows((clip, *rows[clip]) for clip in order)
    return text.getvalue()


def check_submission(
    path: Path, classes: Sequence[str], order: Sequence[str], *, has_several_labels: bool = False
) -> None:
    """Reads a submission as the challenge would, and raises UserError, naming the row, where it would not do.

    It needs the header, the ids of `order` in that order, and in each row three different labels of `classes` (all
    of them where there are fewer), blanks in labels as underscores, separated by single spaces; where clips have
    several labels, a number from 0 to 1 for each class.
    """
    wanted = (HEADER[0], *classes) if has_several_labels else HEADER
    rows = _read_rows(path, wanted, order)
    if has_several_labels:
        _check_probabilities(path, rows, order, wanted)
        return
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


def _read_rows(path: Path, wanted: Sequence[str], order: Sequence[str]) -> list[list[str]]:
    """Reads the rows below the header `wanted`, as many as `order` has; else raises UserError."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a submission: {error}.") from error
    header, rows = ",".join(rows[0] if rows else ()), rows[1:]
    if header != ",".join(wanted):
        raise UserError(f"{path} begins with {header!r}; a submission begins with {','.join(wanted)!r}.")
    if len(rows) != len(order):
        raise UserError(f"{path} has {len(rows)} rows below the header; the sample submission has {len(order)}.")
    return rows


def _check_probabilities(path: Path, rows: list[list[str]], order: Sequence[str], header: Sequence[str]) -> None:
    for number, (row, clip) in enumerate(zip(rows, order, strict=True), start=2):
        if len(row) != len(header) or row[0] != clip:
            raise UserError(f"{path}, row {number}: a row of clip {clip!r} and {len(header) - 1} numbers belongs here.")
        try:
            bad = next((cell for cell in row[1:] if not 0 <= float(cell) <= 1), None)
        except ValueError as error:
            raise UserError(f"{path}, row {number}: {error}; numbers from 0 to 1 are needed.") from error
        if bad is not None:
            raise UserError(f"{path}, row {number}: {bad}; numbers from 0 to 1 are needed.")


def _spelled(name: str) -> str:
    """Returns a class as submissions spell it."""
    return name.replace(" ", "_")
