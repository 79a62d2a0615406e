"""Mode `study`: one study, or with `config.study.datasets` the same study on several data sets and what they share."""

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flax import traverse_util

from audiotag_jax.datasets.sources import has_several_labels
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.files import write_json
from audiotag_jax.runtime.progress import log
from audiotag_jax.settings.settings import Settings, flatten, parse_settings, recorded_fields
from audiotag_jax.study import across, across_report, store
from audiotag_jax.study import run as single
from audiotag_jax.study.report import describe_data
from audiotag_jax.study.results import read_results

PREDICTIONS = "predictions"  # folder of the saved predictions, from which alone the report is made


@dataclasses.dataclass(frozen=True)
class DataSet:
    """One of the data sets: its settings of the baseline's file, and whether it counts in what they share."""

    name: str
    settings: Settings
    pooled: bool


def run(settings: Settings, workdir: Path) -> None:
    """Runs the study of a configuration; with a list of data sets, each in its own folder, and reports on all."""
    if not settings.comparison.datasets:
        single.run(settings, workdir)
        return
    listed = read_datasets(settings)
    several = [each.name for each in listed if has_several_labels(each.settings.dataset)]
    if several:
        raise UserError(
            f"{several[0]} has several labels a clip, which have no accuracy, on which data sets are compared; "
            "run it alone, without config.study.datasets."
        )
    for each in listed:
        _study(each, workdir)
    report(settings, workdir, {each.name: each.pooled for each in listed})


def read_datasets(settings: Settings) -> list[DataSet]:
    """Reads the data sets that the TOML file `config.study.datasets` lists; raises UserError, naming what is wrong.

    A table a data set, its name the table's; in it the fields that it changes, such as `dataset.path = "…"`, relative
    to the current folder, and `pooled = false` where it is not to count in what the data sets share.
    `FILE.toml:A,B` takes the data sets A and B alone.
    """
    file, suffix, names = settings.comparison.datasets.partition(".toml:")
    path, chosen = Path(file + suffix.removesuffix(":")), [name for name in names.split(",") if name]
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"config.study.datasets: {path} cannot be read ({error}).") from error
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not TOML: {error}.") from error
    if not tables or not all(isinstance(table, dict) for table in tables.values()):
        raise UserError(f"{path} lists no data sets: it needs a table [NAME] for each, and nothing outside of them.")
    unknown = [name for name in chosen if name not in tables]
    if unknown:
        raise UserError(f"{path} lists no data set {unknown[0]!r}; choose from {', '.join(tables)}.")
    return [_dataset(name, tables[name], settings, path) for name in tables if name in (chosen or tables)]


def _dataset(name: str, table: Mapping[str, Any], base: Settings, path: Path) -> DataSet:
    if not name.replace("_", "").replace("-", "").isalnum():
        raise UserError(f"{path}: the name [{name}] becomes a folder; use letters, digits, _ and -.")
    changes, fields = flatten(table), flatten(recorded_fields(base))
    pooled = changes.pop("pooled", True)
    if not isinstance(pooled, bool):
        raise UserError(f"{path}: [{name}] pooled is {pooled!r}; it must be true or false.")
    for key, value in changes.items():
        if key not in fields or key.partition(".")[0] == key:
            raise UserError(f"{path}: [{name}] sets the unknown field {key}; fields are those of configs/default.py.")
        if isinstance(fields[key], float) and type(value) is int:
            changes[key] = float(value)
        elif type(changes[key]) is not type(fields[key]):
            kind = type(fields[key]).__name__
            raise UserError(f"{path}: [{name}] {key} is {value!r}; it must be of type {kind}.")
    try:
        settings = parse_settings(traverse_util.unflatten_dict(fields | changes, sep="."))
    except UserError as error:
        raise UserError(f"{path}: [{name}] {error}") from error
    alone = dataclasses.replace(base.comparison, datasets="")
    return DataSet(name, dataclasses.replace(settings, study=alone), pooled)


def _study(each: DataSet, workdir: Path) -> None:
    """Trains what is missing on one data set, and saves its predictions where there are new ones."""
    folder, saved = workdir / each.name, workdir / PREDICTIONS / each.name
    trains = each.settings.comparison.train
    if not trains and not (folder / "runs").is_dir():
        return  # a report from saved predictions, or on the other data sets
    log(f"data set {each.name}")
    try:
        runs, classes, budget = single.run(each.settings, folder)
    except UserError as error:
        if trains:
            raise
        log(f"{each.name} is left out: {error}")
        return
    results = read_results(runs, classes)
    store.write(saved, results, [*describe_data(each.settings, results), *budget])
    store.write_descriptors(saved, each.settings, prepare=trains)


def report(settings: Settings, workdir: Path, pooled: Mapping[str, bool]) -> None:
    """Writes `across.json`, `.html`, `.md` and `.svg` from the saved predictions of the data sets; needs no sounds."""
    saved = {
        name: store.read(workdir / PREDICTIONS / name) for name in pooled if store.exists(workdir / PREDICTIONS / name)
    }
    if not saved:
        raise UserError(f"{workdir} has no predictions of {', '.join(pooled)} to report on.")
    study = settings.comparison
    chosen, left_out = across.finished(saved, [name for name, is_pooled in pooled.items() if is_pooled])
    found = across.across(saved, baseline=study.baseline, margin=study.margin, pooled=chosen)
    found["left_out"] = left_out
    write_json(workdir / "across.json", found)
    across_report.write(found, {name: each.about for name, each in saved.items()}, workdir)
    for sentence in across_report.sentences(found)[:3]:
        log(sentence)
    log(f"written: {workdir / 'across.html'}; beside it across.md, across.svg and across.json")
