"""Atomic writes, and directory locks that end with their process."""

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import numpy as np

from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.log_file import FILE_NAME as LOG_FILE
from audiotag_jax.runtime.progress import log


def write_atomic(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Calls `write(file)` on a temporary file beside `path`, then renames it, so readers never see a partial file."""
    write_together([path], write)


def write_together(paths: Sequence[Path], write: Callable[..., object]) -> None:
    """Calls `write(file, …)` on a temporary file beside each path; when all are on the disk, renames them.

    On an error, also of the disk, all paths are left as they were.
    """
    temporary = [path.with_name(f".{path.name}.tmp") for path in paths]
    try:
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(each.open("wb")) for each in temporary]
            write(*files)
            for file in files:
                file.flush()
                os.fsync(file.fileno())
        for path in paths:
            if path.is_dir():
                raise UserError(f"{path} is a folder; remove it, or choose another place for the file.")
        for each, path in zip(temporary, paths, strict=True):
            each.replace(path)
    finally:
        for each in temporary:
            each.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, atomically."""
    write_atomic(path, lambda file: file.write((json.dumps(value, indent=2) + "\n").encode()))


def write_npz(path: Path, **arrays: np.ndarray) -> None:
    """Writes the named arrays as one compressed `.npz`, atomically."""
    write_atomic(path, lambda file: np.savez_compressed(file, **arrays))  # type: ignore[arg-type]


@contextlib.contextmanager
def locked(directory: Path, purpose: str, *, wait: bool = False) -> Iterator[None]:
    """Locks `directory` (`flock`) for the block, creating it; the system releases the lock of a killed process.

    If another process has the lock, waits for it if `wait`, else raises UserError at once; `purpose` is the verb of
    that message. A directory created here is removed if an error leaves nothing but the lock in it.
    """
    created = not directory.exists()
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / ".lock"
    with contextlib.ExitStack() as stack:
        file = None
        while file is None or not _is_at(file, path):  # its last owner may have removed it after an error
            directory.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # removed since the line before
                file = stack.enter_context(path.open("w"))
                _acquire(file, f"Another process is {purpose} {directory}.", wait)
        try:
            yield
        except BaseException:
            if created:
                with contextlib.suppress(OSError):  # another process may use it by now
                    _remove_unused(directory, path)
            raise


def _remove_unused(directory: Path, lock: Path) -> None:
    """Removes a directory in which there are only the lock and warnings of libraries."""
    log_file = directory / LOG_FILE
    if {*directory.iterdir()} <= {lock, log_file}:
        log_file.unlink(missing_ok=True)
        lock.unlink()
        directory.rmdir()


def _acquire(file: TextIO, message: str, wait: bool) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        if not wait:
            raise UserError(f"{message}\nWait until it ends, or choose another folder.") from error
        log(f"{message} Waiting for it.")
        fcntl.flock(file, fcntl.LOCK_EX)


def _is_at(file: TextIO, path: Path) -> bool:
    """Returns whether the open file is the one at `path`."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
