"""Log messages, and the progress of long steps: a bar on a terminal, plain lines elsewhere."""

import functools
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

from audiotag_jax.runtime.terminal import print_line

Item = TypeVar("Item")

_STATUS_EVERY_S = 0.5  # on a bar

_silent = False


def disable_log() -> None:
    """Silences `log` and `progress` in this process; in a run of several, only the main one logs."""
    global _silent
    _silent = True


def log(text: str) -> None:
    """Prints one message at once, above a progress bar if there is one."""
    if _silent:
        return
    with tqdm.external_write_mode(file=sys.stdout):
        print_line(text, sys.stdout)


@functools.cache
def log_once(text: str) -> None:
    """Prints a message that was not printed before in this process."""
    log(text)


def progress(
    items: Iterable[Item],
    total: int,
    description: str,
    unit: str,
    *,
    first: int = 0,
    every_s: float = 10.0,
    status: Callable[[], str] = str,
) -> Iterator[Item]:
    """Yields the items and shows how many of `total` are done: a bar on a terminal, else a line every `every_s` s.

    `first` is the number of items done before, as in a resumed run. `status()` is a text to show behind the counts; it
    is called only when it is shown.
    """
    if _silent:
        yield from items
        return
    if sys.stderr is not None and sys.stderr.isatty():
        yield from _bar(items, status, total=total, initial=first, desc=description, unit=f" {unit}", leave=False)
        return
    start = last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if done == 1:  # the first may include compilation, so the speed leaves it out
            start = now
        if now - last >= every_s:
            last = now
            speed = f", {(done - 1) / max(now - start, 1e-9):.3g} a second" if done > 1 else ""
            shown = status()
            log(f"{description}: {first + done} of {total} {unit}{speed}{shown and ', ' + shown}")


def _bar(items: Iterable[Item], status: Callable[[], str], **options) -> Iterator[Item]:
    with tqdm(items, **options) as bar:
        last = -_STATUS_EVERY_S
        for item in bar:
            yield item
            if time.monotonic() - last >= _STATUS_EVERY_S:
                last = time.monotonic()
                bar.set_postfix_str(status(), refresh=False)
