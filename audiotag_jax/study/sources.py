"""Where compared predictions come from: work directories of runs, folders of a study's predictions, and files."""

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from audiotag_jax.evaluation.foreign import Label, names_of, read_foreign
from audiotag_jax.evaluation.predictions import VALIDATION
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.settings.record import FILE_NAME, read_record
from audiotag_jax.settings.settings import Settings
from audiotag_jax.study import rows, store
from audiotag_jax.study.results import Results, Run, VariantLogits, read_results

_NOT_IN_NAMES = re.compile(r"[/\\+,=\x00-\x1f\x7f]|^\.|^\s|\s$|^$")  # averages are called A+B, and so are files


@dataclasses.dataclass(frozen=True)
class Network:
    """The answers of one network, or of those of a cross-validation: `logits[id]` [K], `test[id]` [J, K] by fold.

    Of the clips that it knows, by id: `labels` (names of classes; tuples of them where a clip has any number),
    `verified`, `folds`, `recordings`. `is_probability`: the logits are logarithms of probabilities.
    """

    path: Path
    seed: int | None
    classes: tuple[str, ...]
    logits: Mapping[str, np.ndarray]
    test: Mapping[str, np.ndarray]
    labels: Mapping[str, Label]
    verified: Mapping[str, bool]
    folds: Mapping[str, int]
    recordings: Mapping[str, str]
    run: Run | None = None  # of a work directory
    settings: Settings | None = None
    is_probability: bool = False


Sources = dict[str, list[Network]]
_KNOWN = ("labels", "verified", "folds", "recordings")


def read_sources(runs: Sequence[str], predictions: Sequence[str]) -> Sources:
    """Reads the networks by name, in the order given; each argument is `[NAME=]PATH`, of runs also a study's directory.

    Arguments of one name are several seeds of it or, where they share no clip, folds of one network.
    Raises UserError on what cannot be read.
    """
    found: Sources = {}
    for argument in runs:
        name, path = _split(argument)
        for variant, folder in _run_folders(path):
            _add(found, " ".join(filter(None, (name, variant))) or path.resolve().name, [_of_run(folder)])
    for argument in predictions:
        name, path = _split(argument)
        if path.is_dir():
            for variant, networks in _of_store(path).items():
                _add(found, f"{name} {variant}" if name else variant, networks)
        else:
            _add(found, name or path.stem, [_of_file(path)])
    if not found:
        raise UserError("There is nothing to compare: name runs by --runs, or predictions by --predictions=NAME=FILE.")
    return found


def _split(argument: str) -> tuple[str, Path]:
    name, equals, path = argument.partition("=")
    if not equals or Path(argument).exists():
        name, path = "", argument
    if not path.strip():
        raise UserError(f"{argument!r} names no path; it should be NAME=PATH.")
    return name, Path(path)


def _add(found: Sources, name: str, networks: Sequence[Network]) -> None:
    if bad := _NOT_IN_NAMES.search(name):
        raise UserError(f"{name!r} cannot be a name here because of {bad[0]!r}; give another one, as NAME=PATH.")
    others = found.setdefault(name, [])
    for network in networks:
        for place, other in enumerate(others):
            if other.seed == network.seed and not other.logits.keys() & network.logits.keys():
                others[place] = _joined(name, other, network)
                break
        else:
            others.append(_sharing(network, next(iter(found.values()))))


def _sharing(network: Network, before: Sequence[Network]) -> Network:
    """Returns the network with the first one's tables where its own are equal: one in memory, not hundreds."""
    equal = {}
    for field in _KNOWN if before else ():
        if getattr(network, field) == getattr(before[0], field):
            equal[field] = getattr(before[0], field)
    return dataclasses.replace(network, **equal)


def _joined(name: str, first: Network, second: Network) -> Network:
    """Joins two networks that share no clip, folds of a cross-validation, to one."""
    if first.test.keys() != second.test.keys() or first.classes != second.classes:
        raise UserError(
            f"{name}: {first.path} and {second.path} differ in their test clips or classes; name them apart."
        )
    both: dict[str, Any] = {field: {**getattr(first, field), **getattr(second, field)} for field in _KNOWN}
    both["logits"] = rows.joined(first.logits, second.logits)
    test = rows.side_by_side(first.test, second.test) if first.test else first.test
    run = first.run
    if first.run and second.run:
        run = dataclasses.replace(first.run, workdirs={**first.run.workdirs, **second.run.workdirs})
    return dataclasses.replace(first, **both, test=test, run=run)


def _run_folders(path: Path) -> list[tuple[str, Path]]:
    """Returns a run's directory, or those of the finished runs of a study's directory, with their variants."""
    inside = [file.parent for file in sorted(path.glob(f"runs/*/{FILE_NAME}"))]
    if not inside or (path / FILE_NAME).exists():
        return [("", path)]
    finished = [folder for folder in inside if any(folder.glob(f"fold_[0-9]*/{VALIDATION}"))]
    if not finished:
        raise UserError(f"{path} is a study without a finished run.")
    return [(read_record(folder).settings.name, folder) for folder in finished]


def _of_run(path: Path) -> Network:
    record = read_record(path)
    run = Run(record.settings.name, record.settings.seed, dict.fromkeys(finished_folds(path), path))
    results = read_results([run], record.classes)
    [network] = _of_results(results, path, len(run.workdirs))[run.variant]
    return dataclasses.replace(network, run=run, settings=record.settings)


def finished_folds(workdir: Path) -> list[int]:
    """Returns the folds of a run whose predictions are saved; raises UserError if there is none."""
    folds = sorted(int(file.parent.name.removeprefix("fold_")) for file in workdir.glob(f"fold_[0-9]*/{VALIDATION}"))
    if not folds:
        raise UserError(f"{workdir} has no predictions yet: no fold of it is trained to its end.")
    return folds


def _of_store(path: Path) -> Sources:
    if not store.exists(path):
        raise UserError(f"{path} is no folder of a study's predictions: about.json is missing. (Runs go to --runs.)")
    return _of_results(store.read(path).results, path)


def _of_test(variant: VariantLogits, place: int) -> np.ndarray:
    """Returns the logits [m, J, K] of one seed."""
    return variant.of_seed(place, test=True).swapaxes(0, 1)


def _of_results(results: Results, path: Path, num_folds: int = 1) -> Sources:
    """Returns the networks of results by variant; test predictions are of `num_folds` folds."""
    held_out, test = results.held_out, results.test
    parts = [held_out] if test is None else [held_out, test]
    ids = [clip for part in parts for clip in part.ids.tolist()]
    known: dict[str, Any] = {
        "labels": dict(zip(ids, names_of(np.concatenate([p.labels for p in parts]), results.classes), strict=True)),
        "verified": dict(zip(ids, np.concatenate([part.verified for part in parts]).tolist(), strict=True)),
        "folds": dict(zip(held_out.ids.tolist(), held_out.folds.tolist(), strict=True)),
        "recordings": dict(results.recordings),
    }
    known["labels"] = {clip: label for clip, label in known["labels"].items() if label is not None}
    found: Sources = {}
    places = rows.number(held_out.ids.tolist())
    test_places = {} if test is None else rows.number(test.ids.tolist())
    for variant in results.variants:
        for place, seed in enumerate(variant.seeds):
            logits = rows.Rows(places, functools.partial(variant.of_seed, place, test=False))
            tested = rows.NO_ROWS
            if variant.has_test:
                tested = rows.Rows(test_places, functools.partial(_of_test, variant, place), num_folds)
            network = Network(path, seed, tuple(results.classes), logits, tested, **known)
            found.setdefault(variant.variant, []).append(network)
    return found


def _of_file(path: Path) -> Network:
    saved = read_foreign(path)
    kept = None if path.suffix.lower() == ".npz" else saved.logits  # a table of text is slow to read again

    def read() -> np.ndarray:
        return read_foreign(path).logits if kept is None else kept

    def by_id(values: np.ndarray | None) -> dict:
        return {} if values is None else dict(zip(saved.ids.tolist(), values.tolist(), strict=True))

    given: dict[str, Any] = {
        "labels": {clip: label for clip, label in by_id(saved.labels).items() if label not in ("", None)},
        "is_probability": saved.is_probability,
        "verified": by_id(saved.verified),
        "folds": {clip: int(fold) for clip, fold in by_id(saved.folds).items() if fold >= 0},
        "recordings": {clip: name for clip, name in by_id(saved.recordings).items() if name},
    }
    return Network(path, None, saved.classes, rows.Rows(rows.number(saved.ids.tolist()), read), rows.NO_ROWS, **given)


def paths_of(network: Network) -> list[Path]:
    """Returns the files or folders that a network was read from."""
    return list(dict.fromkeys(network.run.workdirs.values())) if network.run else [network.path]
