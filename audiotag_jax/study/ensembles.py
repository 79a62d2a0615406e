"""The rows of the study's table: networks one by one, and averages of seeds, of folds and of variants."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from audiotag_jax.evaluation.metrics import label_ranks
from audiotag_jax.evaluation.task import MULTI_LABEL, Task
from audiotag_jax.study.results import Clips, Results, VariantLogits

STANDARD = ("linear_linear", "linear_db", "log_linear", "log_db", "mel_linear", "mel_db")
KINDS = ("single", "seeds", "folds", "variants")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One row: `ranks` [S, J, n] int, the place of each clip's label, from 0, by seed and by network of that seed.

    S is 1 where seeds (or variants, of one seed) are averaged; J is 1 on held-out clips and where folds are averaged.
    Where clips have several labels there are no ranks but `logits` [S, J, n, K], or what else orders the classes; they
    are read each time.
    """

    name: str
    kind: str
    variants: tuple[str, ...]
    seeds: tuple[int, ...]
    ranks: np.ndarray
    read: Callable[[], np.ndarray] | None = None

    @property
    def logits(self) -> np.ndarray:
        return np.zeros(0) if self.read is None else self.read()

    def of(self, chosen: np.ndarray) -> "Entry":
        """Returns the row on the clips under a mask [n]."""
        if self.read is not None:
            return dataclasses.replace(self, read=lambda: self.logits[:, :, chosen])
        return dataclasses.replace(self, ranks=self.ranks[..., chosen])


def entries(results: Results, *, test: bool = False, averages: bool = True) -> tuple[Clips, list[Entry]]:
    """Returns the scored clips (held out or test: those with a label) and the rows over them, `single` ones first.

    `single`: every network by itself. `seeds`: the seeds' probabilities averaged, network by network. `folds` (test
    clips only): those of a seed's folds averaged, as in a submission. `variants`: those of several variants averaged,
    network by network, with the first seed common to them; on test clips also those with the folds averaged, as in a
    submission of several variants; none of them without `averages`. Probabilities are those of the task.
    """
    clips = results.clips(test)
    scored = clips.scored
    clips = clips[scored]
    rows, groups = [], {}  # of a group: its members, the first seed common to them, and the sum of their probabilities
    for name, members in _groups(results.variants).items() if averages else ():
        if seeds := sorted(set.intersection(*(set(member.seeds) for member in members))):
            groups[name] = (members, seeds[0], np.zeros(()))
    for variant in results.variants:  # one by one: all their probabilities are too many
        read = functools.partial(_scored, variant, test, scored)
        logits = read()
        rows.append(_entry(variant.variant, "single", (variant,), variant.seeds, logits, clips, read))
        probabilities = clips.task.probabilities(logits)
        rows += _own_averages(variant, probabilities, clips, read)
        for name, (members, seed, total) in groups.items():
            if any(variant is member for member in members):
                groups[name] = (members, seed, total + probabilities[[variant.seeds.index(seed)]])
        del logits, probabilities  # before the next are read
    for name, (members, seed, total) in groups.items():
        mean = total / len(members)
        rows.append(_entry(name, "variants", members, (seed,), mean, clips, functools.partial(np.asarray, mean)))
        if mean.shape[1] > 1:
            mean = mean.mean(1, keepdims=True)
            again = functools.partial(np.asarray, mean)
            rows.append(_entry(f"{name}, folds averaged", "variants", members, (seed,), mean, clips, again))
    return clips, sorted(rows, key=lambda row: KINDS.index(row.kind))


def common_answers(rows: Mapping[tuple, Entry], variant: str, baseline: str) -> list[tuple[Entry, int]] | None:
    """Returns the rows of two variants with one answer a clip, and in each the place of the first seed that both have.

    `rows` are by variants and kind; on test clips one answer is the average of the folds. None without such a seed.
    """
    pair = [rows.get(((name,), "folds"), rows[(name,), "single"]) for name in (variant, baseline)]
    common = set(pair[0].seeds) & set(pair[1].seeds)
    return [(row, row.seeds.index(min(common))) for row in pair] if common else None


def _scored(variant: VariantLogits, test: bool, chosen: np.ndarray) -> np.ndarray:
    """Returns the logits [S, J, n, K] of the clips under a mask."""
    return variant.by_fold(test)[:, :, chosen]


def _own_averages(
    variant: VariantLogits, probabilities: np.ndarray, clips: Clips, read: Callable[[], np.ndarray]
) -> list[Entry]:
    """Averages one variant's probabilities [S, J, n, K] over its seeds and over its folds; `read` reads its logits."""
    rows = []
    for axis, kind in enumerate(("seeds", "folds")):
        if probabilities.shape[axis] > 1:
            mean = probabilities.mean(axis, keepdims=True)
            name = f"{variant.variant}, {kind} averaged"
            again = functools.partial(_averaged, clips.task, read, axis)
            rows.append(_entry(name, kind, (variant,), variant.seeds, mean, clips, again))
    return rows


def _averaged(task: Task, read: Callable[[], np.ndarray], axis: int) -> np.ndarray:
    return task.probabilities(read()).mean(axis, keepdims=True)


def _groups(variants: Sequence[VariantLogits]) -> Mapping[str, tuple[VariantLogits, ...]]:
    """Returns the variants to average, by row name; groups of less than two are left out, equal ones come once."""
    standard = tuple(variant for variant in variants if variant.variant in STANDARD)
    hires = tuple(variant for variant in variants if variant.variant.startswith("hires_"))
    found = {"all": tuple(variants), "standard": standard, "high-resolution": hires}
    groups: dict[str, tuple[VariantLogits, ...]] = {}
    for kind, members in found.items():
        if len(members) > 1 and members not in groups.values():
            groups[f"{kind} variants averaged ({len(members)})"] = members
    return groups


def _entry(
    name: str,
    kind: str,
    variants: Sequence[VariantLogits],
    seeds: Sequence[int],
    scores: np.ndarray,
    clips: Clips,
    read: Callable[[], np.ndarray],
) -> Entry:
    """Returns the row of logits or probabilities `scores` [S, J, n, K], which `read` returns again."""
    names = tuple(variant.variant for variant in variants)
    if clips.task is MULTI_LABEL:
        return Entry(name, kind, names, tuple(seeds), np.zeros(0, int), read)
    every = np.broadcast_to(clips.labels, scores.shape[:-1]).ravel()
    ranks = label_ranks(scores.reshape(-1, scores.shape[-1]), every).reshape(scores.shape[:-1])
    return Entry(name, kind, names, tuple(seeds), ranks)
