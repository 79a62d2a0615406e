"""Mode `inspect`: what the checkpoints of a work directory hold, as plain text; nothing is prepared or written."""

import json
import textwrap
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jax
from flax import traverse_util

from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.progress import log
from audiotag_jax.settings.record import load_record
from audiotag_jax.settings.settings import Settings, recorded_fields
from audiotag_jax.training.array_table import NUM_COLUMNS, describe_arrays, format_arrays, format_totals, format_verdict
from audiotag_jax.training.checkpoints import kept_steps, read_arrays, read_items
from audiotag_jax.training.optimizer import parameter_labels


def run(settings: Settings | None, workdir: Path) -> None:
    """Runs mode `inspect`: prints configuration, steps, metrics and parameters of a work directory, or of one fold.

    With a configuration, prints also the fields in which the run's own differs from it.

    Raises UserError if there is no checkpoint, or the latest of a fold is damaged.
    """
    jax.config.update("jax_platforms", "cpu")  # a training beside this may hold the GPU or TPU
    for lines in report(settings, workdir):
        log("\n".join(lines))


def report(settings: Settings | None, workdir: Path) -> Iterator[list[str]]:
    """Yields what `run` prints, in parts of several lines; raises UserError as it does."""
    folders = find_checkpoints(workdir)
    yield describe_config(workdir, recorded_fields(settings) if settings else None)
    metrics = read_metrics(workdir / "metrics.jsonl")
    for fold, folder in folders.items():
        yield ["", *describe_steps(folder, fold, [record for record in metrics if record.get("fold") == fold])]
    tables_due = True  # of the first fold that has a checkpoint
    for fold, folder in folders.items():
        if not kept_steps(folder):
            continue
        step, state, _ = read_arrays(folder)
        title = f"{_title(folder, fold)}, step {step}"
        if tables_due:
            yield format_state(title, state)
            yield [""]
        yield format_verdict(title, {name: describe_arrays(tree) for name, tree in state.items()})
        tables_due = False


def find_checkpoints(workdir: Path) -> dict[int | None, Path]:
    """Returns the folders of `STEP/` by fold; under None that of `workdir` where it is a fold's, or its checkpoints.

    Raises UserError if none of them contains a checkpoint.
    """
    if not workdir.is_dir():
        raise UserError(f"There is no folder {workdir}: train first with --mode=train, or choose another --workdir.")
    numbers = [path.name.removeprefix("fold_") for path in workdir.glob("fold_*") if path.is_dir()]
    folds = sorted(int(number) for number in numbers if number.isdecimal())
    folders: dict[int | None, Path] = {fold: workdir / f"fold_{fold}" / "checkpoints" for fold in folds}
    if not folders:
        inside = workdir / "checkpoints"
        folders = {None: inside if inside.is_dir() else workdir}
    if not any(map(kept_steps, folders.values())):
        raise UserError(
            f"{workdir} contains no checkpoint, neither fold_K/checkpoints/STEP/ nor STEP/: train first with "
            "--mode=train, or choose another --workdir."
        )
    return folders


def format_state(title: str, state: dict) -> list[str]:
    """Returns tables of a checkpoint's parameters, of their totals by optimizer group, and of its batch statistics.

    Raises UserError if it has no parameters, or some that belong to no group.
    """
    if not state.get("params"):
        raise UserError(f"{title} contains no parameters, only {', '.join(state) or 'nothing'}: not of a training.")
    try:
        rows = describe_arrays(state["params"], parameter_labels(state["params"]))
    except ValueError as error:
        raise UserError(f"{title}: {error}") from error
    lines = ["", f"{title}: parameters", *format_arrays(rows), "", *format_totals(rows)]
    statistics = describe_arrays(state.get("batch_stats", {}))
    if statistics:
        lines += ["", f"{title}: batch statistics", *format_arrays(statistics)]
    return lines


def _title(folder: Path, fold: int | None) -> str:
    return str(folder) if fold is None else f"fold {fold}"


# Configuration, steps and metrics.


def describe_config(workdir: Path, given: dict | None) -> list[str]:
    """Returns name, preset, classes and dataset of config.json, and the fields that differ from those `given`."""
    if not (workdir / "config.json").exists():
        return [f"{workdir} has no config.json: checkpoints alone. The work directory around a fold shows more."]
    try:
        record = load_record(workdir)
    except UserError as error:  # the checkpoints can be read without it
        return [str(error).splitlines()[0]]
    saved = record["config"]
    name = f"{saved.get('name')}:{saved.get('preset')}"
    return [
        f"{workdir}: {name}, {len(record['classes'])} classes, dataset {record['dataset']}",
        *(format_differences(saved, given) if given else []),
    ]


def format_differences(saved: dict, given: dict) -> list[str]:
    """Returns a line for each field in which two configurations, nested dicts, differ; one line if none does."""
    there, here = (traverse_util.flatten_dict(tree, keep_empty_nodes=True, sep=".") for tree in (saved, given))
    absent = "(no such field)"
    pairs = {name: (there.get(name, absent), here.get(name, absent)) for name in sorted(there.keys() | here.keys())}
    pairs = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    if not pairs:
        return ["its configuration is that of --config"]
    width = max(map(len, pairs))
    lines = [f"  {name:{width}}  {saved_value}, in --config {value}" for name, (saved_value, value) in pairs.items()]
    return ["its configuration differs from that of --config:", *lines]


def describe_steps(folder: Path, fold: int | None, metrics: Sequence[dict]) -> list[str]:
    """Describes every checkpoint in a folder: date, size, items, and the nearest of the fold's records of metrics."""
    steps = kept_steps(folder)
    lines = [f"{_title(folder, fold)}: {len(steps)} {'step' if len(steps) == 1 else 'steps'} kept"]
    for step in steps:
        path, items = folder / str(step), read_items(folder, step)
        date = datetime.fromtimestamp(path.stat().st_mtime).strftime("%Y-%m-%d %H:%M")
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        partial = "" if "state" in items else " (no state: half removed)"
        lines.append(f"  step {step}: {date}, {size / 1e6:.1f} MB, items {', '.join(items) or 'none'}{partial}")
        lines += [f"    {name} {json.dumps(value)}" for name, value in items.items() if value is not None]
        lines += [line for record in nearest_metrics(metrics, step).values() for line in format_metrics(record)]
    return lines


def read_metrics(path: Path) -> list[dict]:
    """Reads the records of `metrics.jsonl`, in order; none without the file. Incomplete lines are left out."""
    records = []
    for line in path.read_text(errors="replace").splitlines() if path.is_file() else ():
        try:
            record = json.loads(line)
        except ValueError:  # the last line of a killed run
            continue
        if isinstance(record, dict) and {"fold", "step", "split"} <= record.keys():
            records.append(record)
    return records


def nearest_metrics(records: Sequence[dict], step: int) -> dict[str, dict]:
    """Returns, by split, the record with the highest step that is at most `step`; the later one of two."""
    past = sorted((record for record in records if record["step"] <= step), key=lambda record: record["step"])
    return dict(sorted({record["split"]: record for record in past}.items()))


def format_metrics(record: dict) -> list[str]:
    """Formats one record of metrics: split and step, then every other value with four digits, wrapped."""
    values = [f"{name} {_short(value)}" for name, value in record.items() if name not in ("fold", "step", "split")]
    text = f"{record['split']} at step {record['step']}: {', '.join(values)}"
    return textwrap.wrap(text, NUM_COLUMNS, initial_indent=" " * 4, subsequent_indent=" " * 6)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
