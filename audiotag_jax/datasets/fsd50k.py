"""FSD50K (Fonseca et al., 2022, arXiv:2010.00475): 200 classes, several labels a clip, with its official splits.

The development set, 40,966 clips, has a training part (fold `train`, 36,796) and a validation part (fold `val`, 4,170);
the evaluation set, 10,231 clips, is the test split. Columns, by the release's FSD50K.doc/README.md: fname ("the file
name without the .wav extension"), labels and mids ("smeared": with all classes above them in AudioSet's ontology) and,
of dev.csv alone, split (train or val).
"""

import csv
from pathlib import Path

from audiotag_jax.datasets.records import Clip, ClipSource, validate
from audiotag_jax.evaluation.task import MULTI_LABEL
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.tables import read_table

URL = "https://doi.org/10.5281/zenodo.4060432"
TABLES = "FSD50K.ground_truth"
FOLDS = ("train", "val")  # the official training holds out fold 1


def open_fsd50k(path: str | Path) -> ClipSource:
    """Lists the clips of a folder with `FSD50K.ground_truth/`, `FSD50K.dev_audio/` and `FSD50K.eval_audio/`.

    Raises UserError where the tables are missing or bad.
    """
    root = Path(path)
    tables = {name: root / TABLES / f"{name}.csv" for name in ("dev", "eval", "vocabulary")}
    missing = next((table for table in tables.values() if not table.is_file()), None)
    if missing is not None:
        raise UserError(
            f"FSD50K is missing: there is no {missing}.\nGet it from {URL}, unpack it (the audio is in split archives: "
            "zip -s 0 joins them), and set config.dataset.path to its folder."
        )
    clips = []
    for row in read_table(tables["dev"], ("fname", "labels", "split")):
        if row["split"] not in FOLDS:
            raise UserError(f"{tables['dev']}: clip '{row['fname']}' has split '{row['split']}'; it is train or val.")
        clips.append(_clip(row, root / "FSD50K.dev_audio", FOLDS.index(row["split"]), "train"))
    clips += [
        _clip(row, root / "FSD50K.eval_audio", -1, "test") for row in read_table(tables["eval"], ("fname", "labels"))
    ]
    return validate(ClipSource("fsd50k", _vocabulary(tables["vocabulary"]), tuple(clips), FOLDS, (), MULTI_LABEL.name))


def _clip(row: dict[str, str], folder: Path, fold: int, split: str) -> Clip:
    labels = tuple(sorted(set(row["labels"].split(",")) - {""}))
    return Clip(row["fname"], str(folder / f"{row['fname']}.wav"), None, fold, split, True, "", labels)


def _vocabulary(table: Path) -> tuple[str, ...]:
    """Returns the classes in the order of `vocabulary.csv`, rows of number, name and AudioSet's id without a header."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file, strict=True) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{table} is not a valid CSV table ({error}).") from error
    if not rows or any(len(row) != 3 for row in rows):
        raise UserError(f"{table}: rows of three values are needed, number, name and AudioSet's id, without a header.")
    return tuple(row[1] for row in rows)
