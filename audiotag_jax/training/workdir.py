"""The work directory of a run: whose it is, what it holds, and the record of its metrics."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.files import locked, write_atomic, write_json
from audiotag_jax.runtime.processes import broadcast_from_main, is_main_process, all_processes_equal, barrier

# Fields that may differ when a run is continued: they change where data lies or what is kept, not what is computed.
FREE_FIELDS = (
    "dataset.path",
    "dataset.table",
    "dataset.download",
    "dataset.prepared_dir",
    "dataset.num_threads",
    "dataset.input",
    "dataset.num_workers",
    "train.folds",
    "train.checkpoint_every_epochs",
    "train.compilation_cache",
    "train.profile_steps",
)


# Of these, what may differ between the processes of one run: where each host finds things.
_LOCAL_FIELDS = ("dataset.path", "dataset.table", "dataset.prepared_dir", "dataset.num_threads")


def fold_dir(workdir: Path, fold: int) -> Path:
    """Where the checkpoints and predictions of a fold lie."""
    return workdir / f"fold_{fold}"


@contextlib.contextmanager
def lock_workdir(workdir: Path) -> Iterator[None]:
    """Keeps other runs out of the directory; of the processes of one run, the first does."""
    with contextlib.ExitStack() as stack:
        trouble = None
        if is_main_process():
            try:
                stack.enter_context(locked(workdir, "using"))
            except (UserError, OSError) as error:
                trouble = error
        if not broadcast_from_main(trouble is None):  # else the others would wait for it in vain
            raise trouble or UserError("The first process could not begin; it says why.")
        yield


def check_same_settings(workdir: Path, config: ConfigDict) -> None:
    """Raises UserError, naming the fields, if the directory holds a run of other settings; cheap, so asked first."""
    if not (workdir / "config.json").exists():
        if any(workdir.glob("fold_*")):
            raise UserError(
                f"{workdir} holds folds but no config.json to say whose.\nRemove it, or choose another --workdir."
            )
        return
    old, new = _flatten(read_record(workdir)["config"]), _flatten(recorded_fields(config))
    unknown = sorted(old.keys() ^ new.keys())
    if unknown:
        raise UserError(
            f"{workdir} holds a run of another version of the code, with other fields: {', '.join(unknown[:5])}.\n"
            "Choose another --workdir."
        )
    names = sorted(name for name in old if old[name] != new[name])
    changed = [f"{name} (there {old.get(name)}, here {new.get(name)})" for name in names if name not in FREE_FIELDS]
    if changed:
        listed = ", ".join(changed[:5]) + (", …" if len(changed) > 5 else "")
        raise UserError(
            f"{workdir} holds another run; different: {listed}.\nRepeat that run's flags, or choose another --workdir."
        )


def check_same_data(workdir: Path, dataset: str) -> None:
    """Raises UserError unless the run in the directory is on the dataset of that fingerprint."""
    if read_record(workdir)["dataset"] != dataset:
        raise UserError(
            f"{workdir} holds a run on other data: tables, recordings, the code that prepares them, the version of "
            "JAX or the kind of device changed.\nChoose another --workdir, or remove it."
        )


def record_config(workdir: Path, config: ConfigDict, classes: list[str], dataset: str) -> None:
    """Writes `config.json`: config, classes and `dataset`, the fingerprint of the spectrogram dataset.

    Raises UserError if the directory holds a run of other settings, or of other data.
    """
    record = {"config": recorded_fields(config), "classes": classes, "dataset": dataset}
    alike = {
        name: value for name, value in _flatten(record).items() if name.removeprefix("config.") not in _LOCAL_FIELDS
    }
    if not all_processes_equal(json.dumps(alike, sort_keys=True)):  # before any is written, so that all say the same
        raise UserError("The processes of a run must have the same flags and the same data; these differ.")
    check_same_settings(workdir, config)
    if (workdir / "config.json").exists():
        check_same_data(workdir, dataset)
    barrier("checked")
    if is_main_process():
        write_json(workdir / "config.json", record)
    barrier("claim")


def read_record(workdir: Path) -> dict[str, Any]:
    """The contents of `config.json`: config, classes, dataset. Raises UserError if the run is not there."""
    path = workdir / "config.json"
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UserError(
            f"{workdir} holds no run: config.json is missing.\nTrain one first with --mode=train."
        ) from error
    except ValueError as error:
        raise UserError(
            f"{path} is not JSON: {error}.\nRemove the whole of {workdir}, or choose another --workdir."
        ) from error
    whole = isinstance(record, dict) and {"config", "classes", "dataset"} <= record.keys()
    if not whole or not isinstance(record["config"], dict):
        raise UserError(f"{path} describes no run.\nRemove the whole of {workdir}, or choose another --workdir.")
    return record


def recorded_fields(config: ConfigDict) -> dict[str, Any]:
    """The configuration of one run: what a study makes of many is not part of it."""
    return {name: value for name, value in json.loads(config.to_json()).items() if name != "study"}


class MetricsWriter:
    """Appends one fold's metrics to `metrics.jsonl` and to TensorBoard events.

    What an interrupted run wrote after `first_step`, the step it continues from, is taken out first.
    """

    def __init__(self, workdir: Path, fold: int, first_step: int, enabled: bool = True):
        self._fold, self._enabled = fold, enabled
        if not enabled:  # another process writes
            return
        from tensorboardX import SummaryWriter  # it loads torch where that is installed, so only a run pays for it

        path = workdir / "metrics.jsonl"
        if path.exists():
            kept = [line for line in path.read_text().splitlines() if _is_before(line, fold, first_step)]
            write_atomic(path, lambda file: file.write("".join(f"{line}\n" for line in kept).encode()))
        self._lines = path.open("a")
        self._events = SummaryWriter(str(workdir / "tensorboard" / f"fold_{fold}"), purge_step=first_step + 1)

    def write(self, step: int, split: str, values: dict[str, Any]) -> None:
        """Records scalars after `step` steps; `split` is "train" or "validation"."""
        if not self._enabled:
            return
        scalars = {name: float(np.asarray(value)) for name, value in values.items()}
        self._lines.write(json.dumps({"fold": self._fold, "step": step, "split": split, **scalars}) + "\n")
        self._lines.flush()
        for name, value in scalars.items():
            self._events.add_scalar(f"{split}/{name}", value, step)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self._enabled:
            self._lines.close()
            self._events.close()


def _is_before(line: str, fold: int, step: int) -> bool:
    try:
        record = json.loads(line)
    except ValueError:  # the last line of a killed run
        return False
    return record["fold"] != fold or record["step"] <= step


def _flatten(tree: dict, prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
