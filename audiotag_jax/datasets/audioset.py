"""AudioSet (Gemmeke et al., ICASSP 2017): several labels a clip, from its own tables, of the clips that are there.

AudioSet publishes the labels of segments of videos, not their sounds, so people have different parts of it. Its tables
are `class_labels_indices.csv` (index, mid, display_name) and, of segments (video, start and end in seconds, mids),
`balanced_train_segments.csv`, `unbalanced_train_segments.csv` and `eval_segments.csv`.
"""

import csv
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from audiotag_jax.audio.files import Listing, list_sounds, needs_pyav
from audiotag_jax.datasets.folds import multi_label_folds
from audiotag_jax.datasets.records import Clip, ClipSource, validate
from audiotag_jax.evaluation.task import MULTI_LABEL
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.tables import read_table

URL = "https://research.google.com/audioset/download.html"
CLASSES = "class_labels_indices.csv"
TRAIN = ("balanced_train_segments.csv", "unbalanced_train_segments.csv")
TEST = "eval_segments.csv"
_NAME = re.compile(r"(?P<video>[\w-]{11})(?:_(?P<start>\d+(?:\.\d+)?)(?:_.*)?)?", re.ASCII)  # without a leading Y

# The files of a video: the start in its name, None without one, and the path.
_Files = Mapping[str, list[tuple[float | None, Path]]]


class _Segment(NamedTuple):
    video: str
    start_s: float
    labels: tuple[str, ...]


def open_audioset(path: str | Path, num_folds: int = 5, seed: int = 0) -> ClipSource:
    """Lists the segments of the tables in `path` or `path/metadata` that have a sound file anywhere below `path`.

    Files are named by their video: `YTID.wav`, `YYTID.wav`, or `YTID_START….wav` with the start in seconds or
    milliseconds, of any format. Training segments get folds that spread every label evenly, those of the evaluation
    table are the test split; segments without a file are counted in a note. Classes are the display names, in the order
    of their table. Raises UserError where a table is missing or bad, or no training segment has a file.
    """
    root = Path(path)
    classes, test = _find(root, CLASSES), _find(root, TEST)
    tables = [table for name in TRAIN if (table := _find(root, name)) is not None]
    if classes is None or not tables:
        raise UserError(
            f"AudioSet is missing: {root} has no {CLASSES if classes is None else TRAIN[0]}.\n"
            f"Get the tables from {URL} and set config.dataset.path to a folder with them and with your clips "
            "(YTID.wav, in any subfolder); the sounds are not published."
        )
    names = {row["mid"]: row["display_name"] for row in read_table(classes, ("mid", "display_name"))}
    listing = list_sounds(root)
    files, clips, notes = _files_by_video(listing.files), [], []
    for table in (*tables, *([test] if test is not None else ())):
        segments = list(_segments(table, names))
        found = [_clip(each, file, table == test) for each in segments if (file := _file_of(each, files)) is not None]
        clips += found
        if len(found) < len(segments):
            notes.append(f"{table.name}: {len(segments) - len(found)} of {len(segments)} segments have no file")
    train = [clip for clip in clips if clip.split == "train"]
    if not train:
        raise UserError(
            f"No training segment of AudioSet has a file below {root}; it would be named YTID.wav{_pyav_hint(listing)}."
        )
    ids, recordings = [clip.id for clip in train], [clip.recording for clip in train]
    folds = multi_label_folds(ids, [clip.all_labels for clip in train], num_folds, seed, recordings)
    clips = [replace(clip, fold=folds[clip.id]) if clip.split == "train" else clip for clip in clips]
    return validate(
        ClipSource(
            "audioset", tuple(names.values()), tuple(clips), (), tuple(_joined(notes, listing)), MULTI_LABEL.name
        )
    )


def _joined(notes: list[str], listing: Listing) -> Iterator[str]:
    if notes:
        yield f"AudioSet, left out: {'; '.join(notes)}{_pyav_hint(listing)}"


def _pyav_hint(listing: Listing) -> str:
    return "; some files can be decoded with PyAV: pip install av" if needs_pyav(listing.others) else ""


def _clip(segment: _Segment, file: Path, is_test: bool) -> Clip:
    clip_id = f"{segment.video}_{segment.start_s:.10g}"
    split = "test" if is_test else "train"
    return Clip(clip_id, str(file), None, -1, split, True, segment.video, segment.labels)


def _segments(table: Path, names: Mapping[str, str]) -> Iterator[_Segment]:
    """Yields the rows, which are `video, start, end, "mid,mid"` below comments that begin with #."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, skipinitialspace=True, strict=True)
            for row in reader:
                if row and not row[0].startswith("#") and row[0] != "YTID":
                    yield _segment(row, f"{table}, line {reader.line_num}", names)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{table} is not a valid CSV table ({error}).") from error
    except OSError as error:
        raise UserError(f"Cannot read the table {table}: {error.strerror or error}.") from error


def _segment(row: list[str], place: str, names: Mapping[str, str]) -> _Segment:
    if len(row) != 4:
        raise UserError(f"{place}: {len(row)} values; a row has a video, its start, its end and mids in quotes.")
    video, start, _, mids = (value.strip() for value in row)
    unknown = next((mid for mid in mids.split(",") if mid and mid not in names), None)
    if unknown is not None:
        raise UserError(f"{place}: label {unknown!r} is not in {CLASSES}.")
    try:
        start_s = float(start)
    except ValueError:
        start_s = math.nan
    if not 0 <= start_s < math.inf:
        raise UserError(f"{place}: start {start!r} is not a number of seconds.")
    return _Segment(video, start_s, tuple(sorted({names[mid] for mid in mids.split(",") if mid})))


def _files_by_video(paths: Sequence[Path]) -> _Files:
    """Returns start (or None) and path of sound files by the videos that names may mean, with and without a first Y."""
    files = defaultdict(list)
    for path in paths:
        for stem in {path.stem, path.stem.removeprefix("Y")}:
            if named := _NAME.fullmatch(stem):
                files[named["video"]].append((float(named["start"]) if named["start"] else None, path))
    return files


def _file_of(segment: _Segment, files: _Files) -> Path | None:
    """Returns the file with the segment's start in its name, in s or ms, else the one of its video without a start."""
    own = files.get(segment.video, ())
    for starts in ((segment.start_s, round(1000 * segment.start_s, 3)), (None,)):
        for start, path in own:
            if start in starts:
                return path
    return None


def _find(root: Path, name: str) -> Path | None:
    return next((folder / name for folder in (root, root / "metadata") if (folder / name).is_file()), None)
