"""Windows in batches of one size, through a compiled function."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from audiotag_jax.inference.windows import Item

BATCH_WINDOWS = 8  # tagged together, padded: one compiled program
_CHUNK_ITEMS = 1000  # at most in memory while a batch fills up


def each_window(
    items: Iterable[Item],
    function: Callable[[np.ndarray], Any],
    length_samples: int,
    batch_windows: int = BATCH_WINDOWS,
) -> Iterator[tuple[Item, np.ndarray | None]]:
    """Yields the items in order with their rows of `function(waveforms [B, N])`, or None where they are silent.

    B is always `batch_windows`, so that one program is compiled.
    """
    for chunk in _chunks(items, batch_windows):
        waveforms = np.zeros((batch_windows, length_samples), np.float32)
        audible = [item.waveform for item in chunk if item.waveform is not None]
        rows = iter(())
        if audible:
            waveforms[: len(audible)] = audible
            rows = iter(np.asarray(function(waveforms)))
        for item in chunk:
            yield dataclasses.replace(item, waveform=None), None if item.waveform is None else next(rows).copy()


def _chunks(items: Iterable[Item], batch_windows: int) -> Iterator[list[Item]]:
    """Yields lists of consecutive items with a batch of windows that are not silent in each; fewer at the end."""
    chunk, num_audible = [], 0
    for item in items:
        chunk.append(item)
        num_audible += item.waveform is not None
        if num_audible == batch_windows or len(chunk) == _CHUNK_ITEMS:
            yield chunk
            chunk, num_audible = [], 0
    if chunk:
        yield chunk
