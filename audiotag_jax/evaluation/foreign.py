"""Predictions and labels made elsewhere: NPZ and CSV files, checked as they are read."""

import csv
import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from audiotag_jax.runtime.errors import NPZ_ERRORS, UserError

SCORES = ("logits", "probabilities")
Label = str | tuple[str, ...]  # a class, or any number of them
_TINY = np.finfo(np.float64).tiny
_NOT_SEVERAL = "is listed twice; every clip needs one row"


@dataclasses.dataclass(frozen=True)
class ForeignPredictions:
    """Logits `[n, K]` float64 of n clips by id, of K classes; the rest is None where the file has none of it.

    `labels` [n] are classes by name, "" for none, or, where clips have any number of labels, tuples of names, None for
    none known; `verified` [n] bool, `folds` [n] int, `recordings` [n] str. `is_probability`: the logits are logarithms
    of probabilities that the file has.
    """

    ids: np.ndarray
    classes: tuple[str, ...]
    logits: np.ndarray
    labels: np.ndarray | None = None
    verified: np.ndarray | None = None
    folds: np.ndarray | None = None
    recordings: np.ndarray | None = None
    is_probability: bool = False


@dataclasses.dataclass(frozen=True)
class Labels:
    """A table of labels by clip id, of recordings by id, and of folds and verified flags where it has such columns."""

    labels: dict[str, str]
    recordings: dict[str, str]
    folds: dict[str, int]
    verified: dict[str, bool]


def read_foreign(path: Path) -> ForeignPredictions:
    """Reads predictions of an `.npz` or `.csv` file as docs/comparing.md describes; raises UserError on bad ones."""
    if path.suffix.lower() not in (".npz", ".csv"):
        raise UserError(f"{path}: predictions are .npz or .csv files.")
    found = _read_npz(path) if path.suffix.lower() == ".npz" else _read_csv(path)
    _check(path, found)
    return found


def read_labels(path: Path) -> Labels:
    """Reads a CSV file: ids in the first column, `label`, maybe `recording`, `fold`, `verified`; raises UserError."""
    header, rows = _rows(path)
    if "label" not in header[1:]:
        raise UserError(f"{path} has no column label; its columns are {', '.join(header)}.")
    columns = {name: [row[header.index(name)].strip() for row in rows] for name in header[1:]}
    ids = [row[0] for row in rows]
    _check_ids(path, ids)
    given = {name: dict(zip(ids, columns[name], strict=True)) for name in header[1:]}
    try:
        folds = {clip: int(fold) for clip, fold in given.get("fold", {}).items() if fold}
    except ValueError as error:
        raise UserError(f"{path}: column fold needs whole numbers ({error}).") from error
    verified = {clip: value.lower() in ("1", "true", "yes") for clip, value in given.get("verified", {}).items()}
    return Labels(given["label"], given.get("recording", {}), folds, verified)


def _read_npz(path: Path) -> ForeignPredictions:
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
    except (*NPZ_ERRORS, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not an NPZ file of plain arrays ({_reason(error)}).") from error
    kinds = [name for name in SCORES if name in arrays]
    if lacking := [name for name in ("ids", "classes") if name not in arrays]:
        hint = "; give the work directory of a run by --runs" if {"ids", "logits"} <= arrays.keys() else ""
        raise UserError(f"{path} has no array {lacking[0]}{hint}.")
    if len(kinds) != 1:
        raise UserError(f"{path} needs either logits or probabilities; it has {' and '.join(kinds) or 'neither'}.")
    ids, classes = _text(arrays["ids"]), tuple(_text(arrays["classes"]).ravel().tolist())
    values = arrays[kinds[0]]
    if ids.ndim != 1 or values.shape != (len(ids), len(classes)) or values.dtype.kind not in "fiu":
        raise UserError(
            f"{path}: {kinds[0]} is {values.dtype} {list(values.shape)}; numbers of {list(ids.shape)} ids and "
            f"{len(classes)} classes were expected."
        )
    more: dict[str, Any] = {
        name: arrays[name] for name in ("labels", "verified", "folds", "recordings") if name in arrays
    }
    for name, array in more.items():
        if array.shape != ids.shape and not (name == "labels" and array.shape == values.shape):
            raise UserError(f"{path}: {name} has shape {list(array.shape)}; one for each of {len(ids)} ids is needed.")
    for name, kinds_allowed, wanted in (("folds", "iu", "whole numbers, -1 for none"), ("verified", "biu", "1 and 0")):
        if name not in more:
            continue
        more[name] = _whole(more[name])
        if more[name].dtype.kind not in kinds_allowed:
            raise UserError(f"{path}: {name} are {more[name].dtype}; {wanted} are needed.")
    if "labels" in more:
        more["labels"] = _label_names(path, more["labels"], classes)
    if "recordings" in more:
        more["recordings"] = _text(more["recordings"])
    scores = values.astype(np.float64)
    more["is_probability"] = kinds[0] == "probabilities"
    if more["is_probability"]:
        if np.any(scores < 0) or np.any(scores > 1):
            raise UserError(f"{path}: probabilities must be 0 to 1; name unnormalized scores logits.")
        scores = np.log(np.maximum(scores, _TINY))
    return ForeignPredictions(ids, classes, scores, **more)


def _whole(numbers: np.ndarray) -> np.ndarray:
    """Returns floats that are all whole, as arrays of pandas and MATLAB are, as integers; others as they are."""
    is_whole = numbers.dtype.kind == "f" and ((numbers == np.round(numbers)) & (np.abs(numbers) < 2**53)).all()
    return numbers.astype(np.int64) if is_whole else numbers


def _label_names(path: Path, labels: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Returns labels as names, from names or numbers of classes, -1 for none; [n, K] of 1, 0, -1 as tuples."""
    if labels.ndim == 2:
        if labels.dtype.kind not in "iub" or (labels.size and not -1 <= labels.min() <= labels.max() <= 1):
            raise UserError(f"{path}: labels of several classes a clip must be 1, 0, or -1 where they are not known.")
        names = np.empty(len(labels), object)
        for row, name in enumerate(names_of(labels.astype(np.int8), classes)):
            names[row] = name
        return names
    labels = _whole(labels)
    if labels.dtype.kind not in "iuf":
        return _text(labels)
    if labels.dtype.kind == "f" or len(labels) and not (labels.min() >= -1 and labels.max() < len(classes)):
        raise UserError(f"{path}: labels must be numbers of its {len(classes)} classes, from 0, or -1.")
    return np.array([*classes, ""])[labels]


def _read_csv(path: Path) -> ForeignPredictions:
    header, rows = _rows(path)
    values = np.empty((len(rows), len(header) - 1))
    for number, row in enumerate(rows):
        for place, cell in enumerate(row[1:]):
            try:
                values[number, place] = float(cell)
            except ValueError as error:
                raise UserError(
                    f"{path}: clip {row[0]!r}, class {header[1 + place]!r}: {cell!r} is no number."
                ) from error
    if is_probability := bool(((values >= 0) & (values <= 1)).all()):  # their logarithms are logits
        values = np.log(np.maximum(values, _TINY))
    ids = np.array([row[0] for row in rows], str)
    return ForeignPredictions(ids, tuple(header[1:]), values, is_probability=is_probability)


def names_of(labels: np.ndarray, classes: Sequence[str]) -> list[Label | None]:
    """Returns labels `[n]` as names of classes, `[n, K]` as tuples of names; None where they are not known."""
    if np.ndim(labels) == 1:
        return [None if label < 0 else classes[label] for label in labels.tolist()]
    return [None if row.min() < 0 else tuple(classes[k] for k in np.flatnonzero(row).tolist()) for row in labels]


def _rows(path: Path) -> tuple[list[str], list[list[str]]]:
    """Reads the header and the rows of a CSV file, all as long as the header; else raises UserError."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file, strict=True) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a CSV file that can be read ({_reason(error)}).") from error
    if len(rows) < 2 or len(rows[0]) < 2:
        raise UserError(f"{path} needs a header and rows, an id in the first column.")
    header = [name.strip() for name in rows[0]]
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise UserError(f"{path}, row {number}: {len(row)} cells; the header has {len(header)}.")
    return header, rows[1:]


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]


def _check(path: Path, found: ForeignPredictions) -> None:
    """Raises UserError for repeated ids or classes, and for scores that are not finite."""
    _check_ids(path, found.ids.tolist())
    repeated = [name for name, count in Counter(found.classes).items() if count > 1]
    if repeated:
        raise UserError(f"{path}: class {repeated[0]!r} is listed twice.")
    if len(found.classes) < 2:
        raise UserError(f"{path} has {len(found.classes)} class; two or more are needed.")
    bad = np.flatnonzero(~np.isfinite(found.logits).all(axis=1))
    if len(bad):
        raise UserError(f"{path}: {len(bad)} clips have NaN or infinite scores, such as {str(found.ids[bad[0]])!r}.")


def _check_ids(path: Path, ids: Sequence[str]) -> None:
    repeated = [clip for clip, count in Counter(ids).items() if count > 1]
    if repeated:
        raise UserError(f"{path}: clip {repeated[0]!r} {_NOT_SEVERAL}.")
    if not ids:
        raise UserError(f"{path} has no clips.")


def _text(values: np.ndarray) -> np.ndarray:
    """Returns an array of strings, of one of strings, bytes or numbers."""
    return np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values.astype(str)
