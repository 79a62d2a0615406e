"""The rows of the study's table: networks one by one, and averages of seeds, of folds and of variants."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from audiotag_jax.evaluation.metrics import label_ranks
from audiotag_jax.evaluation.task import MULTI_LABEL
from audiotag_jax.study.results import Clips, Results, VariantLogits

STANDARD = ("linear_linear", "linear_db", "log_linear", "log_db", "mel_linear", "mel_db")
KINDS = ("single", "seeds", "folds", "variants")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One row: `ranks` [S, J, n] int, the place of each clip's label, from 0, by seed and by network of that seed.

    S is 1 where seeds (or variants, of one seed) are averaged; J is 1 on held-out clips and where folds are averaged.
    Where clips have several labels there are no ranks but `logits` [S, J, n, K], or what else orders the classes.
    """

    name: str
    kind: str
    variants: tuple[str, ...]
    seeds: tuple[int, ...]
    ranks: np.ndarray
    logits: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))

    def of(self, chosen: np.ndarray) -> "Entry":
        """The row on the clips under a mask [n]."""
        if self.logits.ndim > 1:
            return dataclasses.replace(self, logits=self.logits[:, :, chosen])
        return dataclasses.replace(self, ranks=self.ranks[..., chosen])


def entries(results: Results, *, test: bool = False, averages: bool = True) -> tuple[Clips, list[Entry]]:
    """The scored clips (held out or test: those with a label) and the rows over them, `single` ones first.

    `single`: every network by itself. `seeds`: the seeds' probabilities averaged, network by network. `folds` (test
    clips only): those of a seed's folds averaged, as in a submission. `variants`: those of several variants averaged,
    network by network, with the first seed common to them; on test clips also those with the folds averaged, as in a
    submission of several variants; none of them without `averages`. Probabilities are those of the task.
    """
    clips = results.clips(test)
    scored = clips.scored
    clips = clips[scored]
    rows, probabilities = [], {}
    for variant in results.variants:
        logits = variant.by_fold(test)[:, :, scored]
        probabilities[variant.variant] = clips.task.probabilities(logits)
        rows.append(_entry(variant.variant, "single", (variant,), variant.seeds, logits, clips))
        rows += _own_averages(variant, probabilities[variant.variant], clips)
    for name, members in _groups(results.variants).items() if averages else ():
        seeds = sorted(set.intersection(*(set(member.seeds) for member in members)))
        if seeds:
            chosen = [probabilities[member.variant][[member.seeds.index(seeds[0])]] for member in members]
            mean = np.mean(chosen, axis=0)
            rows.append(_entry(name, "variants", members, seeds[:1], mean, clips))
            if mean.shape[1] > 1:
                mean = mean.mean(1, keepdims=True)
                rows.append(_entry(f"{name}, folds averaged", "variants", members, seeds[:1], mean, clips))
    return clips, sorted(rows, key=lambda row: KINDS.index(row.kind))


def _own_averages(variant: VariantLogits, probabilities: np.ndarray, clips: Clips) -> list[Entry]:
    """The averages of one variant's probabilities [S, J, n, K] over its seeds and over its folds."""
    rows = []
    for axis, kind in enumerate(("seeds", "folds")):
        if probabilities.shape[axis] > 1:
            mean = probabilities.mean(axis, keepdims=True)
            rows.append(_entry(f"{variant.variant}, {kind} averaged", kind, (variant,), variant.seeds, mean, clips))
    return rows


def _groups(variants: Sequence[VariantLogits]) -> Mapping[str, tuple[VariantLogits, ...]]:
    """Which variants are averaged, by the row's name; groups of less than two are left out, equal ones come once."""
    standard = tuple(variant for variant in variants if variant.variant in STANDARD)
    hires = tuple(variant for variant in variants if variant.variant.startswith("hires_"))
    found = {"all": tuple(variants), "standard": standard, "high-resolution": hires}
    groups: dict[str, tuple[VariantLogits, ...]] = {}
    for kind, members in found.items():
        if len(members) > 1 and members not in groups.values():
            groups[f"{kind} variants averaged ({len(members)})"] = members
    return groups


def _entry(
    name: str, kind: str, variants: Sequence[VariantLogits], seeds: Sequence[int], scores: np.ndarray, clips: Clips
) -> Entry:
    """The row of logits or probabilities `scores` [S, J, n, K]."""
    names = tuple(variant.variant for variant in variants)
    if clips.task is MULTI_LABEL:
        return Entry(name, kind, names, tuple(seeds), np.zeros(0, int), scores)
    every = np.broadcast_to(clips.labels, scores.shape[:-1]).ravel()
    ranks = label_ranks(scores.reshape(-1, scores.shape[-1]), every).reshape(scores.shape[:-1])
    return Entry(name, kind, names, tuple(seeds), ranks)
