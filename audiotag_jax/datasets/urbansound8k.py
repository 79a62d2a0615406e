"""UrbanSound8K (Salamon, Jacoby & Bello, ACM Multimedia 2014): 8,732 clips, 10 classes, with its ten official folds."""

from pathlib import Path

from audiotag_jax.datasets.folds import number_folds
from audiotag_jax.datasets.records import Clip, ClipSource, train_classes, validate
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.tables import parse_fold, read_table

URL = "https://doi.org/10.5281/zenodo.1203745"
TABLE = Path("metadata", "UrbanSound8K.csv")
OFFICIAL_FOLDS = tuple(str(number) for number in range(1, 11))


def open_urbansound8k(path: str | Path) -> ClipSource:
    """Lists the clips of a folder with `metadata/UrbanSound8K.csv` and `audio/fold1/` to `fold10/`.

    The folds are numbered from 0 and keep their names, 1 to 10; the recording of a clip is its Freesound id. Raises
    UserError where the table is missing or bad.
    """
    root = Path(path)
    table = root / TABLE
    if not table.is_file():
        raise UserError(
            f"UrbanSound8K is missing: there is no {table}.\n"
            f"Get it from {URL}, unpack it and set config.dataset.path to its folder, or set "
            "config.dataset.download=True."
        )
    rows = read_table(table, ("slice_file_name", "fsID", "fold", "class"))
    names = {row["slice_file_name"]: _fold(row, table) for row in rows}
    folds, fold_names = number_folds(names)
    clips = [_clip(row, folds[row["slice_file_name"]], names[row["slice_file_name"]], root / "audio") for row in rows]
    return validate(ClipSource("urbansound8k", train_classes(clips), tuple(clips), fold_names))


def is_complete(path: str | Path) -> bool:
    """Returns whether the table and the folder of the audio exist."""
    return (Path(path) / TABLE).is_file() and (Path(path) / "audio").is_dir()


def _fold(row: dict[str, str], table: Path) -> str:
    fold = parse_fold(row["fold"], table, row["slice_file_name"])
    if fold not in OFFICIAL_FOLDS:
        raise UserError(f"{table}: clip '{row['slice_file_name']}' is in fold {fold}; the official folds are 1 to 10.")
    return fold


def _clip(row: dict[str, str], fold: int, fold_name: str, audio_dir: Path) -> Clip:
    path = str(audio_dir / f"fold{fold_name}" / row["slice_file_name"])
    return Clip(row["slice_file_name"], path, row["class"] or None, fold, "train", True, row["fsID"])
