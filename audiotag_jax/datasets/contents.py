"""What files hold, wherever they lie and whenever they were copied there."""

import contextlib
import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from audiotag_jax.files import locked, write_json
from audiotag_jax.progress import progress

FILE_NAME = "contents.json"  # in the folder of prepared datasets: path to [size, time of change, hash]


def content_hashes(paths: Iterable[str], memory_dir: Path, num_threads: int = 1) -> dict[str, str]:
    """By path, a hash of all the file's bytes, empty where the file cannot be read.

    Files are read once: hashes are remembered in `memory_dir`, and taken again when a file's size or time of change is
    another. A memory that is damaged, or lies where nothing can be written, only costs the time to read the files.
    """
    memory = _remembered(memory_dir / FILE_NAME)
    stamps = {path: _stamp(path) for path in paths}
    found = {path: memory[path][2] for path, stamp in stamps.items() if stamp and memory.get(path, ())[:2] == stamp}
    unread = [path for path, stamp in stamps.items() if stamp and path not in found]
    if unread:
        with ThreadPoolExecutor(num_threads) as pool:
            hashes = progress(pool.map(_hash_of, unread), len(unread), "reading", "recordings")
            found |= zip(unread, hashes, strict=True)
        _remember(memory_dir, {path: [*stamps[path], found[path]] for path in unread if found[path]})
    return {path: found.get(path, "") for path in stamps}


def _stamp(path: str) -> list[int] | None:
    try:
        stat = Path(path).stat()
    except OSError:
        return None
    return [stat.st_size, stat.st_mtime_ns]


def _hash_of(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError:
        return ""


def _remembered(file: Path) -> dict[str, list]:
    try:
        memory = json.loads(file.read_text())
        return {path: entry for path, entry in memory.items() if isinstance(entry, list) and len(entry) == 3}
    except (OSError, ValueError, AttributeError):
        return {}


def _remember(memory_dir: Path, new: dict[str, list]) -> None:
    with contextlib.suppress(OSError), locked(memory_dir, "remembering files in", wait=True):
        write_json(memory_dir / FILE_NAME, _remembered(memory_dir / FILE_NAME) | new)
