"""Flags that a command line sets in the tests' process end with it."""

import contextlib
from collections.abc import Iterator

from absl.testing import flagsaver


@contextlib.contextmanager
def fresh_flags() -> Iterator[None]:
    """Restores all flags afterwards and removes those of the configuration; new ones of libraries stay."""
    before = flagsaver.save_flag_values()
    try:
        yield
    finally:
        after = flagsaver.save_flag_values()
        flagsaver.restore_flag_values({n: after[n] for n in after if not n.startswith("config.")} | before)
