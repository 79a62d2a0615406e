"""The saved logits of a study, aligned by clip id: all that its statistics and its report look at."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
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
        """Returns the clips at indices, or under a mask, `chosen`."""
        return Clips(*(getattr(self, field.name)[chosen] for field in dataclasses.fields(Clips)))


@dataclasses.dataclass(frozen=True)
class VariantLogits:
    """Logits of one variant, float32: `held_out` [S, n, K] by seed, each clip's from the network that never saw it.

    `test` [S, J, m, K] by seed and fold, None where the data has no test split. Either is stored as an array, or as one
    function for each seed that reads its part: then they are read each time that they are asked for, and all clips and
    classes of all variants, which are gigabytes, need not be in memory at once.
    """

    variant: str
    seeds: tuple[int, ...]
    stored: "np.ndarray | Sequence[Callable[[], np.ndarray]]"
    stored_test: "np.ndarray | Sequence[Callable[[], np.ndarray]] | None"

    @property
    def held_out(self) -> np.ndarray:
        return _read(self.stored)

    @property
    def test(self) -> np.ndarray | None:
        return None if self.stored_test is None else _read(self.stored_test)

    @property
    def has_test(self) -> bool:
        return self.stored_test is not None

    def of_seed(self, place: int, test: bool) -> np.ndarray:
        """Returns the part [n, K] of one seed, of test clips [J, m, K]. Raises ValueError without test clips."""
        stored = self.stored_test if test else self.stored
        if stored is None:
            raise ValueError(f"{self.variant} has no test predictions")
        part = stored[place]
        return part() if callable(part) else part

    def by_fold(self, test: bool) -> np.ndarray:
        """Returns the logits [S, J, n, K]; of held-out clips J is 1. Raises ValueError without test clips."""
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
    recordings: Mapping[str, str] = dataclasses.field(default_factory=dict)  # by clip id; others count as one each

    @property
    def task(self) -> Task:
        return self.held_out.task

    def clips(self, test: bool) -> Clips:
        """Returns the test clips or the held-out ones. Raises ValueError where there are no test clips."""
        if not test:
            return self.held_out
        if self.test is None:
            raise ValueError("these runs have no test clips")
        return self.test

    def __getitem__(self, variant: str) -> VariantLogits:
        return next(each for each in self.variants if each.variant == variant)


def read_results(runs: Sequence[Run], classes: Sequence[str]) -> Results:
    """Reads the results of finished runs, variants in the order in which they first come, seeds ascending.

    Raises UserError if a prediction file is damaged, or if clips or labels differ between runs.
    """
    first = runs[0]
    held_out, test = _held_out_clips(first), _test_clips(first)
    variants = []
    for variant in dict.fromkeys(run.variant for run in runs):
        chosen = sorted((run for run in runs if run.variant == variant), key=lambda run: run.seed)
        for run in chosen:
            _check_same(_held_out_clips(run), held_out, run, first)
            found = _test_clips(run)
            if (found is None) != (test is None):
                raise UserError(f"{_name(run)} and {_name(first)} do not both have test predictions.")
            if found is not None and test is not None:
                _check_same(found, test, run, first)
        seeds = tuple(run.seed for run in chosen)
        logits = [functools.partial(_held_out_logits, run) for run in chosen]
        tests = None if test is None else [functools.partial(_test_logits, run) for run in chosen]
        variants.append(VariantLogits(variant, seeds, logits, tests))
    return Results(tuple(classes), held_out, test, tuple(variants), _recordings(runs))


def _recordings(runs: Sequence[Run]) -> dict[str, str]:
    """Returns the recordings that the runs' predictions name, by clip id."""
    files = [
        fold_dir(path, fold) / name
        for run in runs
        for fold, path in run.workdirs.items()
        for name in (VALIDATION, TEST)
    ]
    found: dict[str, str] = {}
    for saved in (load_predictions(file, logits=False) for file in files if file.exists()):
        named = saved["recordings"] != ""
        found |= zip(saved["ids"][named].tolist(), saved["recordings"][named].tolist(), strict=True)
    return found


def _read(stored) -> np.ndarray:
    """Returns the array of all seeds, [S, …]; reads and stacks their parts where they are functions."""
    return stored if isinstance(stored, np.ndarray) else np.stack([part() for part in stored])


def _held_out_clips(run: Run) -> Clips:
    """Returns the clips of all folds of a run, sorted by id."""
    saved = _held_out(run, logits=False)
    clips = _clips(saved, saved["folds"])
    if len(np.unique(clips.ids)) < len(clips):
        raise UserError(f"{_name(run)}: two folds hold out the same clip.")
    return clips


def _held_out_logits(run: Run) -> np.ndarray:
    """Reads the logits [n, K] of `_held_out_clips`."""
    return _held_out(run)["logits"]


def _held_out(run: Run, *, logits: bool = True) -> Predictions:
    parts = []
    for fold, path in sorted(run.workdirs.items()):
        part = load_predictions(fold_dir(path, fold) / VALIDATION, logits=logits)
        parts.append(part | {"folds": np.full(len(part["ids"]), fold)})
    return _sorted(concatenate(parts))


def _test_files(run: Run) -> list[Path]:
    return [fold_dir(path, fold) / TEST for fold, path in sorted(run.workdirs.items())]


def _test_clips(run: Run) -> Clips | None:
    """Returns the test clips of a run, sorted by id; None without a test split."""
    files = _test_files(run)
    if not all(file.exists() for file in files):
        return None
    first = _sorted(load_predictions(files[0], logits=False))
    for file in files[1:]:
        if not np.array_equal(first["ids"], _sorted(load_predictions(file, logits=False))["ids"]):
            raise UserError(f"{file} and {files[0]} hold different clips.")
    return _clips(first, np.full(len(first["ids"]), -1))


def _test_logits(run: Run) -> np.ndarray:
    """Reads the logits [J, m, K] of `_test_clips`, by fold."""
    return np.stack([_sorted(load_predictions(file))["logits"] for file in _test_files(run)])


def _sorted(saved: Predictions) -> Predictions:
    return select(saved, np.argsort(saved["ids"], kind="stable"))


def _clips(saved: Predictions, folds: np.ndarray) -> Clips:
    return Clips(saved["ids"], saved["labels"], saved["verified"], folds)


def _check_same(clips: Clips, expected: Clips, run: Run, first: Run) -> None:
    for field in dataclasses.fields(Clips):
        if not np.array_equal(getattr(clips, field.name), getattr(expected, field.name)):
            raise UserError(
                f"{_name(run)} and {_name(first)} differ in the {field.name} of their clips: they were trained on "
                f"different data.\nRemove the older one of {_folder(run)} and {_folder(first)}, "
                "and run the same command again."
            )


def _name(run: Run) -> str:
    return f"{run.variant}, seed {run.seed}"


def _folder(run: Run) -> Path:
    return next(iter(run.workdirs.values()))
