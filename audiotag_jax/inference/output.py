"""Where results go: never over those of an earlier call, unless that is asked for."""

import datetime
import itertools
from collections.abc import Sequence
from pathlib import Path

from audiotag_jax.runtime.errors import UserError


def choose_folder(out: Path | None, default: Path, names: Sequence[str], overwrite: bool) -> Path:
    """Returns the folder for files of these `names`: `out`, or else `default`.

    If there are some already and not `overwrite`, it is the default with date and time behind its name; raises
    UserError if `out` was named, or is a file.
    """
    folder = out or default
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; name a folder.")
    if overwrite or not (earlier := _existing(folder, names)):
        return folder
    if out is not None:
        raise UserError(f"{out} contains {earlier} of an earlier call.\nAdd --overwrite, or name another --out.")
    now = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    endings = itertools.chain([""], (f"_{number}" for number in itertools.count(2)))
    return next(each for end in endings if not (each := default.with_name(f"{default.name}_{now}{end}")).exists())


def earlier_tables(folder: Path, names: Sequence[str], written: Sequence[str]) -> str:
    """Returns a warning that names those of `names` that are there besides those `written` now; "" without any."""
    left = [name for name in names if name not in written and (folder / name).exists()]
    return f"warning: {folder} also contains {', '.join(left)} of an earlier call" if left else ""


def _existing(folder: Path, names: Sequence[str]) -> str:
    return next((name for name in names if (folder / name).exists()), "")
