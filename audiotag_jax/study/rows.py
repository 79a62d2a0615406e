"""Logits by clip that stay in their files until they are asked for."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np


class Rows(Mapping[str, np.ndarray]):
    """The rows of an array by clip id: `places` in what `read` returns, [n, K] or, of test clips, [n, J, K].

    `read` is called each time; `num_folds` is J.
    """

    def __init__(self, places: Mapping[str, int], read: Callable[[], np.ndarray], num_folds: int = 1):
        self.places, self.read, self.num_folds = places, read, num_folds

    def __getitem__(self, clip: str) -> np.ndarray:
        return self.read()[self.places[clip]]

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)

    def __contains__(self, clip: object) -> bool:
        return clip in self.places


NO_ROWS = Rows({}, lambda: np.zeros((0, 0)))


def number(ids: Sequence[str]) -> dict[str, int]:
    """Returns the place of each id in this order, from 0."""
    return dict(zip(ids, itertools.count()))  # noqa: B905, the second has no end


def take(table: Mapping[str, np.ndarray], ids: Sequence[str]) -> np.ndarray:
    """Returns the rows of clips, [n, …], stacked in this order."""
    if isinstance(table, Rows):
        return table.read()[[table.places[clip] for clip in ids]]
    return np.array([table[clip] for clip in ids])


def only(table: Mapping[str, np.ndarray], chosen: Callable[[str], bool], *, as_test: bool) -> Mapping[str, np.ndarray]:
    """Returns the rows of the chosen clips; `as_test` those of one fold, [n, 1, K] of [n, K]."""
    rows = table if isinstance(table, Rows) else Rows(number([*table]), lambda: take(table, [*table]))
    places = {clip: place for clip, place in rows.places.items() if chosen(clip)}
    return Rows(places, (lambda: rows.read()[:, None]) if as_test else rows.read)


def joined(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> Rows:
    """Returns the rows of both, which have no clip in common."""
    ids, others = [*first], [*second]
    return Rows(number([*ids, *others]), lambda: np.concatenate([take(first, ids), take(second, others)]))


def side_by_side(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> Rows:
    """Returns the rows of the same test clips [n, J, K] with the folds of both."""
    ids = [*first]
    folds = num_folds(first) + num_folds(second)
    return Rows(number(ids), lambda: np.concatenate([take(first, ids), take(second, ids)], axis=1), folds)


def num_folds(table: Mapping[str, np.ndarray]) -> int:
    """Returns J of rows [J, K]; 0 without rows."""
    if isinstance(table, Rows):
        return table.num_folds if table else 0
    return len(next(iter(table.values()))) if table else 0
