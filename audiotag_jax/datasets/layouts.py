"""What the folders of a user's recordings mean: labels, or official splits or folds with labels inside."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from audiotag_jax.audio.files import Listing, count_suffixes, count_things, name_some, needs_pyav, printable
from audiotag_jax.runtime.errors import UserError

SPLIT_FOLDERS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
VALIDATION_FOLDERS = ("val", "valid", "validation", "dev", "eval", "evaluation")
_FOLD = re.compile(r"fold[ _-]?(\d+)", re.IGNORECASE)
_TABLE_HINT = "list the recordings in a CSV table (config.dataset.table)"


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a recording lies: its label, None for an unscored test clip, its split, and its fold's name, or ""."""

    label: str | None
    split: str
    fold: str = ""


def place_files(listing: Listing) -> dict[Path, Place]:
    """Returns the places of the sound files below `ROOT/LABEL`, `ROOT/train/LABEL` and `test`, or `ROOT/foldK/LABEL`.

    Files directly in ROOT are left out. Raises UserError for a layout that looks like one of splits or folds but has
    others beside them, or recordings without a label.
    """
    parts = {file: file.relative_to(listing.folder).parts for file in listing.files}
    tops = {names[0] for names in parts.values() if len(names) > 1}
    nested = _has_splits_or_folds(listing.folder, tops)
    return {file: _place(listing.folder, names, nested) for file, names in parts.items() if len(names) > 1}


def describe_unused(listing: Listing) -> list[str]:
    """Returns a line each for sound files without a label, and for subfolders of ROOT without any sound file."""
    root, lines = listing.folder, []
    loose = [file for file in listing.files if file.parent == root]
    if loose:
        lines.append(
            f"left out: {count_things(len(loose), 'sound file')} in no label's folder: {name_some(loose, root)}"
        )
    used = {file.relative_to(root).parts[0] for file in listing.files}
    others: dict[str, list[Path]] = {}
    for file in listing.others:
        if len(names := file.relative_to(root).parts) > 1 and names[0] not in used:
            others.setdefault(names[0], []).append(file)
    for name, files in sorted(others.items()):
        hint = "; PyAV decodes some: pip install av" if needs_pyav(files) else ""
        lines.append(f"left out: folder {printable(name)} has no file of a known type ({count_suffixes(files)}){hint}")
    return lines


def _has_splits_or_folds(root: Path, tops: set[str]) -> bool:
    """Returns whether labels are one level further down, by the names of the folders below ROOT."""
    folds = {name for name in tops if _FOLD.fullmatch(name)}
    splits = {name for name in tops if name.lower() in SPLIT_FOLDERS}
    validation = {name for name in tops if name.lower() in VALIDATION_FOLDERS}
    test = {name for name in splits if SPLIT_FOLDERS[name.lower()] == "test"}
    has_several = bool(splits - test) and bool(
        test | validation
    )  # a label may be named train, but not a second one too
    if len(folds) > 1:
        _refuse_others(root, "folds", folds, tops - folds - test)
        return True
    if has_several:
        _refuse_others(root, "splits", splits | validation, tops - splits - validation)
    if splits and validation and tops == splits | validation:
        raise UserError(
            f"{root} has the folders {_listed(tops)}: folds are made of the training clips, so there is no third part."
            f"\nMove {_listed(validation)} into the training folder, or {_TABLE_HINT} with the columns split and fold."
        )
    return bool(splits - test) and tops == splits


def _refuse_others(root: Path, what: str, folders: set[str], others: set[str]) -> None:
    if others:
        raise UserError(
            f"{root} has folders of {what} ({_listed(folders)}) and others beside them ({_listed(others)}).\n"
            f"Move those elsewhere, or {_TABLE_HINT} with the columns path, label and {what.removesuffix('s')}."
        )


def _place(root: Path, names: Sequence[str], nested: bool) -> Place:
    if not nested:
        return Place(names[0], "train")
    fold = _FOLD.fullmatch(names[0])
    split = "train" if fold else SPLIT_FOLDERS[names[0].lower()]
    label = names[1] if len(names) > 2 else None
    if label is None and split == "train":
        raise UserError(
            f"{root / names[0]} has recordings outside a label's folder, such as {printable(names[-1])}.\n"
            f"Expected {root / names[0]}/LABEL/*.wav; or {_TABLE_HINT} with the columns path, label and "
            f"{'fold' if fold else 'split'}."
        )
    return Place(label, split, fold[1] if fold else "")


def _listed(names) -> str:
    names = sorted(names)
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
