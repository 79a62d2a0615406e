"""Reads CSV tables strictly: any fault raises an error that names it."""

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from audiotag_jax.runtime.errors import UserError

_FLAGS = {"1": True, "true": True, "0": False, "false": False}


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Returns the rows of a UTF-8 CSV file (with or without byte-order mark), values stripped of surrounding blanks.

    Raises UserError if the file is missing, not UTF-8, not CSV, lacks one of `columns`, or has no rows.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            header = [(column or "").strip() for column in reader.fieldnames or []]
            _check_characters(path, 1, header)
            _check_header(path, header, columns)
            reader.fieldnames = header
            rows = [_row(path, reader.line_num, row) for row in reader if not _is_blank(row)]
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error.reason}); save the table as UTF-8 CSV.") from error
    except csv.Error as error:
        raise UserError(f"{path} is not a valid CSV table ({error}); look for an unmatched quote.") from error
    except OSError as error:
        raise UserError(f"Cannot read the table {path}: {error.strerror or error}.") from error
    if not rows:
        raise UserError(f"{path}: empty table, no rows below the header.")
    return rows


def parse_flag(text: str, path: Path, column: str, clip_id: str) -> bool:
    """Returns True for 1 or true, False for 0 or false, in any case; raises UserError for anything else."""
    if text.lower() not in _FLAGS:
        raise UserError(f"{path}: clip '{clip_id}' has {column} '{text}'; choose from {', '.join(_FLAGS)}.")
    return _FLAGS[text.lower()]


def parse_fold(text: str, path: Path, clip_id: str) -> str:
    """Returns the name of a fold: a whole number, also as spreadsheets write it (2.0), or any other text.

    Raises UserError for an empty name, a negative number, a fraction and NaN.
    """
    try:
        number = float(text) if "_" not in text else None  # Python reads 1_2 as 12
    except ValueError:
        number = None
    if not text:
        raise UserError(f"{path}: clip '{clip_id}' has fold ''; a training row needs the number or name of one.")
    if number is None:
        return text
    if text.isascii() and text.isdecimal():
        return str(int(text))  # exact, also beyond the whole numbers of float
    if not math.isfinite(number) or number != int(number):
        raise UserError(f"{path}: clip '{clip_id}' has fold '{text}'; a whole number or a name is needed.")
    if number < 0:
        raise UserError(f"{path}: fold {text} in a training row; folds are numbered from 0 or 1, or have names.")
    return str(int(number))


def _check_header(path: Path, header: list[str], columns: Sequence[str]) -> None:
    missing = [column for column in columns if column not in header]
    if missing:
        separators = (each for each in (";", "\t", "|") if {*columns} <= {*",".join(header).split(each)})
        separator = next(separators, "")
        hint = f"The columns seem to be separated by {separator!r}; separate them by commas." if separator else ""
        raise UserError(
            f"{path} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)} "
            f"(found: {', '.join(header) or 'none'}).\n"
            + (hint or f"Expected a comma-separated header with {', '.join(columns)}.")
        )
    repeated = sorted({column for column in header if column and header.count(column) > 1})
    if repeated:
        raise UserError(f"{path} has the column {repeated[0]} more than once.")


def _is_blank(row: dict) -> bool:
    """Returns whether a row has no values: a blank line, or the commas of a spreadsheet's empty row."""
    cells = (cell for value in row.values() for cell in (value if isinstance(value, list) else [value]))
    return not any(cell and cell.strip() for cell in cells)


def _check_characters(path: Path, line: int, cells: Iterable[str | None]) -> None:
    if any("\0" in (cell or "") for cell in cells):
        raise UserError(f"{path}, line {line}: a NUL character; the file is damaged, or not UTF-8 text.")


def _row(path: Path, line: int, row: dict) -> dict[str, str]:
    extra = row.pop(None, [])
    _check_characters(path, line, [*row.values(), *extra])
    if any(cell.strip() for cell in extra) or None in row.values():
        values = sum(value is not None for value in row.values()) + len(extra)
        given = f"{values} value{'s' * (values != 1)}"
        hint = " (a value with a comma needs quotes)" if extra else ""
        raise UserError(f"{path}, line {line}: the row has {given}, the header {len(row)} columns{hint}.")
    return {column: value.strip() for column, value in row.items()}
