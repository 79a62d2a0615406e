"""Hashes of file contents, cached so that a file is read only once."""

import contextlib
import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from stat import S_ISREG

from audiotag_jax.runtime.files import locked, write_json
from audiotag_jax.runtime.progress import progress

FILE_NAME = "contents.json"  # in the folder of prepared datasets: path to [stamp, hash]

_process_cache: dict[str, tuple[list[int], str]] = {}  # used where the cache file cannot be written


def content_hashes(paths: Iterable[str], cache_dir: Path, num_threads: int = 1) -> dict[str, str]:
    """Returns by path a hash of the file's bytes, "" if the file cannot be read.

    Hashes are cached in this process and in `cache_dir`, and computed again when a file's size, times or inode have
    changed. A cache that is damaged or cannot be written is ignored: the files are then read again.
    """
    names = {path: str(Path(path).absolute()) for path in paths}
    stamps = {name: stamp for name in names.values() if (stamp := _stamp(name))}
    cache = _read_cache(cache_dir / FILE_NAME) | _process_cache
    found = {name: cache[name][1] for name, stamp in stamps.items() if name in cache and cache[name][0] == stamp}
    unread = [name for name in stamps if name not in found]
    if unread:
        with ThreadPoolExecutor(num_threads) as pool:
            hashes = progress(pool.map(content_hash, unread), len(unread), "hashing", "recordings")
            try:
                for name, digest in zip(unread, hashes, strict=True):
                    found[name] = digest
            finally:  # also where it is interrupted, after hours: what was read is not read again
                pool.shutdown(wait=False, cancel_futures=True)
                new = {name: (stamps[name], found[name]) for name in unread if found.get(name)}
                _process_cache.update(new)
                _update_cache(cache_dir, new)
    return {path: found.get(name, "") for path, name in names.items()}


def content_hash(path: str) -> str:
    """Returns a hash of the file's bytes, "" if the file cannot be read; not cached."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError:
        return ""


def _stamp(path: str) -> list[int] | None:
    try:
        stat = Path(path).stat()
    except (OSError, ValueError):
        return None
    if not S_ISREG(stat.st_mode):  # opening a named pipe would wait for its other end
        return None
    # Files of equal size and date that were swapped are detected by inode and by the time of the renaming (ctime).
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def _read_cache(file: Path) -> dict[str, tuple[list[int], str]]:
    try:
        cache = json.loads(file.read_text())
        return {path: (stamp, digest) for path, (stamp, digest) in cache.items() if digest and isinstance(digest, str)}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _update_cache(cache_dir: Path, new: dict[str, tuple[list[int], str]]) -> None:
    with contextlib.suppress(OSError), locked(cache_dir, "updating the cache in", wait=True):
        write_json(cache_dir / FILE_NAME, _read_cache(cache_dir / FILE_NAME) | new)
