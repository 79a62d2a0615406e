"""ESC-50 and ESC-10 (Piczak, ACM Multimedia 2015) with their official folds."""

from pathlib import Path

from audiotag_jax.datasets.folds import number_folds
from audiotag_jax.datasets.records import Clip, ClipSource, train_classes, validate
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.tables import parse_flag, parse_fold, read_table

ESC_URL = "https://github.com/karolpiczak/ESC-50"


def open_esc(name: str, path: str | Path) -> ClipSource:
    """Lists `name`, "esc50" or "esc10", from a folder with `meta/*.csv` and `audio/`.

    The folds are numbered from 0 and keep their names, 1 to 5; a table may lack some. ESC-10 is also read from a full
    ESC-50 folder, as the rows whose column esc10 is True. Raises UserError.
    """
    root = Path(path)
    tables = [root / "meta" / "esc50.csv"]
    if name == "esc10":
        tables.insert(0, root / "meta" / "esc10.csv")
    table = next((table for table in tables if table.is_file()), None)
    if table is None:
        missing = " or ".join(str(table) for table in tables)
        raise UserError(
            f"{'ESC-10' if name == 'esc10' else 'ESC-50'} is missing: there is no {missing}.\n"
            f"Get it with `git clone {ESC_URL}` and set config.dataset.path to its folder."
        )
    rows = read_table(table, ("filename", "fold", "category") + (("esc10",) if name == "esc10" else ()))
    if name == "esc10":
        rows = [row for row in rows if parse_flag(row["esc10"], table, "esc10", row["filename"])]
    folds, names = number_folds({row["filename"]: _fold(row, table) for row in rows})
    clips = [_clip(row, folds[row["filename"]], root / "audio") for row in rows]
    return validate(ClipSource(name, train_classes(clips), tuple(clips), names))


def _fold(row: dict[str, str], table: Path) -> str:
    fold = parse_fold(row["fold"], table, row["filename"])
    if fold not in ("1", "2", "3", "4", "5"):
        raise UserError(f"{table}: clip '{row['filename']}' is in fold {fold}; the official folds are 1 to 5.")
    return fold


def _clip(row: dict[str, str], fold: int, audio_dir: Path) -> Clip:
    path = str(audio_dir / row["filename"])
    return Clip(row["filename"], path, row["category"] or None, fold, "train", True, row.get("src_file", ""))
