"""Batches for the devices: shuffled in equal sizes for training, in order for evaluation, padded and masked for both.

Inputs are stored in one of two places. On the devices, if they fit: a batch is then an array of indices, and the step
gathers the inputs there. Else on disk, from where grain prefetches whole batches in threads or processes. Both give the
same numbers.
"""

import contextlib
import dataclasses
import functools
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import grain
import jax
import numpy as np
from absl import flags

from audiotag_jax.datasets.reader import Examples
from audiotag_jax.training.imbalance import Strata, balanced_epoch

_SHARE_OF_MEMORY = 0.25  # of a device, or of a host whose memory the devices are, that inputs may take
_BATCHES_AHEAD = 4
_THREADS = 4  # reading for one process
_permutation_lock = threading.Lock()  # the readers of one process reach a new epoch together: one of them draws


def choose_place(place: str, num_bytes: int) -> str:
    """Returns `device` or `stream` for inputs of `num_bytes`: `place` itself, or by size where it is `auto`."""
    if place != "auto":
        return place
    return "device" if num_bytes <= _SHARE_OF_MEMORY * _memory_bytes() else "stream"


def epoch_order(num_examples: int, num_batches: int, *, seed: int, fold: int, epoch: int) -> list[np.ndarray]:
    """Returns every example once, shuffled, in `num_batches` batches whose sizes differ by one at most.

    No batch is a small remainder, none is dropped; a function of its arguments alone, so the step number is all that
    an interrupted run must know.
    """
    return np.array_split(_permutation(num_examples, seed, fold, epoch), num_batches)


@functools.lru_cache(maxsize=3)  # readers may be in two epochs, beside a validation
def _permutation(num_examples: int, seed: int, fold: int, epoch: int) -> np.ndarray:
    order = np.random.default_rng((seed, fold, epoch)).permutation(num_examples)
    order.flags.writeable = False
    return order


class Order(Protocol):
    """Lists of clips, as indices into the examples: `order[i]` are those of step or batch i."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int, /) -> np.ndarray: ...


@dataclasses.dataclass(frozen=True)
class TrainingOrder:
    """The clips of each step, as indices into the examples: `order[step]`; `clips` are the fold's training clips.

    An epoch has every clip once, or, with `strata`, as many draws as there are clips. The first `verified_epochs` draw
    as many from `verified`.
    """

    clips: np.ndarray
    steps_per_epoch: int
    num_steps: int
    seed: int
    fold: int
    strata: Strata | None = None  # of the clips: each epoch draws every class as often
    verified: Strata | None = None  # of the clips with verified labels
    verified_epochs: int = 0

    def __len__(self) -> int:
        return self.num_steps

    def __getitem__(self, step: int) -> np.ndarray:
        """Returns one batch of `epoch_order`, without splitting all of the epoch."""
        epoch, place = divmod(int(step), self.steps_per_epoch)
        strata = self.verified if epoch < self.verified_epochs else self.strata
        with _permutation_lock:
            if strata is None:
                order = _permutation(len(self.clips), self.seed, self.fold, epoch)
            else:
                order = balanced_epoch(strata, len(self.clips), self.seed, self.fold, epoch)
        size, larger = divmod(len(order), self.steps_per_epoch)  # the first `larger` batches have one clip more
        start = place * size + min(place, larger)
        return self.clips[order[start : start + size + (place < larger)]]


@dataclasses.dataclass(frozen=True)
class Share:
    """This process's share of all devices; pickled, since a reading process does not see its parent's devices."""

    num_devices: int = dataclasses.field(default_factory=jax.local_device_count)
    num_all_devices: int = dataclasses.field(default_factory=jax.device_count)
    process_index: int = dataclasses.field(default_factory=jax.process_index)


@dataclasses.dataclass(frozen=True)
class Batches:
    """This process's share of the batches in a sequence of index arrays, padded for its devices: `batches[i]`."""

    examples: Examples
    order: Order
    batch_size: int
    resident: bool  # inputs wait on the devices
    share: Share = dataclasses.field(default_factory=Share)

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        return device_batch(self.examples, self.order[i], self.batch_size, self.resident, self.share)


def read_ahead(batches: Batches, first: int = 0, num_workers: int = 0) -> Iterator[dict[str, np.ndarray]]:
    """Returns an iterator over the batches from `first` on, prefetched in threads, or in `num_workers` processes."""
    if first >= len(batches):
        return iter(())
    if num_workers:  # they need no ids, and would each get a copy
        bare = dataclasses.replace(batches.examples, ids=batches.examples.ids[:0], sounds=None)
        batches = dataclasses.replace(batches, examples=bare)
    threads = 1 if batches.resident else _THREADS
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(threads, _BATCHES_AHEAD))
    dataset = grain.MapDataset.source(batches)[first:].to_iter_dataset(options)
    if num_workers and not batches.resident:
        if not flags.FLAGS.is_parsed():  # grain reads absl's flags, which nothing parses in a notebook
            flags.FLAGS.mark_as_parsed()
        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers, _BATCHES_AHEAD))
    return iter(dataset)


def close(batches: Iterator) -> None:
    """Stops the threads and processes that prefetch."""
    if hasattr(batches, "close"):
        batches.close()


def evaluation_order(clips: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Splits the clips, in the order given, into batches of `batch_size`; the last may be smaller."""
    return [clips[start : start + batch_size] for start in range(0, len(clips), batch_size)]


def device_batch(
    examples: Examples, indices: np.ndarray, batch_size: int, resident: bool = False, share: Share | None = None
) -> dict[str, np.ndarray]:
    """Returns this process's rows `[D, B / D, …]` of the batch at `indices`, padded to fill all processes' devices.

    `mask` is 1 in real rows; beside it are `inputs`, `labels` and `verified`, zeros in padding, or, where inputs are
    `resident` on the devices, `index` alone, 0 in padding.
    """
    share = share or Share()
    num_devices = share.num_devices
    rows = -(-batch_size // share.num_all_devices)
    indices = indices[share.process_index * num_devices * rows :][: num_devices * rows]
    padding = rows * num_devices - len(indices)
    batch = {"mask": np.ones(len(indices), np.float32)}
    if resident:
        batch["index"] = indices.astype(np.int32)
    else:
        batch["inputs"] = examples.inputs[indices]
        batch["labels"] = _narrow(examples.labels[indices])
        batch["verified"] = examples.verified[indices]

    def fill(values: np.ndarray) -> np.ndarray:
        values = np.pad(values, [(0, padding)] + [(0, 0)] * (values.ndim - 1))
        return values.reshape(num_devices, rows, *values.shape[1:])

    return {name: fill(values) for name, values in batch.items()}


def resident_data(examples: Examples) -> dict[str, np.ndarray]:
    """Returns the arrays that the steps gather batches from: `inputs`, `labels` and `verified` of all examples."""
    return {"inputs": examples.load_inputs(), "labels": _narrow(examples.labels), "verified": examples.verified}


def _narrow(labels: np.ndarray) -> np.ndarray:
    """Casts labels `[n]` to int32; any number of labels a clip, `[n, K]`, stay int8."""
    return labels if labels.dtype == np.int8 else labels.astype(np.int32)


def _memory_bytes() -> int:
    device = jax.local_devices()[0]
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):  # "max" where there is no limit
        host = min(host, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    if device.platform == "cpu":
        return host // jax.local_device_count()  # which share it, or a container's part of it, and hold all inputs each
    stats = device.memory_stats() or {}
    return min(host, stats.get("bytes_limit", 0))  # unknown: then nothing fits
