"""Batches: every example once, in an order that the step alone determines, padded for the devices."""

import jax
import numpy as np
import pytest

from audiotag_jax.datasets.reader import Examples, Stored
from audiotag_jax.training import input_pipeline
from audiotag_jax.training.input_pipeline import (
    Batches,
    TrainingOrder,
    choose_place,
    device_batch,
    epoch_order,
    evaluation_order,
    read_ahead,
    resident_data,
)

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
    np.testing.assert_array_equal(flat["inputs"][real][:, 0, 0, 0], flat["labels"][real] + 1)
    return flat["labels"][real].tolist()


def take(examples, first_step, num_steps, indices=None, *, batch_size=16, num_workers=0, **changed):
    indices = np.flatnonzero(examples.folds != 0) if indices is None else indices
    order = TrainingOrder(indices, **{"steps_per_epoch": 5, "num_steps": num_steps, "seed": 3, "fold": 0} | changed)
    batches = Batches(examples, order, batch_size, resident=False)
    return [real_labels(batch) for batch in read_ahead(batches, first_step, num_workers)]


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


@pytest.mark.parametrize(("num_clips", "steps_per_epoch"), [(83, 7), (80, 8), (5, 8), (64, 1)])
def test_a_step_s_clips_are_those_of_its_epoch_s_permutation(num_clips, steps_per_epoch):
    """As runs of earlier releases drew them, bit for bit."""
    clips = np.arange(num_clips) * 3
    order = TrainingOrder(clips, steps_per_epoch, 3 * steps_per_epoch, seed=4, fold=2)
    for epoch in (1, 0, 2):
        drawn = np.random.default_rng((4, 2, epoch)).permutation(num_clips)
        for place, expected in enumerate(np.array_split(drawn, steps_per_epoch)):
            np.testing.assert_array_equal(order[epoch * steps_per_epoch + place], clips[expected])


def test_an_epoch_is_drawn_once_by_all_its_readers(examples, monkeypatch):
    drawn, default_rng = [], np.random.default_rng

    def counted(seed):
        drawn.append(seed)
        return default_rng(seed)

    monkeypatch.setattr(np.random, "default_rng", counted)
    take(examples, 0, 15, seed=71)
    assert sorted(drawn) == [(71, 0, 0), (71, 0, 1), (71, 0, 2)]


# Batches for devices.


@pytest.mark.parametrize(("batch_size", "count"), [(32, 32), (32, 29), (30, 30), (3, 2), (17, 0), (8, 8)])
def test_batches_are_padded_and_masked(examples, batch_size, count):
    indices = np.random.default_rng(0).permutation(NUM_CLIPS)[:count]
    batch = device_batch(examples, indices, batch_size)
    rows = -(-batch_size // NUM_DEVICES)
    assert batch["inputs"].shape == (NUM_DEVICES, rows, 4, 3, 1)
    assert batch["labels"].shape == batch["mask"].shape == (NUM_DEVICES, rows)
    assert batch["inputs"].dtype == np.float16  # cast on the device: half the transfer
    assert real_labels(batch) == indices.tolist()
    flat_mask = batch["mask"].reshape(-1)
    np.testing.assert_array_equal(flat_mask, np.arange(rows * NUM_DEVICES) < count)  # real rows first
    for name in ("inputs", "labels", "verified"):
        assert not batch[name].reshape(rows * NUM_DEVICES, -1)[count:].any()


def test_eight_devices():
    assert NUM_DEVICES == 8  # the tests above are about several devices


@pytest.mark.parametrize("batch_size", [1, 16, 30, 83, 200])
def test_evaluation_covers_every_index_once_in_order(examples, batch_size):
    indices = np.random.default_rng(0).permutation(NUM_CLIPS)[:60]
    order, seen, shapes = evaluation_order(indices, batch_size), [], set()
    for chunk, batch in zip(order, read_ahead(Batches(examples, order, batch_size, resident=False)), strict=True):
        assert real_labels(batch) == chunk.tolist()
        seen += chunk.tolist()
        shapes.add(batch["inputs"].shape)
    assert seen == indices.tolist()
    assert len(shapes) == 1  # one compilation


def test_evaluation_of_nothing(examples):
    order = evaluation_order(np.arange(0), 16)
    assert list(read_ahead(Batches(examples, order, 16, resident=False))) == []


# Where inputs wait.


def test_resident_batches_are_indices_into_the_data(examples):
    indices = np.random.default_rng(0).permutation(NUM_CLIPS)[:29]
    streamed = device_batch(examples, indices, 32)
    resident = device_batch(examples, indices, 32, resident=True)
    assert resident.keys() == {"index", "mask"}
    np.testing.assert_array_equal(resident["mask"], streamed["mask"])
    real = streamed["mask"] > 0
    for name, values in resident_data(examples).items():
        np.testing.assert_array_equal(values[resident["index"]][real], streamed[name][real])


def test_worker_processes_read_the_same(examples):
    assert take(examples, 3, 8, num_workers=2) == take(examples, 3, 8)


def test_an_error_while_reading_is_raised(examples):
    broken = Examples(examples.ids, examples.inputs[:20], examples.labels, examples.folds, examples.verified)
    with pytest.raises(IndexError):
        take(broken, 0, 5)


def test_place_is_chosen_by_size(monkeypatch):
    monkeypatch.setattr(input_pipeline, "_memory_bytes", lambda: 1000)
    assert [choose_place("auto", size) for size in (0, 250, 251)] == ["device", "device", "stream"]
    assert choose_place("device", 10**12) == "device"
    assert choose_place("stream", 0) == "stream"


def test_memory_is_known():
    assert 2**26 < input_pipeline._memory_bytes() < 2**50


def test_stored_inputs_know_their_size(tmp_path):
    stored = Stored(tmp_path, "train", "image", (10, 4, 3, 1), np.dtype(np.float16))
    assert stored.nbytes == 10 * 4 * 3 * 2


def test_a_share_without_rows_keeps_its_type(tmp_path, monkeypatch):
    """Else two processes would compile different programs."""
    stored = Stored(tmp_path, "train", "image", (10, 4, 3, 1), np.dtype(np.float16))
    source = type("Source", (), {"__getitems__": lambda self, indices: []})()
    monkeypatch.setattr("audiotag_jax.datasets.reader.record_source", lambda *_: source)
    assert (stored[np.arange(0)].dtype, stored[np.arange(0)].shape) == (np.float16, (0, 4, 3, 1))
