"""A user's own recordings: a folder per label, or a CSV table."""

import difflib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath

from audiotag_jax.audio.files import AUDIO_SUFFIXES, audio_files
from audiotag_jax.datasets.folds import stratified_folds
from audiotag_jax.datasets.records import SPLITS, Clip, ClipSource, train_classes, validate
from audiotag_jax.datasets.tables import parse_flag, parse_int, read_table
from audiotag_jax.runtime.errors import UserError

PATH_COLUMNS = ("path", "filename", "fname", "file")
COLUMNS = (*PATH_COLUMNS, "label", "fold", "split", "verified", "manually_verified", "recording")


def open_folder(
    path: str | Path, table: str = "", num_folds: int = 5, seed: int = 0, name: str = "folder"
) -> ClipSource:
    """Lists the clips of `path/LABEL/*`, or of the CSV file `table` if one is given.

    The table may be in `path` or elsewhere. Columns are one of path, filename, fname or file, then label and,
    optionally, fold, split (train or test), verified or manually_verified (0, 1, true, false) and recording (a name
    shared by clips cut from the same recording). Paths are relative to the table's folder or to `path`. Without a
    column fold, `stratified_folds` assigns the folds. Raises UserError.
    """
    root = Path(path)
    if not root.is_dir():
        raise UserError(
            f"There is no folder {root}.\n"
            "Set config.dataset.path to a folder with a subfolder per label, or a CSV table (config.dataset.table)."
        )
    clips, folds = _clips_of_table(root, table) if table else (_clips_of_folder(root), {})
    train = [clip for clip in clips if clip.split == "train"]
    if train and not folds:
        labels = [clip.label or "" for clip in train]  # a missing label is for `validate` to report
        verified, recordings = [clip.verified for clip in train], [clip.recording for clip in train]
        folds = stratified_folds([clip.id for clip in train], labels, verified, num_folds, seed, recordings)
    clips = [replace(clip, fold=folds[clip.id]) if clip.split == "train" else clip for clip in clips]
    return validate(ClipSource(name, train_classes(clips), tuple(clips)))


def _clips_of_folder(root: Path) -> list[Clip]:
    clips = []
    for label_dir in sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
        for file in audio_files(label_dir):
            clip_id = file.relative_to(root).as_posix()
            clips.append(Clip(clip_id, str(file), label_dir.name, -1, "train", verified=True))
    if not clips:
        raise UserError(
            f"No recordings under {root}: expected {root}/LABEL/*.wav (or {', '.join(AUDIO_SUFFIXES[1:])}).\n"
            "If a CSV table lists the recordings, set config.dataset.table to it."
        )
    return clips


def _clips_of_table(root: Path, table: str) -> tuple[list[Clip], dict[str, int]]:
    """Returns the table's clips without folds, and the folds of training clips by id, {} if the table has none."""
    table_path = root / table if (root / table).is_file() else Path(table)
    if not table_path.is_file():
        raise UserError(f"There is no table {table} in {root} or here.\nSet config.dataset.table to a CSV file.")
    rows = read_table(table_path, ("label",))
    path_column = next((column for column in PATH_COLUMNS if column in rows[0]), None)
    if path_column is None:
        raise UserError(
            f"{table_path} lacks a column of file names: {', '.join(PATH_COLUMNS[:-1])} or {PATH_COLUMNS[-1]} "
            f"(found: {', '.join(rows[0])})."
        )
    _check_columns(table_path, rows[0])
    clips = [_clip_of_row(row, row[path_column], table_path, root) for row in rows]
    if "fold" not in rows[0]:
        return clips, {}
    folds = {
        clip.id: parse_int(row["fold"], table_path, "fold", clip.id)
        for clip, row in zip(clips, rows, strict=True)
        if clip.split == "train"
    }
    numbers = sorted(set(folds.values()))
    if numbers and numbers[0] < 0:
        raise UserError(f"{table_path}: fold {numbers[0]} in a training row; folds are numbered from 0 or 1.")
    return clips, {clip_id: numbers.index(fold) for clip_id, fold in folds.items()}


def _check_columns(table: Path, columns: Iterable[str]) -> None:
    """Raises UserError for an unknown column whose name is close to a known one; other columns are ignored."""
    for column in columns:
        if column not in COLUMNS:
            near = difflib.get_close_matches(column.lower(), COLUMNS, 1, cutoff=0.88)
            if near and near[0] not in columns:
                raise UserError(
                    f"{table}: unknown column '{column}'; rename it to '{near[0]}', or to something less similar."
                )


def _clip_of_row(row: dict[str, str], file: str, table: Path, root: Path) -> Clip:
    if not file:
        raise UserError(f"{table}: a row with label '{row['label']}' has no file name.")
    clip_id = PurePosixPath(file.replace("\\", "/")).as_posix()  # Windows tables too; "./a.wav" is "a.wav"
    split = row.get("split", "train").lower()
    if split not in SPLITS:
        raise UserError(f"{table}: clip '{clip_id}' has split '{row['split']}'; choose from {', '.join(SPLITS)}.")
    verified = all(
        parse_flag(row[column], table, column, clip_id) for column in ("verified", "manually_verified") if column in row
    )
    beside_table, in_root = table.parent / clip_id, root / clip_id
    path = in_root if in_root.exists() and not beside_table.exists() else beside_table
    return Clip(clip_id, str(path), row["label"] or None, -1, split, verified, row.get("recording", ""))
