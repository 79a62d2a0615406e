"""What files hold, wherever they lie and whenever they were copied there."""

import contextlib
import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from audiotag_jax.runtime.files import locked, write_json
from audiotag_jax.runtime.progress import progress

FILE_NAME = "contents.json"  # in the folder of prepared datasets: path to [stamp, hash]

_known: dict[str, tuple[list[int], str]] = {}  # what this process has read: for where nothing can be written


def content_hashes(paths: Iterable[str], memory_dir: Path, num_threads: int = 1) -> dict[str, str]:
    """By path, a hash of all the file's bytes, empty where the file cannot be read.

    Files are read once: hashes are remembered in this process and in `memory_dir`, and taken again when a file's size,
    time of change or place on the disk is another. A memory that is damaged, or lies where nothing can be written, only
    costs the time to read the files.
    """
    names = {path: str(Path(path).absolute()) for path in paths}
    stamps = {name: stamp for name in names.values() if (stamp := _stamp(name))}
    memory = _remembered(memory_dir / FILE_NAME) | _known
    found = {name: memory[name][1] for name, stamp in stamps.items() if name in memory and memory[name][0] == stamp}
    unread = [name for name in stamps if name not in found]
    if unread:
        with ThreadPoolExecutor(num_threads) as pool:
            hashes = progress(pool.map(_hash_of, unread), len(unread), "reading", "recordings")
            found |= zip(unread, hashes, strict=True)
        new = {name: (stamps[name], found[name]) for name in unread if found[name]}
        _known.update(new)
        _remember(memory_dir, new)
    return {path: found.get(name, "") for path, name in names.items()}


def _stamp(path: str) -> list[int] | None:
    try:
        stat = Path(path).stat()
    except OSError:
        return None
    # Two files of one size and date may change places: their numbers, and the time at which they were renamed, tell.
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def _hash_of(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError:
        return ""


def _remembered(file: Path) -> dict[str, tuple[list[int], str]]:
    try:
        memory = json.loads(file.read_text())
        return {path: (stamp, digest) for path, (stamp, digest) in memory.items() if digest and isinstance(digest, str)}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _remember(memory_dir: Path, new: dict[str, tuple[list[int], str]]) -> None:
    with contextlib.suppress(OSError), locked(memory_dir, "remembering files in", wait=True):
        write_json(memory_dir / FILE_NAME, _remembered(memory_dir / FILE_NAME) | new)
