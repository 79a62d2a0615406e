"""Downloads FSDKaggle2018 from Zenodo: verified by checksum, resumable per archive, each folder written atomically."""

import shutil
import sys
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import pooch
import requests

from audiotag_jax.datasets.fsdkaggle2018 import is_complete
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.files import locked
from audiotag_jax.runtime.progress import log, progress

ZENODO_URL = "doi:10.5281/zenodo.2552860/"
PARTS = ("FSDKaggle2018.meta", "FSDKaggle2018.audio_test", "FSDKaggle2018.audio_train")
# Pinned, so that the server that gives the files cannot vouch for itself. The record https://zenodo.org/records/2552860
# lists them; public copies are in the data set's loader of MTEB (scripts/data/fsdkaggle2018/create_data.py).
CHECKSUMS = {
    "FSDKaggle2018.meta.zip": "md5:f16828ac8be0e5285b9175a12f90d784",
    "FSDKaggle2018.audio_test.zip": "md5:f85c8665c3fc39311ea1b748e194a81d",
    "FSDKaggle2018.audio_train.zip": "md5:a8b47ff4b52022c178f88fa5c6f080d0",
}
STAGING = ".download"


def needs_download(path: str | Path) -> bool:
    """Returns whether `path` is absent or empty, or has an interrupted download and is still incomplete."""
    path = Path(path)
    if (path / STAGING).is_dir():
        return not is_complete(path)
    return not path.exists() or (path.is_dir() and not any(path.iterdir()))


def download_fsdkaggle2018(
    path: str | Path, base_url: str = ZENODO_URL, registry: Mapping[str, str] = CHECKSUMS
) -> None:
    """Downloads the Zenodo release to `path`: folders FSDKaggle2018.audio_train, .audio_test and .meta.

    `registry` maps archive names to checksums. Existing folders are skipped. Raises UserError on an error of the
    network, a checksum, an archive or the disk.
    """
    path = Path(path)
    try:
        with locked(path / STAGING, "downloading FSDKaggle2018 into"):
            _download_parts(path, base_url, registry)
            shutil.rmtree(path / STAGING)
    except OSError as error:
        raise UserError(f"Cannot write FSDKaggle2018 into {path}: {error.strerror or error}.") from error


def _download_parts(path: Path, base_url: str, registry: Mapping[str, str]) -> None:
    missing = [part for part in PARTS if not (path / part).is_dir()]
    if not missing:
        return
    pooch.get_logger().setLevel("WARNING")  # it would log to standard error
    fetcher = pooch.create(path / STAGING, base_url, registry=dict(registry))
    for part in missing:
        log(f"downloading {part}.zip")
        archive = _fetch(fetcher, f"{part}.zip", path)
        _unzip(archive, path / STAGING / f"{part}.unzipping", path / part)
        archive.unlink()
        (path / STAGING / "incomplete").touch()  # keeps the folder, which `needs_download` looks for, after an error


def _fetch(fetcher: pooch.Pooch, name: str, path: Path) -> Path:
    downloader = pooch.DOIDownloader if fetcher.base_url.startswith("doi:") else pooch.HTTPDownloader
    try:
        return Path(fetcher.fetch(name, downloader=downloader(progressbar=sys.stderr.isatty(), chunk_size=2**20)))
    except requests.RequestException as error:
        raise _unreachable(fetcher.base_url + name, path, error) from error
    except (ValueError, KeyError) as error:
        if "hash" not in str(error):  # not pooch's checksum error, but an unexpected response
            raise _unreachable(fetcher.base_url + name, path, error) from error
        raise UserError(
            f"{name} is damaged, or is not what was published: its checksum is wrong.\nRun the same command again."
        ) from error


def _unreachable(url: str, path: Path, error: Exception) -> UserError:
    return UserError(
        f"FSDKaggle2018 could not be downloaded: {url} could not be reached ({type(error).__name__}).\n"
        f"Download the data to {path} by hand, or try the demo: `python main.py --config=configs/log_db.py:demo`"
    )


def _unzip(archive: Path, temporary: Path, target: Path) -> None:
    """Unzips to `temporary`, then renames its subfolder `target.name`, or all of it if there is none, to `target`."""
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as content:
            members = content.infolist()
            for member in members:
                _check_member(archive, member.filename)
            for member in progress(members, len(members), f"unzipping {archive.name}", "files"):
                content.extract(member, temporary)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{archive} is not a complete zip archive ({error}); delete it and run again.") from error
    inside = temporary / target.name
    (inside if inside.is_dir() else temporary).rename(target)
    shutil.rmtree(temporary, ignore_errors=True)


def _check_member(archive: Path, name: str) -> None:
    """Raises UserError for a member name outside the target folder (path traversal)."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or parts[0] == "/" or ".." in parts or ":" in parts[0]:
        raise UserError(f"{archive} contains the unsafe file name '{name}'; delete it and use another source.")
