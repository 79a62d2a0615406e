"""Opens any clip source by name."""

from pathlib import Path

from audiotag_jax.datasets.demo import open_demo
from audiotag_jax.datasets.download import download_fsdkaggle2018, needs_download
from audiotag_jax.datasets.esc import open_esc
from audiotag_jax.datasets.folder import open_folder
from audiotag_jax.datasets.fsdkaggle2018 import open_fsdkaggle2018
from audiotag_jax.datasets.records import ClipSource
from audiotag_jax.runtime.errors import UserError

SOURCE_NAMES = ("fsdkaggle2018", "esc50", "esc10", "folder", "demo")


def open_source(
    name: str, path: str | Path, *, table: str = "", num_folds: int = 5, seed: int = 0, download: bool = True
) -> ClipSource:
    """Lists the clips of a source without reading any audio.

    `table`, for "folder" alone, is the CSV file that lists the clips. `num_folds` and `seed` determine the folds of
    data without its own. The demo's sounds depend on `seed` too and are written under `path` if missing; a missing
    FSDKaggle2018 is downloaded to `path` if `download` is True.
    Raises UserError for an unknown name, missing data or a bad table.
    """
    if name not in SOURCE_NAMES:
        raise UserError(f"Unknown clip source '{name}'; choose from {', '.join(SOURCE_NAMES)}.")
    if table and name != "folder":
        raise UserError(
            f"The clip source '{name}' has its own tables; leave config.dataset.table empty (only 'folder' takes one)."
        )
    try:
        return _open(name, path, table, num_folds, seed, download)
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from error


def _open(name: str, path: str | Path, table: str, num_folds: int, seed: int, download: bool) -> ClipSource:
    if name == "demo":
        return open_demo(path, num_folds, seed)
    if name == "folder":
        return open_folder(path, table, num_folds, seed)
    if name in ("esc50", "esc10"):
        return open_esc(name, path)
    if download and needs_download(path):
        download_fsdkaggle2018(path)
    return open_fsdkaggle2018(path, num_folds, seed)
