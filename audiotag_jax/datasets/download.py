"""Downloads data sets from Zenodo: verified by checksum, resumable per archive, each folder written atomically."""

import gzip
import shutil
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pooch
import requests

from audiotag_jax.datasets import fsdkaggle2018, urbansound8k
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.files import locked
from audiotag_jax.runtime.progress import log, progress


class Release(NamedTuple):
    """A published record: its archives by checksum, with the folders that each of them becomes.

    Checksums are pinned, so that the server that gives the files cannot vouch for itself.
    """

    title: str
    base_url: str
    folders: Mapping[str, tuple[str, ...]]
    checksums: Mapping[str, str]
    is_complete: Callable[[Path], bool]


# The record https://zenodo.org/records/2552860 lists the checksums; public copies are in the data set's loader of MTEB
# (scripts/data/fsdkaggle2018/create_data.py).
PARTS = ("FSDKaggle2018.meta", "FSDKaggle2018.audio_test", "FSDKaggle2018.audio_train")
FSDKAGGLE2018 = Release(
    "FSDKaggle2018",
    "doi:10.5281/zenodo.2552860/",
    {f"{part}.zip": (part,) for part in PARTS},
    {
        "FSDKaggle2018.meta.zip": "md5:f16828ac8be0e5285b9175a12f90d784",
        "FSDKaggle2018.audio_test.zip": "md5:f85c8665c3fc39311ea1b748e194a81d",
        "FSDKaggle2018.audio_train.zip": "md5:a8b47ff4b52022c178f88fa5c6f080d0",
    },
    fsdkaggle2018.is_complete,
)
# The record https://zenodo.org/records/1203745 lists the checksum; a public copy is in soundata's loader
# (soundata/datasets/urbansound8k.py). The table comes last, so that it is not there without the audio.
URBANSOUND8K = Release(
    "UrbanSound8K",
    "doi:10.5281/zenodo.1203745/",
    {"UrbanSound8K.tar.gz": ("audio", "metadata")},
    {"UrbanSound8K.tar.gz": "md5:9aa69802bbf37fb986f71ec1483a196e"},
    urbansound8k.is_complete,
)
CHECKSUMS = FSDKAGGLE2018.checksums
STAGING = ".download"
_DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error),
    *(EOFError, NotImplementedError, RuntimeError),
)


def needs_download(path: str | Path, release: Release = FSDKAGGLE2018) -> bool:
    """Returns whether `path` is absent or empty, or has an interrupted download and is still incomplete."""
    path = Path(path)
    if (path / STAGING).is_dir():
        return not release.is_complete(path)
    return not path.exists() or (path.is_dir() and all(each.name.startswith(".") for each in path.iterdir()))


def download_fsdkaggle2018(
    path: str | Path, base_url: str = FSDKAGGLE2018.base_url, registry: Mapping[str, str] = CHECKSUMS
) -> None:
    """Downloads the Zenodo release to `path`: folders FSDKaggle2018.audio_train, .audio_test and .meta.

    `registry` maps archive names to checksums. Existing folders are skipped. Raises UserError on an error of the
    network, a checksum, an archive or the disk.
    """
    _download(Path(path), FSDKAGGLE2018._replace(base_url=base_url, checksums=registry))


def download_urbansound8k(
    path: str | Path, base_url: str = URBANSOUND8K.base_url, registry: Mapping[str, str] = URBANSOUND8K.checksums
) -> None:
    """Downloads the Zenodo release, about 6 GB, to `path`: folders audio and metadata; as `download_fsdkaggle2018`."""
    _download(Path(path), URBANSOUND8K._replace(base_url=base_url, checksums=registry))


def _download(path: Path, release: Release) -> None:
    try:
        with locked(path / STAGING, f"downloading {release.title} into"):
            _download_archives(path, release)
            shutil.rmtree(path / STAGING)
    except OSError as error:
        raise UserError(f"Cannot write {release.title} into {path}: {error.strerror or error}.") from error


def _download_archives(path: Path, release: Release) -> None:
    missing = {
        name: folders
        for name, folders in release.folders.items()
        if not all((path / folder).is_dir() for folder in folders)
    }
    if not missing:
        return
    pooch.get_logger().setLevel("WARNING")  # it would log to standard error
    fetcher = pooch.create(path / STAGING, release.base_url, registry=dict(release.checksums))
    for name, folders in missing.items():
        log(f"downloading {name}")
        archive = _fetch(fetcher, name, path, release.title)
        _unpack(archive, path / STAGING / f"{name}.unpacking", path, folders)
        archive.unlink()
        (path / STAGING / "incomplete").touch()  # keeps the folder, which `needs_download` looks for, after an error


def _fetch(fetcher: pooch.Pooch, name: str, path: Path, title: str) -> Path:
    downloader = pooch.DOIDownloader if fetcher.base_url.startswith("doi:") else pooch.HTTPDownloader
    try:
        return Path(fetcher.fetch(name, downloader=downloader(progressbar=sys.stderr.isatty(), chunk_size=2**20)))
    except requests.RequestException as error:
        raise _unreachable(fetcher.base_url + name, path, title, error) from error
    except (ValueError, KeyError) as error:
        if "hash" not in str(error):  # not pooch's checksum error, but an unexpected response
            raise _unreachable(fetcher.base_url + name, path, title, error) from error
        raise UserError(
            f"{name} is damaged, or is not what was published: its checksum is wrong.\nRun the same command again."
        ) from error


def _unreachable(url: str, path: Path, title: str, error: Exception) -> UserError:
    return UserError(
        f"{title} could not be downloaded: {url} could not be reached ({type(error).__name__}).\n"
        f"Download the data to {path} by hand, or try the demo: `python main.py --config=configs/log_db.py:demo`"
    )


def _unpack(archive: Path, temporary: Path, target: Path, folders: tuple[str, ...]) -> None:
    """Unpacks to `temporary`, then renames each of its folders to the one of the same name in `target`.

    They may lie in one top folder; an archive of one folder may also contain just its files.
    """
    shutil.rmtree(temporary, ignore_errors=True)
    unpack, kind = (_unzip, "zip") if archive.suffix == ".zip" else (_untar, "tar")
    try:
        unpack(archive, temporary)
    except _DAMAGED as error:
        raise UserError(f"{archive} is not a complete {kind} archive ({error}); delete it and run again.") from error
    for name in folders:
        found = next((path for path in (temporary / name, *temporary.glob(f"*/{name}")) if path.is_dir()), None)
        if found is None and len(folders) > 1:
            raise UserError(f"{archive} has no folder {name}; delete it and use another source.")
        if not (target / name).is_dir():  # else an interrupted download has put it there
            (found or temporary).rename(target / name)
    shutil.rmtree(temporary, ignore_errors=True)


def _unzip(archive: Path, temporary: Path) -> None:
    with zipfile.ZipFile(archive) as content:
        members = content.infolist()
        for member in members:
            _check_member(archive, member.filename)
        for member in progress(members, len(members), f"unzipping {archive.name}", "files"):
            content.extract(member, temporary)


def _untar(archive: Path, temporary: Path) -> None:
    """Unpacks the files of a tar archive; links and devices are left out, and so are permissions."""
    with tarfile.open(archive) as content:
        members = content.getmembers()
        for member in members:
            _check_member(archive, member.name)
        for member in progress(members, len(members), f"unpacking {archive.name}", "files"):
            if member.isfile() and (source := content.extractfile(member)):
                target = temporary / member.name
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as file:
                    shutil.copyfileobj(source, file)


def _check_member(archive: Path, name: str) -> None:
    """Raises UserError for a member name outside the target folder (path traversal)."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or parts[0] == "/" or ".." in parts or ":" in parts[0]:
        raise UserError(f"{archive} contains the unsafe file name '{name}'; delete it and use another source.")
