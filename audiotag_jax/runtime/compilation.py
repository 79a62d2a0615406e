"""Compiled programs that outlive the process that compiled them."""

import contextlib
import os
from pathlib import Path

import jax


def enable_compilation_cache(directory: Path) -> None:
    """Keeps what takes a second or more to compile in `directory`, where it can be written.

    A cache that is set up already is left alone. Not on CPU, where reading compiled programs back has crashed.
    """
    if jax.default_backend() == "cpu":
        return
    with contextlib.suppress(OSError):
        directory.mkdir(parents=True, exist_ok=True)
    given = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]  # options become attributes at run time
    if given is None and directory.is_dir() and os.access(directory, os.W_OK):
        jax.config.update("jax_compilation_cache_dir", str(directory.absolute()))
