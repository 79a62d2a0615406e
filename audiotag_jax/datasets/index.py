"""The index beside the records of a prepared dataset: what is known of each clip besides its sound or image.

`index.parquet` has a row for each record, the splits one after the other, each in the order of its records. It is
written with the dataset; that of a dataset without one, as earlier releases wrote them, is made from its records once.
Where a clip may have any number of labels, the column `labels` lists them in place of `label`.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from audiotag_jax.datasets.prepared import read_metadata, record_source, split_sizes
from audiotag_jax.datasets.records import Clip
from audiotag_jax.evaluation.task import MULTI_LABEL, SINGLE_LABEL
from audiotag_jax.runtime.files import locked, write_atomic
from audiotag_jax.runtime.progress import log, progress

FILE_NAME = "index.parquet"
SCHEMA = pa.schema(
    {
        "split": pa.string(),
        "id": pa.string(),
        "label": pa.int32(),  # -1: not scored
        "fold": pa.int32(),  # -1 in the test split
        "verified": pa.bool_(),
        "recording": pa.string(),  # what the clip was cut from, if that is known, else empty
        "sound": pa.string(),  # hash of the file's bytes; empty if the file was missing, or the dataset is older
        "place": pa.int32(),  # among the rows of a submission; -1: not known
    }
)
MULTI_LABEL_SCHEMA = pa.schema(
    [pa.field("labels", pa.list_(pa.int32())) if each.name == "label" else each for each in SCHEMA]  # null: not scored
)
_CHUNK = 256  # records per read
_NOTES = b"notes"  # in the file's metadata: a hash of what may change without the dataset's name
_process_cache: dict[Path, pa.Table] = {}  # of datasets in folders that cannot be written


def make_index(
    clips: Sequence[Clip],
    classes: Sequence[str],
    contents: Mapping[str, str],
    left_out: Iterable[str] = (),
    submission: Sequence[str] = (),
    task: str = SINGLE_LABEL.name,
) -> pa.Table:
    """Returns the index of a source's `clips`, in their order, without the training clips whose ids are `left_out`.

    `contents` are hashes by path, `submission` the ids of the test clips in the order of a submission.
    """
    labels, absent = {name: number for number, name in enumerate(classes)}, set(left_out)
    places = {clip_id: place for place, clip_id in enumerate(submission)}
    rows = [clip for clip in clips if clip.split != "train" or clip.id not in absent]
    rows.sort(key=lambda clip: clip.split != "train")  # as they are written: train first
    columns: dict[str, list] = {
        "split": [clip.split for clip in rows],
        "id": [clip.id for clip in rows],
        "fold": [clip.fold for clip in rows],
        "verified": [clip.verified for clip in rows],
        "recording": [clip.recording for clip in rows],
        "sound": [contents.get(clip.path, "") for clip in rows],
        "place": [places.get(clip.id, -1) if clip.split == "test" else -1 for clip in rows],
    }
    if task == MULTI_LABEL.name:
        columns["labels"] = [None if clip.labels is None else [labels[name] for name in clip.labels] for clip in rows]
    else:
        columns["label"] = [-1 if clip.label is None else labels[clip.label] for clip in rows]
    notes = {_NOTES: hash_notes(clips, submission).encode()}
    return pa.table(columns, schema=schema_of(task).with_metadata(notes))


def schema_of(task: str) -> pa.Schema:
    """Returns the columns of an index."""
    return MULTI_LABEL_SCHEMA if task == MULTI_LABEL.name else SCHEMA


def label_array(index: pa.Table, num_classes: int) -> np.ndarray:
    """Returns labels `[n]` int64 of the rows, or `[n, K]` int8 where a clip has any number: see `evaluation.task`."""
    if "label" in index.column_names:
        return index["label"].to_numpy().astype(np.int64)
    labels = np.zeros((len(index), num_classes), np.int8)
    for row, numbers in enumerate(index["labels"].to_pylist()):
        labels[row, slice(None) if numbers is None else numbers] = -1 if numbers is None else 1
    return labels


def hash_notes(clips: Iterable[Clip], submission: Sequence[str] = ()) -> str:
    """Returns a hash of what an index contains beyond the dataset's name: recordings, and the order of a submission."""
    notes = json.dumps([[clip.recording for clip in clips], list(submission)])
    return hashlib.sha256(notes.encode()).hexdigest()[:16]


def stored_notes(directory: Path) -> str | None:
    """Returns the hash of the notes of a stored index, without reading its rows; None if there is none."""
    try:
        kept = _process_cache.get(directory)
        metadata = (pq.read_schema(directory / FILE_NAME) if kept is None else kept.schema).metadata
    except (OSError, pa.ArrowException):
        return None
    return (metadata or {}).get(_NOTES, b"").decode()


def write_index(directory: Path, index: pa.Table) -> None:
    """Writes `index.parquet`, atomically."""
    write_atomic(directory / FILE_NAME, lambda file: pq.write_table(index, file, compression="zstd"))


def read_index(directory: Path) -> pa.Table:
    """Returns the index of a complete dataset; one that lacks it, or has a damaged one, gets it from its records."""
    if directory in _process_cache:
        return _process_cache[directory]
    if (index := load_index(directory)) is None:
        index = _index_of_records(directory)
        save_index(directory, index)
    return index


def load_index(directory: Path) -> pa.Table | None:
    """Returns the index of a dataset as it is stored; None if there is none that fits its records."""
    try:
        with (directory / FILE_NAME).open("rb") as file:  # of a path, PyArrow would take `name=value` for a column
            index = pq.read_table(file)
    except (OSError, pa.ArrowException):
        return None
    counts = {row["values"]: row["counts"] for row in pc.value_counts(index["split"]).to_pylist()}
    sizes = {split: size for split, size in split_sizes(directory).items() if size}
    schema = schema_of(read_metadata(directory).get("task", SINGLE_LABEL.name))
    return index if index.schema.equals(schema) and counts == sizes else None


def save_index(directory: Path, index: pa.Table) -> None:
    """Puts an index beside the records of a complete dataset; where that fails, keeps it in this process."""
    _process_cache[directory] = index
    with contextlib.suppress(OSError), locked(directory.parent, "updating the index in", wait=True):
        write_index(directory, index)
        del _process_cache[directory]


def rows_of(index: pa.Table, split: str) -> pa.Table:
    """Returns the rows of a split, in the order of its records."""
    return index.filter(pc.equal(index["split"], split))


def test_order(directory: Path) -> tuple[str, ...]:
    """Returns the ids of the test clips in the order of the challenge's sample submission if it exists, else sorted."""
    test = rows_of(read_index(directory), "test")
    return tuple(test.sort_by([("place", "ascending"), ("id", "ascending")])["id"].to_pylist())


def recordings_of_clips(directory: Path) -> dict[str, str]:
    """Returns by clip id the name of the recording it was cut from, for clips that have one."""
    index = read_index(directory)
    known = index.filter(pc.not_equal(index["recording"], ""))
    return dict(zip(known["id"].to_pylist(), known["recording"].to_pylist(), strict=True))


def copies_across_folds(directory: Path) -> list[list[str]]:
    """Returns the ids of clips whose files are byte for byte the same and lie in different folds or splits, by file."""
    index = read_index(directory).select(["id", "sound", "split", "fold"])
    index = index.filter(pc.not_equal(index["sound"], ""))
    place = pc.binary_join_element_wise(index["split"], pc.cast(index["fold"], pa.string()), " ")
    groups = index.append_column("place", place).group_by("sound", use_threads=False)
    found = groups.aggregate([("place", "count_distinct"), ("id", "list")])
    return found.filter(pc.greater(found["place_count_distinct"], 1))["id_list"].to_pylist()


def _index_of_records(directory: Path) -> pa.Table:
    """Reads every record once; recordings, sounds and places are not known from them."""
    task = read_metadata(directory).get("task", SINGLE_LABEL.name)
    fields = ("id", "labels" if task == MULTI_LABEL.name else "label", "fold", "verified")
    columns: dict[str, list] = {name: [] for name in ("split", *fields)}
    log(f"{directory} has no index, as datasets of earlier releases; making it once")
    for split, size in split_sizes(directory).items():
        source = record_source(directory, split, fields)
        for start in progress(range(0, size, _CHUNK), -(-size // _CHUNK), f"indexing {split} clips", "chunks"):
            for record in source.__getitems__(list(range(start, min(start + _CHUNK, size)))):
                columns["split"].append(split)
                for name in fields:
                    columns[name].append(_numbers(record[name]) if name == "labels" else record[name])
    columns["id"] = [clip_id.decode() for clip_id in columns["id"]]
    empty = [""] * len(columns["id"])
    return pa.table(columns | {"recording": empty, "sound": empty, "place": [-1] * len(empty)}, schema=schema_of(task))


def _numbers(labels: np.ndarray) -> list[int] | None:
    """Returns the numbers of a clip's classes of a record's `labels` `[K]`; None if it is not scored."""
    return None if (labels < 0).any() else np.flatnonzero(labels).tolist()
