"""The record that a run keeps of itself in its work directory: `config.json`, read back as settings."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.files import write_json
from audiotag_jax.settings.checks import FREE, LOCAL, marked
from audiotag_jax.settings.settings import SECTIONS, Settings, flatten, parse_settings, recorded_fields

FILE_NAME = "config.json"
FORMAT = 2  # of the record; in format 1 datasets were named after the text of the code, which cannot be known any more
FREE_FIELDS, LOCAL_FIELDS = (
    {f"{name}.{field}" for name, (_, kind) in SECTIONS.items() for field in marked(kind, mark)}
    for mark in (FREE, LOCAL)
)


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """What a run is: its settings, the classes in the order of its logits, the name of the dataset it is trained on."""

    settings: Settings
    classes: tuple[str, ...]
    dataset: str | None  # None: recorded under a name that is not given any more
    # `trained`: the environments in which the run was trained; `dataset`: the provenance of its dataset at that time.
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)
    pretrained_on: str = ""  # what its first weights, or those before them, were trained on elsewhere

    def as_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "config": recorded_fields(self.settings),
            "classes": list(self.classes),
            "dataset": self.dataset,
            "provenance": self.provenance,
            "pretrained_on": self.pretrained_on,
        }

    def shared_text(self) -> str:
        """Returns, as JSON, what must be the same in all processes of a run."""
        flat = flatten(self.as_json() | {"provenance": {}})
        return json.dumps({k: v for k, v in flat.items() if k.removeprefix("config.") not in LOCAL_FIELDS})


def fold_dir(workdir: Path, fold: int) -> Path:
    """Returns the folder of the checkpoints and predictions of a fold."""
    return workdir / f"fold_{fold}"


def write_record(workdir: Path, record: RunRecord) -> None:
    """Writes `config.json`."""
    write_json(workdir / FILE_NAME, record.as_json())


def load_record(workdir: Path) -> dict[str, Any]:
    """Reads `config.json` as it is: config, classes, dataset. Raises UserError if the run is not there."""
    path = workdir / FILE_NAME
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UserError(
            f"{workdir} contains no run: config.json is missing.\nTrain one first with --mode=train."
        ) from error
    except ValueError as error:
        raise UserError(
            f"{path} is not JSON: {error}.\nRemove the whole of {workdir}, or choose another --workdir."
        ) from error
    whole = isinstance(record, dict) and {"config", "classes", "dataset"} <= record.keys()
    if not whole or not isinstance(record["config"], dict):
        raise UserError(f"{path} describes no run.\nRemove the whole of {workdir}, or choose another --workdir.")
    return record


def read_record(workdir: Path) -> RunRecord:
    """Reads the run's record. Raises UserError if the run is not there, or is one of another version of the code."""
    record = load_record(workdir)
    try:
        settings = parse_settings(record["config"])
    except UserError as error:
        raise UserError(f"{workdir / FILE_NAME}: {error}\nChoose another --workdir.") from error
    dataset = record["dataset"] if record.get("format", 1) == FORMAT else None
    provenance, pretrained_on = record.get("provenance", {}), record.get("pretrained_on", "")
    return RunRecord(settings, tuple(record["classes"]), dataset, provenance, pretrained_on)


def recorded_dataset(workdir: Path) -> str | None:
    """Returns the name of the dataset of the directory's run; None if there is no run, or one that names none."""
    return read_record(workdir).dataset if (workdir / FILE_NAME).exists() else None


def settings_of_trained_folds(workdir: Path) -> Settings:
    """Returns the settings of the directory's run, of all folds that have checkpoints; its parts may have had fewer."""
    settings = read_record(workdir).settings
    folds = sorted(int(path.parent.name.removeprefix("fold_")) for path in workdir.glob("fold_[0-9]*/checkpoints"))
    return dataclasses.replace(settings, training=dataclasses.replace(settings.training, folds=tuple(folds)))


def is_only_recorded(workdir: Path) -> bool:
    """Returns whether the directory has the record of a run that has trained nothing, as after a failure at once."""
    trained = ("fold_*/checkpoints/[0-9]*", "fold_*/*predictions.npz", "metrics.jsonl")
    paths = (path for pattern in trained for path in workdir.glob(pattern))
    return (workdir / FILE_NAME).exists() and not any(path.is_dir() or path.stat().st_size for path in paths)


def check_same_settings(workdir: Path, settings: Settings) -> None:
    """Raises UserError, naming the fields, if the directory contains a run of other settings; cheap, so done first."""
    if not (workdir / FILE_NAME).exists():
        if any(workdir.glob("fold_*")):
            raise UserError(
                f"{workdir} contains folds but no config.json that describes them.\n"
                "Remove it, or choose another --workdir."
            )
        return
    old, new = (flatten(recorded_fields(each)) for each in (read_record(workdir).settings, settings))
    changed = [name for name in sorted(old) if old[name] != new[name] and name not in FREE_FIELDS]
    if changed:
        shown = [f"{name} (there {_shown(old[name])}, here {_shown(new[name])})" for name in changed[:5]]
        listed = ", ".join(shown) + (", …" if len(changed) > 5 else "")
        raise UserError(
            f"{workdir} contains another run; different: {listed}.\n"
            "Repeat that run's flags, or choose another --workdir."
        )


def _shown(value: Any) -> str:
    return str(value) or "empty"


def check_same_data(workdir: Path, dataset: str, classes: Sequence[str] | None = None) -> None:
    """Raises UserError if the run in the directory is on a dataset of another name, or of other `classes` if given."""
    record = read_record(workdir)
    if record.dataset not in (None, dataset) or (classes is not None and record.classes != tuple(classes)):
        raise UserError(
            f"{workdir} contains a run on other data: tables, recordings or the way they are prepared changed.\n"
            "Choose another --workdir, or remove it."
        )
