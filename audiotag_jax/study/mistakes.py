"""Which clips a report looks at closely, and errors by class: from logits, the same every time."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from audiotag_jax.evaluation import metrics
from audiotag_jax.evaluation.foreign import names_of
from audiotag_jax.evaluation.metrics import hits, label_ranks, top3_errors
from audiotag_jax.evaluation.task import SINGLE_LABEL, Task
from audiotag_jax.study.results import Clips, Results


@dataclasses.dataclass(frozen=True)
class ScoredPredictions:
    """The scored clips of one part of the data, and what each variant answers for them.

    `part` is "test" or "held out". `networks[variant]` [R, n, K] probabilities by seed, and by fold for test clips;
    ask for one variant after the other, since only the last one may be in memory. `kept` are rows of single clips.
    """

    part: str
    classes: tuple[str, ...]
    clips: Clips
    networks: Mapping[str, np.ndarray]
    kept: dict[tuple[str, int], np.ndarray] = dataclasses.field(default_factory=dict)

    def mean(self, variant: str) -> np.ndarray:
        """Returns probabilities [n, K], averaged over the variant's networks."""
        return self.networks[variant].mean(axis=0)

    def keep(self, indices: Sequence[int]) -> None:
        """Keeps each variant's mean probabilities of some clips, for `row`."""
        for variant in self.networks:
            mean = self.mean(variant)
            self.kept.update({(variant, index): mean[index].copy() for index in indices})

    def row(self, variant: str, index: int) -> np.ndarray:
        """Returns the probabilities [K] of one clip, averaged over the variant's networks."""
        return self.kept[variant, index] if (variant, index) in self.kept else self.mean(variant)[index]

    def label_text(self, index: int) -> str:
        """Returns the label of a clip; several with semicolons between them."""
        [label] = names_of(self.clips.labels[[index]], self.classes)
        return "; ".join(label) or "none of the classes" if isinstance(label, tuple) else str(label)


class _Probabilities(Mapping[str, np.ndarray]):
    """Probabilities [R, n, K] by variant, of the clips under a mask; only those asked for last are in memory."""

    def __init__(self, results: Results, test: bool, chosen: np.ndarray):
        self._results, self._test, self._chosen = results, test, chosen
        self._last: tuple[str, np.ndarray] | None = None

    def __getitem__(self, variant: str) -> np.ndarray:
        if variant not in list(self):
            raise KeyError(variant)
        if self._last is None or self._last[0] != variant:
            self._last = None  # before the next are read
            logits = self._results[variant].by_fold(self._test)
            logits = logits.reshape(-1, *logits.shape[2:])[:, self._chosen]
            self._last = variant, self._results.task.probabilities(logits)
        return self._last[1]

    def __iter__(self) -> Iterator[str]:
        return (each.variant for each in self._results.variants)

    def __len__(self) -> int:
        return len(self._results.variants)


@dataclasses.dataclass(frozen=True)
class Mistake:
    """A clip whose most probable class is not its label: `index` among the clips, `rank` from 0 among the mistakes."""

    variant: str
    index: int
    rank: int


def scored_predictions(results: Results, *, test: bool | None = None) -> ScoredPredictions:
    """Returns predictions on clips with a label: test clips if any, else held-out clips, or as `test` decides."""
    on_test = results.test is not None and bool(results.test.scored.any()) if test is None else test
    clips = results.clips(on_test)
    scored = clips.scored
    kept = clips[scored]
    networks = _Probabilities(results, on_test, scored)
    return ScoredPredictions("test" if on_test else "held out", results.classes, kept, networks)


def confusion(given: ScoredPredictions, variant: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns each true class's shares predicted as each class, [K, K], over all networks, and its clips [K].

    NaN in the rows of classes without clips.
    """
    num = len(given.classes)
    predicted = given.networks[variant].argmax(axis=-1)  # [R, n]
    counts = np.zeros((num, num))
    np.add.at(counts, (np.broadcast_to(given.clips.labels, predicted.shape), predicted), 1.0)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.full_like(counts, np.nan), where=totals > 0)
    return shares, np.bincount(given.clips.labels, minlength=num)


def most_confused(shares: np.ndarray, at_most: int) -> list[tuple[int, int, float]]:
    """Returns (true, predicted, share) off the diagonal of [K, K], the most frequent first."""
    pairs = [(t, p, float(shares[t, p])) for t, p in np.argwhere(np.nan_to_num(shares) > 0).tolist() if t != p]
    return sorted(pairs, key=lambda pair: (-pair[2], pair[0], pair[1]))[:at_most]


def errors_by_class(given: ScoredPredictions, variant: str) -> dict[str, np.ndarray]:
    """Returns the share [K] of each class's clips missed by the `first` tag and by the `top3`; NaN without clips."""
    labels = given.clips.labels
    ranks = np.stack([label_ranks(probabilities, labels) for probabilities in given.networks[variant]])
    missed = {"first": 1.0 - hits(ranks), "top3": top3_errors(ranks)}
    classes = range(len(given.classes))
    return {
        name: np.array([values[:, labels == k].mean() if np.any(labels == k) else np.nan for k in classes])
        for name, values in missed.items()
    }


def confident_mistakes(given: ScoredPredictions, variant: str, at_most: int) -> list[Mistake]:
    """Returns the mistakes of the variant's mean probabilities, the most confident first; ties by clip id."""
    probabilities = given.mean(variant)
    predicted = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != given.clips.labels)
    order = np.lexsort((given.clips.ids[wrong], -probabilities[wrong, predicted[wrong]]))
    return [Mistake(variant, int(index), rank) for rank, index in enumerate(wrong[order][:at_most])]


def disputed_clips(given: ScoredPredictions, at_most: int) -> list[int]:
    """Returns indices of the clips whose label's probability differs most by variant, one a class; ties by clip id."""
    labels = given.clips.labels
    own = np.stack([given.mean(variant)[np.arange(len(labels)), labels] for variant in given.networks])
    chosen: list[int] = []
    for index in np.lexsort((given.clips.ids, -own.std(axis=0).round(12))).tolist():
        if len(chosen) < at_most and labels[index] not in labels[chosen]:
            chosen.append(index)
    return chosen


def extremes(rows: Sequence[dict], part: str, baseline: str, task: Task = SINGLE_LABEL) -> list[str]:
    """Returns the baseline and the single variants of least and of greatest first metric on all clips of the part."""
    metric = metrics.metrics_of(task)[0].name
    scored = {
        row["name"]: row["scores"][metric]["value"]
        for row in rows
        if (row["kind"], row["part"], row["clips"]) == ("single", part, "all")
    }
    known = {name: value for name, value in scored.items() if value is not None}
    best_and_worst = [extreme(known, key=lambda name: known[name]) for extreme in (min, max)] if known else []
    return list(dict.fromkeys([baseline, *best_and_worst]))
