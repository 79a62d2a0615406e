"""The challenge's submission: three labels for every test clip."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from audiotag_jax.evaluation.predictions import Predictions
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
    """CSV with a row for each id of `order`, the label column holding the three likeliest labels separated by spaces.

    Raises UserError if the ids of `predictions` and `order` differ.
    """
    best = np.argsort(-predictions["logits"], axis=1, kind="stable")[:, :NUM_LABELS]
    rows = dict(zip(predictions["ids"].tolist(), best, strict=True))
    if set(order) != set(rows):
        raise UserError("The test clips predicted and those of the sample submission differ.")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows((clip, " ".join(_spelled(classes[k]) for k in rows[clip])) for clip in order)
    return text.getvalue()


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
