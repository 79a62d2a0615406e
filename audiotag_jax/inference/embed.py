"""Mode `embed`: one vector a window of recordings, or a clip of a data set: the features before a network's head.

Vectors of recordings are collected on disk, so memory does not grow with their size. Written are `embeddings.npz` and
`embeddings.parquet`, with the same rows.
"""

import itertools
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from audiotag_jax.inference.batches import each_window
from audiotag_jax.inference.output import choose_folder
from audiotag_jax.inference.predict import check_hop
from audiotag_jax.inference.published import open_tagger
from audiotag_jax.inference.windows import expected_windows, find_files, read_windows
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.files import locked, write_atomic
from audiotag_jax.runtime.progress import log, progress
from audiotag_jax.settings.settings import Settings

NPZ, PARQUET = "embeddings.npz", "embeddings.parquet"
_GROUP_ROWS = 4096  # of a Parquet file, written together


def run(
    workdir: Path,
    audio: Sequence[str] = (),
    *,
    settings: Settings | None = None,
    tagger: str = "",
    fold: int | None = None,
    hop_s: float = 0.0,
    out: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Writes the vectors of files and of all sound files below folders, or of the data set of `settings`.

    The network of recordings is that of the run in `workdir` (of its first fold, or of `fold`), or the one that
    `tagger` names; that of a data set has the weights that `settings` start from. `out` is by default
    `workdir/embedded`, with date and time behind it if there are vectors already and not `overwrite`. Raises UserError
    where there is nothing to read, or no network.
    """
    check_hop(hop_s)
    out = choose_folder(out, workdir / "embedded", (NPZ, PARQUET), overwrite)
    if not audio:
        if settings is None:
            raise UserError("Mode embed needs --audio, or --config for the clips of a data set.")
        from audiotag_jax.training.embed_dataset import embed_dataset  # it loads TFDS and optax

        columns, about = embed_dataset(settings)
        with locked(out, "writing to"):
            write_embeddings(out, columns, about)
        return
    files = find_files(audio)
    opened = open_tagger(workdir, tagger)
    if fold is not None and fold not in opened.folds:
        raise UserError(f"There is no fold {fold}; {opened.name} has {', '.join(map(str, opened.folds)) or 'none'}.")
    options = opened.window_options(hop_s)
    used = opened.folds[0] if fold is None and opened.folds else fold
    log(f"{opened.name}: {'' if used is None else f'the network of fold {used}, '}windows of {opened.duration_s:g} s")
    total = sum(expected_windows(file, options) for file in files)
    windows = each_window(
        read_windows(files, options), lambda batch: opened.embeddings(batch, fold), opened.length_samples
    )
    about = {
        "network": opened.name,
        "fold": used,
        "sample_rate_hz": opened.sample_rate_hz,
        "window_s": opened.duration_s,
        "hop_s": options.hop_s,
    }
    with locked(out, "writing to"), tempfile.TemporaryDirectory(dir=out, prefix=".embedding-") as folder:
        columns = _collected(progress(windows, total, "embedding", "windows"), Path(folder) / "vectors")
        write_embeddings(out, columns, about)


def _collected(windows: Iterator, path: Path) -> dict[str, np.ndarray]:
    """Returns the columns of all windows that are not silent; the vectors lie in a file at `path`.

    Raises UserError if there are none.
    """
    ids, times, silent, unread, size = [], [], 0, [], 0
    notes: dict[str, None] = {}  # each once, in their order
    with path.open("wb") as file:
        for item, vector in windows:
            if item.note and item.start_s is not None:
                notes[f"{item.path}: {item.note}"] = None
            if vector is not None:
                file.write(np.ascontiguousarray(vector, np.float32).data)
                ids.append(item.path)
                times.append((item.start_s, item.end_s))
                size = len(vector)
            elif item.start_s is None:
                unread.append(f"{item.path}: {item.note}")
            else:
                silent += 1
    for line in unread[:20]:
        log(f"not read: {line}")
    for line in itertools.islice(notes, 20):
        log(f"note: {line}")
    log(f"windows: {len(ids)} embedded, {silent} silent and left out; recordings not read: {len(unread)}")
    if not ids:
        raise UserError("There is no window to embed: every recording is silent or could not be read.")
    starts, ends = np.array(times).T
    vectors = np.memmap(path, np.float32, "r", shape=(len(ids), size))
    return {"ids": np.array(ids), "start_s": starts, "end_s": ends, "embeddings": vectors}


def write_embeddings(out: Path, columns: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
    """Writes `columns` of n rows each, `embeddings` [n, D] float32 among them, to `embeddings.npz` and `.parquet`.

    `about` is stored as a line of JSON: the array `about`, and the metadata of the Parquet file.
    """
    text = json.dumps(about)
    write_atomic(out / NPZ, lambda file: np.savez(file, about=np.array(text), **columns))  # type: ignore[arg-type]
    write_atomic(out / PARQUET, lambda file: _write_parquet(file, columns, text))
    count, size = columns["embeddings"].shape
    log(f"written to {out}: {NPZ}, {PARQUET}, {count} vectors of {size} numbers")


def _write_parquet(file, columns: Mapping[str, np.ndarray], about: str) -> None:
    import pyarrow
    import pyarrow.parquet

    vectors = columns["embeddings"]
    vector_type = pyarrow.list_(pyarrow.float32(), vectors.shape[1])
    plain = {name: values for name, values in columns.items() if name != "embeddings"}
    fields = [(name, pyarrow.array(values[:1].tolist()).type) for name, values in plain.items()]
    schema = pyarrow.schema([*fields, ("embeddings", vector_type)], metadata={"about": about})
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:
        for start in range(0, len(vectors), _GROUP_ROWS):
            rows = slice(start, start + _GROUP_ROWS)
            arrays = [pyarrow.array(plain[name][rows].tolist(), kind) for name, kind in fields]
            flat = pyarrow.array(np.ravel(vectors[rows]))
            arrays.append(pyarrow.FixedSizeListArray.from_arrays(flat, type=vector_type))
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))
