"""Paths that a user gives: local ones, which are not empty."""

import re
from pathlib import Path

from audiotag_jax.runtime.errors import UserError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # two letters at least: C:/ is a drive
_UNREADABLE = "[\\"  # orbax takes its paths for glob patterns where it merges what it has written


def check_path(name: str, path: str) -> None:
    """Raises UserError if `path`, the value of the option or field `name`, is empty or a URL such as gs://BUCKET."""
    if not path.strip():
        raise UserError(f"{name} is empty; name a path. (Is a variable of the shell unset?)")
    if _URL.match(path):
        raise UserError(
            f"{name} is {path}, but only local paths work.\n"
            "Mount the bucket as a folder (gcsfuse, s3fs, rclone mount), or copy the data to a disk, and name that."
        )


def check_written_path(name: str, path: str) -> None:
    """Raises UserError as `check_path` does, and if the whole path is not UTF-8: writers of records refuse that."""
    check_path(name, path)
    whole = str(Path(path).absolute())
    if whole != whole.encode(errors="replace").decode():
        raise UserError(
            f"{name} is in a folder whose name is not UTF-8: {whole}\nRename that folder, or choose another place."
        )


def check_checkpoint_path(path: str) -> None:
    """Raises UserError if checkpoints below `path` could be written but not be read back."""
    found = [character for character in _UNREADABLE if character in path]
    if found:
        raise UserError(
            f"--workdir {path}: checkpoints cannot be read back from a path with the character {found[0]!r} in it.\n"
            "Choose another --workdir, or rename the folder."
        )
