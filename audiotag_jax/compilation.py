"""Compiled programs that outlive the process that compiled them."""

from pathlib import Path

import jax


def keep_compiled(directory: Path) -> None:
    """Keeps what takes a second or more to compile in `directory`; leaves a cache that is set up already alone."""
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(directory.absolute()))
