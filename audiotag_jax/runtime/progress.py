"""What a person sees of a long step: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")

_silent = False


def disable_log() -> None:
    """From now on this process says nothing: of several, one is enough."""
    global _silent
    _silent = True


def log(text: str) -> None:
    """Prints one message at once, above a progress bar if there is one."""
    if _silent:
        return
    tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()


def progress(
    items: Iterable[Item], total: int, description: str, unit: str, *, first: int = 0, every_s: float = 10.0
) -> Iterator[Item]:
    """Yields the items, showing how many of `total` are done: a bar on a terminal, a line each `every_s` elsewhere.

    `first` of them were done before.
    """
    if _silent:
        yield from items
        return
    if sys.stderr.isatty():
        yield from tqdm(items, total=total, initial=first, desc=description, unit=f" {unit}", leave=False)
        return
    begun = last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if done == 1:  # the first may have to be compiled, and tells nothing of the others
            begun = now
        if now - last >= every_s:
            last = now
            pace = f", {(done - 1) / max(now - begun, 1e-9):.3g} a second" if done > 1 else ""
            log(f"{description}: {first + done} of {total} {unit}{pace}")
