"""Batches: every example once, in an order that the step alone determines, padded for the devices."""

import threading
import time

import jax
import numpy as np
import pytest

from audiotag_jax.datasets.reader import Examples
from audiotag_jax.input_pipeline import device_batch, epoch_order, evaluation_batches, prefetch, training_batches

NUM_CLIPS = 83
NUM_DEVICES = jax.local_device_count()


@pytest.fixture
def examples():
    """Clips whose images, labels and ids all say which clip they are; none is all zeros."""
    numbers = np.arange(NUM_CLIPS)
    images = np.broadcast_to((numbers + 1)[:, None, None, None], (NUM_CLIPS, 4, 3, 1)).astype(np.float16)
    ids = np.array([f"{n:03d}.wav" for n in numbers])
    return Examples(ids, images, numbers, numbers % 5, numbers % 2 == 0)


def real_labels(batch):
    """The labels of a batch's real rows, in the order of the global batch."""
    flat = {name: values.reshape(-1, *values.shape[2:]) for name, values in batch.items()}
    real = flat["mask"] > 0
    np.testing.assert_array_equal(flat["images"][real][:, 0, 0, 0], flat["labels"][real] + 1)
    return flat["labels"][real].tolist()


def take(examples, first_step, num_steps, indices=None, **changed):
    indices = np.flatnonzero(examples.folds != 0) if indices is None else indices
    settings = {"batch_size": 16, "steps_per_epoch": 5, "seed": 3, "fold": 0} | changed
    batches = training_batches(examples, indices, first_step=first_step, num_steps=num_steps, **settings)
    return [real_labels(batch) for batch in batches]


# The order of an epoch.


@pytest.mark.parametrize(("num_examples", "num_batches"), [(83, 7), (80, 8), (7, 7), (1, 1), (5, 8)])
def test_epoch_holds_every_example_once(num_examples, num_batches):
    batches = epoch_order(num_examples, num_batches, seed=0, fold=1, epoch=2)
    assert len(batches) == num_batches
    assert sorted(np.concatenate(batches).tolist()) == list(range(num_examples))
    sizes = [len(batch) for batch in batches]
    assert max(sizes) - min(sizes) <= 1


def test_order_is_a_function_of_seed_fold_and_epoch():
    def order(seed=0, fold=0, epoch=0):
        return tuple(np.concatenate(epoch_order(NUM_CLIPS, 4, seed=seed, fold=fold, epoch=epoch)).tolist())

    assert order(1, 2, 3) == order(1, 2, 3)
    different = {order(*numbers) for numbers in np.ndindex(3, 3, 3)}
    assert len(different) == 27
    assert order() != tuple(range(NUM_CLIPS))


def test_every_place_is_equally_likely():
    """A clip's place must not favour the first batches, which are the larger ones."""
    places = [np.argsort(np.concatenate(epoch_order(10, 3, seed=0, fold=0, epoch=e))) for e in range(400)]
    assert np.all(np.abs(np.mean(places, axis=0) - 4.5) < 0.6)  # 4 standard errors


# Batches for training.


def test_training_epochs(examples):
    batches = take(examples, 0, 10)
    indices = np.flatnonzero(examples.folds != 0).tolist()
    assert len(indices) == 66
    for epoch in (batches[:5], batches[5:]):
        assert sorted(sum(epoch, [])) == indices  # held-out clips never, the others once
        assert {len(batch) for batch in epoch} == {13, 14}
    assert batches[:5] != batches[5:]


@pytest.mark.parametrize("first_step", [1, 4, 5, 7, 14, 15])
def test_training_continues_where_it_stopped(examples, first_step):
    assert take(examples, first_step, 15) == take(examples, 0, 15)[first_step:]


def test_other_seeds_and_folds_are_other_orders(examples):
    indices = np.arange(NUM_CLIPS)
    runs = [{"seed": seed, "fold": fold, "batch_size": 20} for seed, fold in np.ndindex(2, 2)]
    orders = {str(take(examples, 0, 6, indices, **run)) for run in runs}
    assert len(orders) == 4


def test_more_batches_than_a_small_fold_fills(examples):
    """All folds take as many steps as the largest; a fold with fewer clips than steps gets batches of padding alone."""
    batches = take(examples, 0, 5, indices=np.array([4, 9, 11]))
    assert sorted(sum(batches, [])) == [4, 9, 11]
    assert [len(batch) for batch in batches] == [1, 1, 1, 0, 0]


# Batches for devices.


@pytest.mark.parametrize(("batch_size", "count"), [(32, 32), (32, 29), (30, 30), (3, 2), (17, 0), (8, 8)])
def test_batches_are_padded_and_masked(examples, batch_size, count):
    indices = np.random.default_rng(0).permutation(NUM_CLIPS)[:count]
    batch = device_batch(examples, indices, batch_size)
    rows = -(-batch_size // NUM_DEVICES)
    assert batch["images"].shape == (NUM_DEVICES, rows, 4, 3, 1)
    assert batch["labels"].shape == batch["mask"].shape == (NUM_DEVICES, rows)
    assert batch["images"].dtype == np.float16  # cast on the device: half the transfer
    assert real_labels(batch) == indices.tolist()
    flat_mask = batch["mask"].reshape(-1)
    np.testing.assert_array_equal(flat_mask, np.arange(rows * NUM_DEVICES) < count)  # real rows first
    for name in ("images", "labels"):
        assert not batch[name].reshape(rows * NUM_DEVICES, -1)[count:].any()


def test_eight_devices():
    assert NUM_DEVICES == 8  # the tests above are about several devices


@pytest.mark.parametrize("batch_size", [1, 16, 30, 83, 200])
def test_evaluation_covers_every_index_once_in_order(examples, batch_size):
    indices = np.random.default_rng(0).permutation(NUM_CLIPS)[:60]
    seen, shapes = [], set()
    for chunk, batch in evaluation_batches(examples, indices, batch_size):
        assert real_labels(batch) == chunk.tolist()
        seen += chunk.tolist()
        shapes.add(batch["images"].shape)
    assert seen == indices.tolist()
    assert len(shapes) == 1  # one compilation


def test_evaluation_of_nothing(examples):
    assert list(evaluation_batches(examples, np.arange(0), 16)) == []


# Prefetching.


def wait_for_threads(count, limit_s=5.0):
    """True once no more than `count` threads live."""
    end = time.monotonic() + limit_s
    while threading.active_count() > count:
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def test_prefetch_keeps_order_and_ends():
    before = threading.active_count()
    assert list(prefetch(iter(range(100)))) == list(range(100))
    assert list(prefetch([])) == []
    assert list(prefetch([None, None])) == [None, None]
    assert wait_for_threads(before)


def test_prefetch_works_ahead_but_not_far():
    made = []
    items = prefetch((made.append(i) or i for i in range(100)), depth=3)
    assert made == []  # nothing before the first is asked for
    assert next(items) == 0
    deadline = time.monotonic() + 5
    while len(made) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)
    assert len(made) == 5  # the one handed over, 3 in the queue, 1 waiting for a place
    items.close()


def test_prefetch_raises_the_error_after_the_items_before_it():
    def items():
        yield 1
        yield 2
        raise RuntimeError("bad clip 7")

    before = threading.active_count()
    seen = []
    with pytest.raises(RuntimeError, match="bad clip 7"):
        for item in prefetch(items()):
            seen.append(item)
    assert seen == [1, 2]
    assert wait_for_threads(before)


def test_prefetch_stops_when_its_consumer_leaves():
    before = threading.active_count()
    made = []
    for item in prefetch(made.append(i) or i for i in range(10_000)):
        if item == 3:
            break
    assert wait_for_threads(before)
    count = len(made)
    assert count < 10
    time.sleep(0.1)
    assert len(made) == count


def test_prefetch_stops_when_its_consumer_fails():
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        for item in prefetch(range(10_000)):
            _ = 1 / (item - 2)
    assert wait_for_threads(before)
