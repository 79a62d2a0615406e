"""Opens any clip source, by name or by the settings of a data set."""

from pathlib import Path

from audiotag_jax.datasets.audioset import open_audioset
from audiotag_jax.datasets.demo import open_demo
from audiotag_jax.datasets.download import (
    FSDKAGGLE2018,
    URBANSOUND8K,
    download_fsdkaggle2018,
    download_urbansound8k,
    needs_download,
)
from audiotag_jax.datasets.esc import open_esc
from audiotag_jax.datasets.folder import open_folder
from audiotag_jax.datasets.fsd50k import open_fsd50k
from audiotag_jax.datasets.fsdkaggle2018 import open_fsdkaggle2018
from audiotag_jax.datasets.fsdkaggle2019 import open_fsdkaggle2019
from audiotag_jax.datasets.records import ClipSource, check_recordings
from audiotag_jax.datasets.urbansound8k import open_urbansound8k
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.progress import log_once
from audiotag_jax.settings.sections import DatasetSettings

SOURCE_NAMES: tuple[str, ...] = (
    "fsdkaggle2018",
    "fsdkaggle2019",
    "fsd50k",
    "audioset",
    "urbansound8k",
    "esc50",
    "esc10",
    "folder",
    "demo",
)
MULTI_LABEL_SOURCES = ("fsdkaggle2019", "fsd50k", "audioset")


def has_several_labels(dataset: DatasetSettings) -> bool:
    """Returns whether a clip of the data set may have any number of labels, by its settings; reads nothing."""
    return dataset.source in MULTI_LABEL_SOURCES or bool(dataset.label_separator)


def open_source(
    name: str,
    path: str | Path,
    *,
    table: str = "",
    label_separator: str = "",
    num_folds: int = 5,
    seed: int = 0,
    download: bool = True,
) -> ClipSource:
    """Lists the clips of a source without reading any audio.

    `table`, for "folder" alone, is the CSV file that lists the clips, and a `label_separator` divides the labels of a
    row of it. `num_folds` and `seed` determine the folds of data without its own. The demo's sounds depend on `seed`
    too and are written under `path` if missing; FSDKaggle2018 and UrbanSound8K are downloaded to `path` if they are
    missing and `download` is True.
    Raises UserError for an unknown name, missing data or a bad table.
    """
    if name not in SOURCE_NAMES:
        raise UserError(f"Unknown clip source '{name}'; choose from {', '.join(SOURCE_NAMES)}.")
    if table and name != "folder":
        raise UserError(
            f"The clip source '{name}' has its own tables; leave config.dataset.table empty (only 'folder' takes one)."
        )
    try:
        if name == "folder":
            return open_folder(path, table, num_folds, seed, label_separator=label_separator)
        return _open(name, path, num_folds, seed, download)
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from error


def clip_source(dataset: DatasetSettings) -> ClipSource:
    """Lists the clips of a data set, downloading it if needed and possible; reads no audio.

    What is left out, and labels that look like mistakes, are logged, once in a process.
    """
    source = list_dataset(dataset, dataset.download)
    for note in source.notes:
        log_once(note)
    return check_recordings(source) if dataset.source == "folder" else source


def list_dataset(dataset: DatasetSettings, download: bool) -> ClipSource:
    """Lists the clips of a data set by its settings, as `open_source` does."""
    return open_source(
        dataset.source,
        dataset.path,
        table=dataset.table,
        label_separator=dataset.label_separator,
        num_folds=dataset.num_folds,
        seed=dataset.fold_seed,
        download=download,
    )


def _open(name: str, path: str | Path, num_folds: int, seed: int, download: bool) -> ClipSource:
    if name == "demo":
        return open_demo(path, num_folds, seed)
    if name == "fsdkaggle2019":
        return open_fsdkaggle2019(path, num_folds, seed)
    if name == "fsd50k":
        return open_fsd50k(path)
    if name == "audioset":
        return open_audioset(path, num_folds, seed)
    if name == "urbansound8k":
        if download and needs_download(path, URBANSOUND8K):
            download_urbansound8k(path)
        return open_urbansound8k(path)
    if name in ("esc50", "esc10"):
        return open_esc(name, path)
    if download and needs_download(path, FSDKAGGLE2018):
        download_fsdkaggle2018(path)
    return open_fsdkaggle2018(path, num_folds, seed)
