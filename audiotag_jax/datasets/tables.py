"""Reads CSV tables strictly: any fault raises an error that names it."""

import csv
from collections.abc import Sequence
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
            _check_header(path, header, columns)
            reader.fieldnames = header
            rows = [_row(path, reader.line_num, row) for row in reader]
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


def parse_int(text: str, path: Path, column: str, clip_id: str) -> int:
    """Returns a whole number, also as spreadsheets write it (2.0); raises UserError for anything else."""
    try:
        number = float(text)
        if number == int(number):
            return int(number)
    except (ValueError, OverflowError):
        pass
    raise UserError(f"{path}: clip '{clip_id}' has {column} '{text}'; a whole number is needed.")


def _check_header(path: Path, header: list[str], columns: Sequence[str]) -> None:
    missing = [column for column in columns if column not in header]
    if missing:
        raise UserError(
            f"{path} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)} "
            f"(found: {', '.join(header) or 'none'}).\nExpected a comma-separated header with {', '.join(columns)}."
        )
    repeated = sorted({column for column in header if column and header.count(column) > 1})
    if repeated:
        raise UserError(f"{path} has the column {repeated[0]} more than once.")


def _row(path: Path, line: int, row: dict) -> dict[str, str]:
    if None in row or None in row.values():
        raise UserError(f"{path}, line {line}: the row has more or fewer values than the header has columns.")
    return {column: value.strip() for column, value in row.items()}
