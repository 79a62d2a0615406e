"""Trees of arrays as tables of plain text: shape, type, mean, standard deviation, and what is not finite."""

import dataclasses
import textwrap
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

NUM_COLUMNS = 120  # of the text, where names allow
MAX_NAMES = 5  # of arrays with NaN or Inf in one line


@dataclasses.dataclass(frozen=True)
class ArrayRow:
    """One array; mean and (population) standard deviation are of its finite values, NaN if there are none."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    group: str
    mean: float
    std: float
    num_bad: int  # values that are NaN or infinite

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))


def describe_arrays(tree: Any, groups: Any = None) -> list[ArrayRow]:
    """Returns a row for each array of a tree, named by its path; `groups` is a tree of labels of the same structure."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    labels = [""] * len(leaves) if groups is None else jax.tree.leaves(groups)
    return [
        _describe_array(jax.tree_util.keystr(path, simple=True, separator="/"), np.asarray(leaf), label)
        for (path, leaf), label in zip(leaves, labels, strict=True)
    ]


def _describe_array(name: str, array: np.ndarray, group: str) -> ArrayRow:
    values = array.astype(np.float64)
    finite = values[np.isfinite(values)]
    mean, std = (finite.mean(), finite.std()) if finite.size else (np.nan, np.nan)
    return ArrayRow(name, array.shape, str(array.dtype), group, float(mean), float(std), values.size - finite.size)


def format_arrays(rows: Sequence[ArrayRow]) -> list[str]:
    """Returns the lines of a table, one an array; the group's column is left out where no row has one."""
    has_groups = any(row.group for row in rows)
    cells = [["name", "shape", "dtype", *(["group"] if has_groups else []), "mean", "std", "NaN/Inf"]]
    for row in rows:
        left = [row.name, str(row.shape), row.dtype, *([row.group] if has_groups else [])]
        cells.append([*left, f"{row.mean:.4g}", f"{row.std:.4g}", f"{row.num_bad:,}"])
    flags = ["", *("  <--" if row.num_bad else "" for row in rows)]
    return [line + flag for line, flag in zip(_align(cells, num_left=3 + has_groups), flags, strict=True)]


def format_totals(rows: Sequence[ArrayRow]) -> list[str]:
    """Returns the lines of a table of arrays, values and NaN or Inf by group, and over all."""
    cells = [["group", "arrays", "values", "NaN/Inf"]]
    for group in [*sorted({row.group for row in rows}), "total"]:
        own = [row for row in rows if group in ("total", row.group)]
        num_bad = sum(row.num_bad for row in own)
        cells.append([group, str(len(own)), f"{sum(row.size for row in own):,}", f"{num_bad:,}"])
    return _align(cells, num_left=1)


def format_verdict(title: str, rows_by_item: dict[str, Sequence[ArrayRow]]) -> list[str]:
    """Describes, wrapped, how many values each part of a state has, and that all are finite or which arrays are not."""
    sizes = {item: sum(row.size for row in rows) for item, rows in rows_by_item.items()}
    parts = [f"{sizes.pop('params', 0):,} parameters", *(f"{size:,} in {item}" for item, size in sizes.items())]
    bad = [(f"{item}/{row.name}", row.num_bad) for item, rows in rows_by_item.items() for row in rows if row.num_bad]
    verdict = "all finite"
    if bad:
        more = f" and {len(bad) - MAX_NAMES} more arrays" if len(bad) > MAX_NAMES else ""
        names = ", ".join(name for name, _ in bad[:MAX_NAMES])
        verdict = f"<-- NaN or Inf: {sum(count for _, count in bad):,}, in {names}{more}"
    text = f"{title}: {', '.join(parts)}; {verdict}"
    return textwrap.wrap(text, NUM_COLUMNS, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _align(cells: Sequence[Sequence[str]], num_left: int) -> list[str]:
    """Returns lines of cells in columns, the first `num_left` of them flush left, the others right."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rows = [
        [
            f"{cell:<{w}}" if i < num_left else f"{cell:>{w}}"
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        for row in cells
    ]
    return ["  ".join(row).rstrip() for row in rows]
