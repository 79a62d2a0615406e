"""A user's own recordings: a folder per label, or a CSV table."""

import difflib
import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

from audiotag_jax.audio.files import AUDIO_SUFFIXES, describe_left_out, list_sounds
from audiotag_jax.datasets.folds import multi_label_folds, number_folds, stratified_folds
from audiotag_jax.datasets.layouts import describe_unused, place_files
from audiotag_jax.datasets.records import SPLITS, Clip, ClipSource, train_classes, validate
from audiotag_jax.evaluation.task import MULTI_LABEL, SINGLE_LABEL
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.tables import parse_flag, parse_fold, read_table

PATH_COLUMNS = ("path", "filename", "fname", "file")
COLUMNS = (*PATH_COLUMNS, "label", "fold", "split", "verified", "manually_verified", "recording")


def open_folder(
    path: str | Path,
    table: str = "",
    num_folds: int = 5,
    seed: int = 0,
    name: str = "folder",
    label_separator: str = "",
) -> ClipSource:
    """Lists the clips of `path/LABEL/*`, or of the CSV file `table` if one is given.

    `path/train/LABEL/*` and `path/test/LABEL/*` are taken as splits, `path/fold1/LABEL/*` and so on as folds. The table
    may be in `path` or elsewhere. Columns are one of path, filename, fname or file, then label and, optionally, fold (a
    number or a name), split (train or test), verified or manually_verified (0, 1, true, false) and recording (a name
    shared by clips cut from the same recording). Paths are relative to the table's folder or to `path`. Without folds
    of the data, `stratified_folds` assigns them. With a `label_separator`, a row of the table has any number of labels;
    a training row without any is an example of none of the classes. Raises UserError.
    """
    root = Path(path)
    if not root.is_dir() and not (table and Path(table).is_file()):
        raise UserError(
            f"There is no folder {root}.\n"
            "Set config.dataset.path to a folder with a subfolder per label, or a CSV table (config.dataset.table)."
        )
    clips, fold_names, notes = _clips_of_table(root, table) if table else _clips_of_folder(root)
    if label_separator:
        clips = [_with_labels(clip, label_separator) for clip in clips]
    clips, label_notes = _merge_labels(clips)
    train = [clip for clip in clips if clip.split == "train"]
    folds, names = number_folds(fold_names)
    if train and not folds:
        folds = _assigned_folds(train, num_folds, seed, bool(label_separator))
    clips = [replace(clip, fold=folds[clip.id]) if clip.split == "train" else clip for clip in clips]
    task = MULTI_LABEL if label_separator else SINGLE_LABEL
    notes = [*notes, *label_notes, *_describe_empty(clips)]
    return validate(ClipSource(name, train_classes(clips), tuple(clips), names, tuple(notes), task.name))


def _assigned_folds(train: list[Clip], num_folds: int, seed: int, has_several_labels: bool) -> dict[str, int]:
    ids, recordings = [clip.id for clip in train], [clip.recording for clip in train]
    if has_several_labels:
        return multi_label_folds(ids, [clip.all_labels for clip in train], num_folds, seed, recordings)
    labels = [clip.label or "" for clip in train]  # a missing label is for `validate` to report
    return stratified_folds(ids, labels, [clip.verified for clip in train], num_folds, seed, recordings)


def _with_labels(clip: Clip, separator: str) -> Clip:
    """Returns the clip with the labels that `separator` divides, sorted; a test clip without any is not scored."""
    labels = tuple(sorted({part.strip() for part in (clip.label or "").split(separator)} - {""}))
    return replace(clip, label=None, labels=labels if labels or clip.split == "train" else None)


def _describe_empty(clips: list[Clip]) -> Iterator[str]:
    empty = [clip.id for clip in clips if clip.split == "train" and clip.labels == ()]
    if empty:
        have, they = ("clip has", "it counts") if len(empty) == 1 else ("clips have", "they count")
        yield f"{len(empty)} training {have} no label, such as {empty[0]!r}: {they} as none of the classes"


# Clips without folds, the names of the folds of training clips by id ({}: there are none), and notes for the user.
_Listed = tuple[list[Clip], dict[str, str], list[str]]


def _clips_of_folder(root: Path) -> _Listed:
    listing = list_sounds(root)
    notes = [*describe_left_out(listing), *describe_unused(listing)]
    clips, folds = [], {}
    for file, place in place_files(listing).items():
        clip_id = _as_text(file.relative_to(root).as_posix())
        label = None if place.label is None else _as_text(place.label)
        clips.append(Clip(clip_id, str(file), label, -1, place.split, verified=True))
        if place.fold:
            folds[clip_id] = place.fold
    if not clips:
        found = f" Found: {'; '.join(notes)}." if notes else ""
        raise UserError(
            f"No recordings under {root}: expected {root}/LABEL/*.wav (or {', '.join(AUDIO_SUFFIXES[1:])}).\n"
            f"If a CSV table lists the recordings, set config.dataset.table to it.{found}"
        )
    labels = sorted({clip.label for clip in clips if clip.label is not None})
    if len(labels) == 1:
        inner = root / labels[0]
        hint = f"Set config.dataset.path to the folder that contains the labels' folders, such as {inner}."
        raise UserError(
            f"All recordings under {root} have one label, {labels[0]!r}; at least 2 distinct classes are needed.\n"
            + (hint if inner.is_dir() else "Add recordings of a second label.")
        )
    return clips, folds, notes


def _as_text(name: str) -> str:
    """Returns a name with the bytes that are not UTF-8 escaped: records store valid text alone."""
    return os.fsencode(name).decode(errors="backslashreplace")


def _merge_labels(clips: list[Clip]) -> tuple[list[Clip], list[str]]:
    """Makes labels that differ only in their Unicode form one, and notes that, and labels that differ only in case."""
    forms = defaultdict(set)
    for label in {label for clip in clips for label in clip.all_labels}:
        forms[unicodedata.normalize("NFC", label)].add(label)
    merged = {label: form for form, labels in forms.items() if len(labels) > 1 for label in labels}
    notes = [
        f"label {form!r}: written in {len(labels)} Unicode forms, taken as one"
        for form, labels in sorted(forms.items())
        if len(labels) > 1
    ]
    cases = defaultdict(list)
    for form in sorted(forms):
        cases[form.casefold()].append(form)
    alike = (", ".join(map(repr, labels)) for labels in cases.values() if len(labels) > 1)
    notes += [f"labels {labels} differ only in case: they are different classes" for labels in alike]
    if merged:
        clips = [_renamed(clip, merged) for clip in clips]
    return clips, notes


def _renamed(clip: Clip, names: Mapping[str, str]) -> Clip:
    if clip.labels is None:
        return replace(clip, label=names.get(clip.label or "", clip.label))
    return replace(clip, labels=tuple(sorted({names.get(label, label) for label in clip.labels})))


def _clips_of_table(root: Path, table: str) -> _Listed:
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
        return clips, {}, []
    folds = {
        clip.id: parse_fold(row["fold"], table_path, clip.id)
        for clip, row in zip(clips, rows, strict=True)
        if clip.split == "train"
    }
    return clips, folds, []


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
