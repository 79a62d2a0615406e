"""Predictions of any origin on the clips that they have in common, as the results that a study's statistics take."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from audiotag_jax.evaluation.foreign import Label, Labels
from audiotag_jax.evaluation.task import MULTI_LABEL
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.study import rows
from audiotag_jax.study.label_lists import LabelLists
from audiotag_jax.study.results import Clips, Results, VariantLogits
from audiotag_jax.study.sources import Network, Sources


def align(sources: Sources, baseline: str, labels: Labels | None = None) -> tuple[Results, list[str]]:
    """Returns the results of all sources on the clips common to them, and notes on what was left out.

    Labels, folds, recordings and verified flags are those of `labels`, else of the first source that has them.
    Raises UserError where classes or labels contradict each other, where no clip is common or none has a label.
    """
    networks = [network for each in sources.values() for network in each]
    classes = networks[0].classes
    _check_classes(sources, classes)
    tested = set().union(*(network.test for network in networks))
    tables = {id(network): _tables(network, tested) for network in networks}
    held_out = _common(tables[id(network)][0] for network in networks)
    test = _common(tables[id(network)][1] for network in networks)
    if not held_out and not test:
        raise UserError(_nothing_common(sources))
    truth = _Truth(networks, labels, classes)
    clips = truth.clips(held_out, tested=False)
    test_clips = truth.clips(test, tested=True) if test else None
    scored = sum(int(each.scored.sum()) for each in (clips, test_clips) if each is not None)
    if not scored:
        raise UserError(_nothing_labelled(labels, [*held_out, *test]))
    seeds = _seeds(sources, baseline)
    variants = [
        _variant(name, seeds[name], [(network, *tables[id(network)]) for network in each], clips, test_clips, classes)
        for name, each in sources.items()
    ]
    notes = _left_out(sources, tables, held_out, test) + truth.notes
    return Results(classes, clips, test_clips, tuple(variants), truth.recordings), notes


def average(results: Results, name: str, members: Sequence[str], seed: int) -> VariantLogits:
    """Returns logits of the mean of the members' probabilities over all their seeds and, on test clips, folds."""
    task = results.task

    def mean(logits: Callable[[VariantLogits], np.ndarray]) -> np.ndarray:  # [S, J, n, K] to [1, n, K]
        total = sum(task.probabilities(logits(results[member])).mean((0, 1)) for member in members)
        return task.logits(total / len(members)).astype(np.float32)[None]

    held_out = mean(lambda variant: variant.by_fold(False))
    test = None if results.test is None else mean(lambda variant: variant.by_fold(True))[None]
    return VariantLogits(name, (seed,), held_out, test)


def _check_classes(sources: Sources, classes: Sequence[str]) -> None:
    first = next(iter(sources))
    for name, networks in sources.items():
        for network in networks:
            lacking = [each for each in classes if each not in network.classes]
            more = [each for each in network.classes if each not in classes]
            if lacking or more:
                what = f"lacks the class {lacking[0]!r}" if lacking else f"has the class {more[0]!r}"
                other = "has" if lacking else "lacks"
                count = f" ({len(lacking) or len(more)} such classes)" if len(lacking) + len(more) > 1 else ""
                raise UserError(f"{network.path} ({name}) {what}, which {first} {other}{count}.")


def _tables(network: Network, tested: set[str]) -> tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]:
    """Returns logits by clip of held-out clips [K], and of test clips [J, K], to which a file's may belong."""
    if network.run is not None:
        return network.logits, network.test
    held_out = rows.only(network.logits, lambda clip: clip not in tested, as_test=False)
    return held_out, network.test or rows.only(network.logits, lambda clip: clip in tested, as_test=True)


def _common(tables: Iterable[Mapping[str, Any]]) -> list[str]:
    first, *others = tables
    common = set(first)
    for table in others:
        common.intersection_update(table)
    return sorted(common)


def _nothing_common(sources: Sources) -> str:
    """Names two sources without common clips, and an id of each."""
    named = [(name, network) for name, networks in sources.items() for network in networks]
    (first, one), *others = named
    clips = one.logits.keys() | one.test.keys()
    for name, network in others:
        theirs = network.logits.keys() | network.test.keys()
        if not clips & theirs:
            return f"{name} and {first} have no clip in common: ids such as {min(theirs)!r} and {min(clips)!r}."
    return f"No clip is common to all of {', '.join(sources)}, neither held out nor in a test set."


def _nothing_labelled(labels: Labels | None, clips: Sequence[str]) -> str:
    """Explains why no clip has a label: nothing names one, or `labels` are of other ids, of which one is shown."""
    if labels is None or not labels.labels:
        return "No clip has a label: name a run of these clips by --runs, or their labels by --labels=FILE.csv."
    theirs = next(iter(labels.labels))
    known = "has no label for any of the clips" if theirs in clips else "has ids of other clips"
    return f"No clip has a label: the file of --labels {known}, such as {theirs!r}; a clip here is {clips[0]!r}."


def _left_out(sources: Sources, tables: Mapping[int, tuple], held_out: list[str], test: list[str]) -> list[str]:
    notes = []
    for name, networks in sources.items():
        for place, (part, common) in enumerate((("held-out", held_out), ("test", test))):
            most = max(len(tables[id(network)][place]) for network in networks)
            if most > len(common):
                notes.append(f"{most - len(common)} of {most} {part} clips of {name} are not in all predictions")
    return notes


def _seeds(sources: Sources, baseline: str) -> dict[str, tuple[int, ...]]:
    """Returns each source's seeds where all share one with the baseline; else numbers its networks, to pair them."""
    own = {name: tuple(network.seed for network in networks) for name, networks in sources.items()}
    known = all(None not in seeds and len(set(seeds)) == len(seeds) for seeds in own.values())
    if known and all(set(seeds) & set(own[baseline]) for seeds in own.values()):
        return {name: tuple(sorted(seed for seed in seeds if seed is not None)) for name, seeds in own.items()}
    return {name: tuple(range(len(seeds))) for name, seeds in own.items()}


def _variant(
    name: str,
    seeds: tuple[int, ...],
    networks: Sequence[tuple[Network, Mapping, Mapping]],
    clips: Clips,
    test_clips: Clips | None,
    classes: tuple[str, ...],
) -> VariantLogits:
    by_seed = {network.seed: (network, logits, test) for network, logits, test in networks}
    if len(by_seed) == len(networks) and None not in by_seed:
        networks = [by_seed[seed] for seed in sorted(seed for seed in by_seed if seed is not None)]
    folds = {rows.num_folds(test) for *_, test in networks} if test_clips is not None else {1}
    if len(folds) > 1:
        raise UserError(f"{name}: its networks have test predictions of {min(folds)} and of {max(folds)} folds.")
    held_out = [functools.partial(_logits, network, clips, table, classes) for network, table, _ in networks]
    tests = None
    if test_clips is not None:
        tests = [functools.partial(_test_logits, network, test_clips, table, classes) for network, _, table in networks]
    return VariantLogits(name, seeds, held_out, tests)


def _test_logits(network: Network, clips: Clips, table: Mapping[str, np.ndarray], classes: Sequence[str]) -> np.ndarray:
    """Returns the logits [J, m, K] of a network on test clips."""
    return _logits(network, clips, table, classes).swapaxes(0, 1)


def _logits(network: Network, clips: Clips, table: Mapping[str, np.ndarray], classes: Sequence[str]) -> np.ndarray:
    """Returns the logits [n, ..., K] of a network on clips; of a file's probabilities, those of the clips' task."""
    order = [network.classes.index(each) for each in classes]
    if not len(clips):
        return np.zeros((0, len(classes)))
    values = rows.take(table, clips.ids.tolist())[..., order]
    is_odds = network.is_probability and clips.task is MULTI_LABEL
    return clips.task.logits(np.exp(values)) if is_odds else values


@dataclasses.dataclass
class _Truth:
    """What is known of the clips of some networks, where `table` has precedence."""

    networks: Sequence[Network]
    table: Labels | None
    classes: tuple[str, ...]

    def __post_init__(self):
        self.notes: list[str] = []
        self.recordings = self._first("recordings")
        self.lists = LabelLists(self.networks, self.table, self.classes)
        self.labels: dict[str, Label] = self.lists.parsed(self._of_networks("labels"))
        if self.table is not None:
            given = self.lists.parsed(self.table.labels)
            changed = [c for c, name in given.items() if self.labels.get(c, name) != name]
            if changed:
                self.notes.append(f"--labels changes the label of {len(changed)} clips, such as {changed[0]}")
            self.labels = {clip: name for clip, name in (self.labels | given).items() if name != ""}
        else:
            self._check_labels()
        for clip, label in self.labels.items():
            for name in label if isinstance(label, tuple) else (label,):
                if name not in self.classes:
                    raise UserError(f"Clip {clip!r} has the label {name!r}, which is none of the classes.")
        self.folds, self.verified = self._first("folds"), self._first("verified")

    def clips(self, ids: Sequence[str], *, tested: bool) -> Clips:
        """Returns the clips of these ids; by default unlabelled, verified and of fold 0, of fold -1 if `tested`."""
        return Clips(
            np.array(ids, str),
            self.lists.array([self.labels.get(clip, "") for clip in ids]),
            np.array([self.verified.get(clip, True) for clip in ids], bool),
            np.array([-1 if tested else self.folds.get(clip, 0) for clip in ids], np.int64),
        )

    def _of_networks(self, field: str) -> dict:
        """Returns `field` by clip id; of several networks with a clip, the first counts."""
        found: dict = {}
        for network in reversed(self.networks):
            found |= getattr(network, field)
        return found

    def _first(self, field: str) -> dict:
        """Returns `field` by clip id, from the table of labels, else from the first network that has the clip."""
        return self._of_networks(field) | (getattr(self.table, field) if self.table is not None else {})

    def _check_labels(self) -> None:
        for network in self.networks:
            own = self.lists.parsed(network.labels)
            other = [clip for clip, name in own.items() if self.labels[clip] != name]
            if other:
                clip = other[0]
                raise UserError(
                    f"{network.path} labels clip {clip!r} {own[clip]!r}, but other predictions label it "
                    f"{self.labels[clip]!r} (clips that differ: {len(other)}); "
                    "give the right labels with --labels=FILE.csv."
                )
