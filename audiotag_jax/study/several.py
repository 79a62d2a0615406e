"""The figures of a study on clips with any number of labels: one block of its table, and its classes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from audiotag_jax.evaluation import multilabel
from audiotag_jax.evaluation.paired import Comparison, bootstrap_difference, swap_test
from audiotag_jax.study.ensembles import Entry, common_answers

Scores = dict[str, np.ndarray]
P_VALUES = ("p_bootstrap", "p_swap")


class Block:
    """One choice of clips: the scores of every row, of all clips and of every resample.

    `truth` [n, K] bool, `groups` [n] the recordings from 0; rows are those of `ensembles.entries` on these clips.
    """

    def __init__(self, rows: Sequence[Entry], truth: np.ndarray, groups: np.ndarray, number: int, seed: int):
        self.rows, self.truth, self.groups = {row.name: row for row in rows}, truth, groups
        self.num_groups = int(groups.max()) + 1
        drawn = multilabel.resamples(groups, truth.size, seed, number)
        self.seen, self.drawn = {}, {}
        for row in rows:
            logits = row.logits  # read for this row, and let go
            self.seen[row.name] = _of_networks(logits, truth, np.ones((1, len(truth))))
            self.drawn[row.name] = _mean(_of_networks(logits, truth, drawn))

    def scores(self, name: str) -> dict[str, dict]:
        """Returns `{METRIC: {"value", "low", "high"}}` of a row, the mean over its networks."""
        values = _mean(self.seen[name])
        return {each: self._entry(values[each][0], self.drawn[name][each]) for each in multilabel.METRICS}

    def by_seed(self, name: str) -> dict[str, list[float | None]]:
        """Returns by metric a value for each seed, the mean over its networks; None where it is not defined."""
        means = {each: self.seen[name][each].mean(axis=1)[:, 0].tolist() for each in multilabel.METRICS}
        return {each: [_defined(value) for value in values] for each, values in means.items()}

    def by_part(self, name: str, masks: Sequence[np.ndarray]) -> dict[str, list[float | None]]:
        """Returns by metric a value for each of some choices of clips [n]; None where it is not defined."""
        found: dict[str, list[float | None]] = {each: [] for each in multilabel.METRICS}
        logits = self.rows[name].logits
        for mask in masks:
            part = self.truth[mask]
            values = _mean(_of_networks(logits[:, :, mask], part, np.ones((1, len(part)))))
            for each in multilabel.METRICS:
                found[each].append(_defined(float(values[each][0])) if len(part) else None)
        return found

    def by_class(self, name: str, classes: Sequence[str]) -> list[dict]:
        """Returns each class's number of positive clips, average precision and ROC AUC with limits."""
        values = _mean(self.seen[name])
        return [
            {"class": each, "num_positive": int(self.truth[:, k].sum())}
            | {
                score: self._entry(values[score][0, k], self.drawn[name][score][:, k])
                for score in multilabel.CLASS_METRICS
            }
            for k, each in enumerate(classes)
        ]

    def differences(self, name: str, baseline: str, pair: tuple[np.ndarray, np.ndarray] | None) -> dict[str, Any]:
        """Returns by metric, and by class score in a list, the difference of two rows with limits and p values.

        `pair` are the logits [n, K] of one network of each, of which predictions are swapped; None: no such test.
        """
        first, second = (_mean(self.seen[each]) for each in (name, baseline))
        swapped = swap_test(*pair, self.truth, self.groups) if pair else {}
        found: dict[str, Any] = {}
        for score in (*multilabel.METRICS, *multilabel.CLASS_METRICS):
            drawn = self.drawn[name][score], self.drawn[baseline][score]
            of_all = bootstrap_difference(*drawn, first[score][0] - second[score][0])
            p_swap = swapped.get(score)
            if score in multilabel.METRICS:
                found[score] = self._difference(of_all, drawn[0] - drawn[1], p_swap)
            else:
                found[score] = [
                    self._difference(
                        Comparison(*(part[k] for part in of_all)),
                        drawn[0][:, k] - drawn[1][:, k],
                        None if p_swap is None else p_swap[k],
                    )
                    for k in range(self.truth.shape[1])
                ]
        return found

    def _difference(self, found: Comparison, drawn: np.ndarray, p_swap: np.ndarray | None) -> dict:
        entry: dict[str, Any] = multilabel.interval_entry(float(found.value), drawn, self.num_groups, -1.0)
        p_values = (found.p, p_swap)
        entry |= {"standard_error": float(found.standard_error)}
        return entry | {
            key: None if p is None or np.isnan(p) else float(p) for key, p in zip(P_VALUES, p_values, strict=True)
        }

    def _entry(self, value: np.ndarray, drawn: np.ndarray) -> dict:
        return multilabel.interval_entry(float(value), drawn, self.num_groups)


def _defined(value: float) -> float | None:
    return value if np.isfinite(value) else None


def pair_of(rows: Mapping[tuple, Entry], variant: str, baseline: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns one answer a clip [n, K] of each of two variants: those of `common_answers`; None without one."""
    found = common_answers(rows, variant, baseline)
    if found is None:
        return None
    a, b = (row.logits[place, 0] for row, place in found)
    return a, b


def _of_networks(logits: np.ndarray, truth: np.ndarray, counts: np.ndarray) -> Scores:
    """Computes scores [S, J, R] or [S, J, R, K] of logits [S, J, n, K]."""
    found = [[multilabel.scores(network, truth, counts) for network in of_seed] for of_seed in logits]
    return {name: np.array([[each[name] for each in of_seed] for of_seed in found]) for name in found[0][0]}


def _mean(scores: Scores) -> Scores:
    """Returns the mean over networks: [R] of [S, J, R], [R, K] of [S, J, R, K]."""
    return {name: values.mean(axis=(0, 1)) for name, values in scores.items()}
