"""Batches for the devices: shuffled and balanced for training, in order for evaluation, padded and masked for both."""

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

import jax
import numpy as np

from audiotag_jax.datasets.reader import Examples

Item = TypeVar("Item")


def epoch_order(num_examples: int, num_batches: int, *, seed: int, fold: int, epoch: int) -> list[np.ndarray]:
    """Every example once, shuffled, in `num_batches` batches whose sizes differ by one at most.

    No batch is a small remainder, none is dropped; a function of its arguments alone, so the step number is all that
    an interrupted run must know.
    """
    order = np.random.default_rng((seed, fold, epoch)).permutation(num_examples)
    return np.array_split(order, num_batches)


def training_batches(
    examples: Examples,
    indices: np.ndarray,
    *,
    batch_size: int,
    steps_per_epoch: int,
    first_step: int,
    num_steps: int,
    seed: int,
    fold: int,
) -> Iterator[dict[str, np.ndarray]]:
    """Batches of steps first_step … num_steps - 1, made ahead of their use; `indices` are the fold's training clips."""

    def batches():
        for step in range(first_step, num_steps):
            epoch, place = divmod(step, steps_per_epoch)
            if place == 0 or step == first_step:
                order = epoch_order(len(indices), steps_per_epoch, seed=seed, fold=fold, epoch=epoch)
            yield device_batch(examples, indices[order[place]], batch_size)

    return prefetch(batches())


def evaluation_batches(
    examples: Examples, indices: np.ndarray, batch_size: int
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """(indices, batch) in the order given, every clip once."""
    starts = range(0, len(indices), batch_size)
    chunks = (indices[start : start + batch_size] for start in starts)
    return prefetch((chunk, device_batch(examples, chunk, batch_size)) for chunk in chunks)


def device_batch(examples: Examples, indices: np.ndarray, batch_size: int) -> dict[str, np.ndarray]:
    """The examples at `indices`, padded with zeros to `batch_size` rounded up to fill all devices: `[D, B / D, …]`."""
    num_devices = jax.local_device_count()
    rows = -(-batch_size // num_devices)
    padding = rows * num_devices - len(indices)
    batch = {
        "images": examples.images[indices],
        "labels": examples.labels[indices],
        "mask": np.ones(len(indices), np.float32),
    }

    def fill(values: np.ndarray) -> np.ndarray:
        values = np.pad(values, [(0, padding)] + [(0, 0)] * (values.ndim - 1))
        return values.reshape(num_devices, rows, *values.shape[1:])

    return {name: fill(values) for name, values in batch.items()}


def prefetch(items: Iterable[Item], depth: int = 2) -> Iterator[Item]:
    """Yields the items, `depth` of them made ahead in a thread; an error in the thread is raised here."""
    ready: queue.Queue = queue.Queue(maxsize=depth)
    stopped = threading.Event()
    end = object()

    def put(entry) -> bool:
        while not stopped.is_set():
            try:
                ready.put(entry, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work():
        try:
            for item in items:
                if not put((item, None)):
                    return
            put((end, None))
        except BaseException as error:  # handed over to the consumer
            put((end, error))

    threading.Thread(target=work, daemon=True).start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is end:
                return
            yield item
    finally:
        stopped.set()
