"""The work directory of a run: its lock, its record, and its metrics."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.files import locked, write_atomic
from audiotag_jax.runtime.processes import all_processes_equal, barrier, broadcast_from_main, is_main_process
from audiotag_jax.settings.record import FILE_NAME, RunRecord, check_same_data, check_same_settings, write_record
from audiotag_jax.settings.settings import Settings


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


def record_config(workdir: Path, settings: Settings, classes: Sequence[str], dataset: str) -> None:
    """Writes `config.json`: settings, classes and `dataset`, the name of what the network is trained on.

    Raises UserError if the directory contains a run of other settings, or of other data.
    """
    record = RunRecord(settings, tuple(classes), dataset)
    if not all_processes_equal(record.shared_text()):  # before any is written, so that all processes fail alike
        raise UserError("The processes of a run must have the same flags and the same data; these differ.")
    check_same_settings(workdir, settings)
    if (workdir / FILE_NAME).exists():
        check_same_data(workdir, dataset, classes)
    barrier("checked")
    if is_main_process():
        write_record(workdir, record)
    barrier("recorded")


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
