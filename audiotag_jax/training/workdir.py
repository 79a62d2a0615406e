"""The work directory of a run: its lock, its record, and its metrics."""

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from audiotag_jax.evaluation import multilabel
from audiotag_jax.evaluation.metrics import METRICS
from audiotag_jax.runtime.environment import differences, environment
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.files import locked, write_atomic
from audiotag_jax.runtime.processes import all_processes_equal, barrier, broadcast_from_main, is_main_process
from audiotag_jax.runtime.progress import log
from audiotag_jax.settings.record import (
    FILE_NAME,
    RunRecord,
    check_same_data,
    check_same_settings,
    is_only_recorded,
    read_record,
    write_record,
)
from audiotag_jax.settings.settings import Settings
from audiotag_jax.training.initial_weights import pretrained_on


@contextlib.contextmanager
def lock_workdir(workdir: Path) -> Iterator[None]:
    """Locks the directory against other runs; of several processes of one run, the main process takes the lock."""
    with contextlib.ExitStack() as stack:
        trouble = None
        if is_main_process():
            try:
                stack.enter_context(locked(workdir, "using"))
            except (UserError, OSError) as error:
                trouble = error
        if not broadcast_from_main(trouble is None):  # else the others would wait forever
            raise trouble or UserError(
                "The main process could not lock the work directory; its error message has the reason."
            )
        yield


def record_config(
    workdir: Path,
    settings: Settings,
    classes: Sequence[str],
    dataset: str,
    trained_on: Mapping[str, Any] | None = None,
) -> None:
    """Writes `config.json`: settings, classes and `dataset`, the name of what the network is trained on.

    Training records its environment, and the provenance `trained_on` of its dataset, beside those recorded before.
    Raises UserError if the directory contains a run of other settings, or of other data; training replaces the record
    of one that has trained nothing.
    """
    record = RunRecord(settings, tuple(classes), dataset, pretrained_on=pretrained_on(settings.model))
    if not all_processes_equal(record.shared_text()):  # before any is written, so that all processes fail alike
        raise UserError("The processes of a run must have the same flags and the same data; these differ.")
    replaces = trained_on is not None and is_only_recorded(workdir)
    if not replaces:
        check_same_settings(workdir, settings)
    if (workdir / FILE_NAME).exists() and not replaces:
        check_same_data(workdir, dataset, classes)
        earlier = read_record(workdir)
        record.provenance.update(earlier.provenance)
        # A run whose network was the first weights may be gone by now.
        record = dataclasses.replace(record, pretrained_on=earlier.pretrained_on or record.pretrained_on)
    barrier("checked")
    if is_main_process():
        if trained_on is not None:
            _add_environment(record.provenance, trained_on)
        write_record(workdir, record)
    barrier("recorded")


def log_differences(workdir: Path, dataset: Mapping[str, Any]) -> None:
    """Logs what differs between this environment and those that the run was trained in, and likewise of its images.

    `dataset` is the provenance of the images now: where they were lost and made again, it is not the recorded one.
    """
    provenance = read_record(workdir).provenance
    trained, now = provenance.get("trained", []), environment()
    if trained and all(differences(each, now) for each in trained):
        changed = ", ".join(differences(trained[-1], now))
        log(f"note: the run was trained with {changed}; scores may differ in the last digits")
    before, after = (each.get("images", []) for each in (provenance.get("dataset", {}), dataset))
    if before and after and (changed := ", ".join(differences(before[0], after[0]))):
        log(f"note: the images that the run was trained on were computed with {changed}; they were computed again")


def _add_environment(provenance: dict[str, Any], dataset: Mapping[str, Any]) -> None:
    trained, now = provenance.setdefault("trained", []), environment()
    if not trained or all(differences(each, now) for each in trained):
        trained.append(now)
    provenance.setdefault("dataset", dict(dataset))


class MetricsWriter:
    """Appends one fold's metrics to `metrics.jsonl` and to TensorBoard events.

    Lines that an interrupted run wrote after `first_step`, the step it continues from, are removed first.
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
        """Records scalars after `step` steps; `split` is "train" or "validation".

        In TensorBoard, what is neither loss nor score, as a learning rate, is under "watch", the last in its order.
        """
        if not self._enabled:
            return
        scalars = {name: float(np.asarray(value)) for name, value in values.items()}
        self._lines.write(json.dumps({"fold": self._fold, "step": step, "split": split, **scalars}) + "\n")
        self._lines.flush()
        for name, value in scalars.items():
            is_score = name in ("loss", *multilabel.METRICS) or any(name == each.name for each in METRICS)
            self._events.add_scalar(f"{split if is_score else 'watch'}/{name}", value, step)

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
