"""The saved logits of a study, aligned by clip id: all that its statistics and its report look at."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from audiotag_jax.evaluation.predictions import TEST, VALIDATION, Predictions, concatenate, load_predictions, select
from audiotag_jax.evaluation.task import Task, is_scored, task_of
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.settings.record import fold_dir


@dataclasses.dataclass(frozen=True)
class Run:
    """One variant trained with one seed: for each fold the work directory that holds its `fold_K/predictions.npz`."""

    variant: str
    seed: int
    workdirs: Mapping[int, Path]


@dataclasses.dataclass(frozen=True)
class Clips:
    """What is known of n clips: `ids` [n] str, sorted, `labels` [n] or [n, K] (see `task`), `verified` [n] bool.

    `folds` [n] int: the fold that held the clip out, -1 for test clips.
    """

    ids: np.ndarray
    labels: np.ndarray
    verified: np.ndarray
    folds: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def task(self) -> Task:
        return task_of(self.labels)

    @property
    def scored(self) -> np.ndarray:
        """Flags [n] the clips whose labels are known."""
        return is_scored(self.labels)

    def __getitem__(self, chosen: np.ndarray) -> "Clips":
        """The clips at indices, or under a mask, `chosen`."""
        return Clips(*(getattr(self, field.name)[chosen] for field in dataclasses.fields(Clips)))


@dataclasses.dataclass(frozen=True)
class VariantLogits:
    """Logits of one variant, float32: `held_out` [S, n, K] by seed, each clip's from the network that never saw it.

    `test` [S, J, m, K] by seed and fold, None where the data has no test split.
    """

    variant: str
    seeds: tuple[int, ...]
    held_out: np.ndarray
    test: np.ndarray | None

    def by_fold(self, test: bool) -> np.ndarray:
        """[S, J, n, K]: of held-out clips J is 1. Raises ValueError where there are no test clips."""
        if not test:
            return self.held_out[:, None]
        if self.test is None:
            raise ValueError(f"{self.variant} has no test predictions")
        return self.test


@dataclasses.dataclass(frozen=True)
class Results:
    """All finished runs of a study, over the same clips in the same order."""

    classes: tuple[str, ...]
    held_out: Clips
    test: Clips | None
    variants: tuple[VariantLogits, ...]
    recordings: Mapping[str, str] = dataclasses.field(default_factory=dict)  # by clip id; others stand alone

    @property
    def task(self) -> Task:
        return self.held_out.task

    def clips(self, test: bool) -> Clips:
        """The test clips or the held-out ones. Raises ValueError where there are no test clips."""
        if not test:
            return self.held_out
        if self.test is None:
            raise ValueError("these runs have no test clips")
        return self.test

    def __getitem__(self, variant: str) -> VariantLogits:
        return next(each for each in self.variants if each.variant == variant)


def read_results(runs: Sequence[Run], classes: Sequence[str]) -> Results:
    """The results of finished runs, variants in the order in which they first come, seeds ascending.

    Raises UserError if a prediction file is damaged, or if clips or labels differ between runs.
    """
    first = runs[0]
    held_out, _ = _held_out(first)
    first_test = _test(first)
    test = None if first_test is None else first_test[0]
    variants = []
    for variant in dict.fromkeys(run.variant for run in runs):
        chosen = sorted((run for run in runs if run.variant == variant), key=lambda run: run.seed)
        held_out_logits, test_logits = [], []
        for run in chosen:
            clips, logits = _held_out(run)
            _check_same(clips, held_out, run, first)
            held_out_logits.append(logits)
            found = _test(run)
            if (found is None) != (test is None):
                raise UserError(f"{_name(run)} and {_name(first)} do not both have test predictions.")
            if found is not None and test is not None:
                _check_same(found[0], test, run, first)
                test_logits.append(found[1])
        seeds = tuple(run.seed for run in chosen)
        tests = np.stack(test_logits) if test_logits else None
        variants.append(VariantLogits(variant, seeds, np.stack(held_out_logits), tests))
    return Results(tuple(classes), held_out, test, tuple(variants), _recordings(runs))


def _recordings(runs: Sequence[Run]) -> dict[str, str]:
    """The recordings that the runs' predictions name, by clip id."""
    files = [
        fold_dir(path, fold) / name
        for run in runs
        for fold, path in run.workdirs.items()
        for name in (VALIDATION, TEST)
    ]
    found: dict[str, str] = {}
    for saved in (load_predictions(file) for file in files if file.exists()):
        named = saved["recordings"] != ""
        found |= zip(saved["ids"][named].tolist(), saved["recordings"][named].tolist(), strict=True)
    return found


def _held_out(run: Run) -> tuple[Clips, np.ndarray]:
    """The clips of all folds of a run and their logits [n, K], by id."""
    parts = []
    for fold, path in sorted(run.workdirs.items()):
        part = load_predictions(fold_dir(path, fold) / VALIDATION)
        parts.append(part | {"folds": np.full(len(part["ids"]), fold)})
    saved = _sorted(concatenate(parts))
    clips = _clips(saved, saved["folds"])
    if len(np.unique(clips.ids)) < len(clips):
        raise UserError(f"{_name(run)}: two folds hold out the same clip.")
    return clips, saved["logits"]


def _test(run: Run) -> tuple[Clips, np.ndarray] | None:
    """The test clips of a run, by id, and their logits [J, m, K] by fold; None without a test split."""
    files = [fold_dir(path, fold) / TEST for fold, path in sorted(run.workdirs.items())]
    if not all(file.exists() for file in files):
        return None
    parts = []
    for file in files:
        parts.append(_sorted(load_predictions(file)))
        if not np.array_equal(parts[0]["ids"], parts[-1]["ids"]):
            raise UserError(f"{file} and {files[0]} hold different clips.")
    first = parts[0]
    clips = _clips(first, np.full(len(first["ids"]), -1))
    return clips, np.stack([part["logits"] for part in parts])


def _sorted(saved: Predictions) -> Predictions:
    return select(saved, np.argsort(saved["ids"], kind="stable"))


def _clips(saved: Predictions, folds: np.ndarray) -> Clips:
    return Clips(saved["ids"], saved["labels"], saved["verified"], folds)


def _check_same(clips: Clips, expected: Clips, run: Run, first: Run) -> None:
    for field in dataclasses.fields(Clips):
        if not np.array_equal(getattr(clips, field.name), getattr(expected, field.name)):
            raise UserError(
                f"{_name(run)} and {_name(first)} differ in the {field.name} of their clips: they saw other data.\n"
                "Remove the older of the two and run the same command again."
            )


def _name(run: Run) -> str:
    return f"{run.variant}, seed {run.seed}"
