"""JAX's persistent compilation cache, with which later processes reuse compiled programs."""

import contextlib
import os
from pathlib import Path

import jax

_OPTION = "jax_compilation_cache_dir"


def enable_compilation_cache(directory: Path) -> None:
    """Makes JAX cache programs that take a second or more to compile in `directory`, if that is writable.

    Leaves a cache that is configured already, and does nothing on CPU, where loading cached programs has crashed.
    """
    if jax.default_backend() == "cpu":
        return
    with contextlib.suppress(OSError):
        directory.mkdir(parents=True, exist_ok=True)
    if getattr(jax.config, _OPTION) is None and directory.is_dir() and os.access(directory, os.W_OK):
        jax.config.update(_OPTION, str(directory.absolute()))
