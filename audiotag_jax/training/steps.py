"""One step of training and of evaluation, and the one place where they are spread over devices.

A batch holds one device's rows: `mask` `[B]`, 1 in real rows, and `inputs` `[B, …]`, `labels` and `verified` `[B]`; or,
in place of these three, `index` `[B]` into `data`, where they lie for all clips. Where a clip has any number of labels,
`labels` is `[B, K]`. `stop` is 1 if a process received SIGTERM. Classes may have weights, `class_weights`.
"""

import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from audiotag_jax.settings.sections import AugmentationSettings
from audiotag_jax.settings.settings import Settings
from audiotag_jax.spectral.front_end import FrontEnd, normalize, to_images
from audiotag_jax.training.augmentation import augment
from audiotag_jax.training.losses import CROSS_ENTROPY, Loss, losses_of, right_first, row_weights, target_masses
from audiotag_jax.training.optimizer import group_norms
from audiotag_jax.training.state import TrainState

AXIS = "batch"  # the pmapped axis

Arrays = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class StepSettings:
    """What a step depends on beside its state and batch."""

    num_classes: int
    label_smoothing: float = 0.0
    augmentation: AugmentationSettings = AugmentationSettings()
    front_end: FrontEnd = FrontEnd()
    unverified_weight: float = 1.0  # of a clip whose label nobody has checked
    loss: Loss = CROSS_ENTROPY


def step_settings(settings: Settings, num_classes: int) -> StepSettings:
    """Returns the settings that the steps of a run depend on."""
    return StepSettings(
        num_classes=num_classes,
        label_smoothing=settings.optimizer.label_smoothing,
        augmentation=settings.augmentation,
        front_end=settings.front_end,
        unverified_weight=settings.training.unverified_weight,
        loss=Loss(settings.training.loss, settings.training.focal_gamma, settings.training.lq_exponent)
        if settings.training.loss != CROSS_ENTROPY.name
        else CROSS_ENTROPY,
    )


def train_step(
    state: TrainState,
    batch: dict[str, jax.Array],
    data: dict[str, jax.Array],
    key: jax.Array,
    *,
    settings: StepSettings,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Returns the next state, and metrics over the real rows of all devices.

    `key` is the run's: draws are keyed by it, by the step, and by a row's place in the global batch. Metrics are the
    weighted mean `loss`, `accuracy` (how often the likeliest class is a label of the clip), norms of gradients and
    updates, of all parameters and by group, and `health`: 1 if the step's numbers are all finite, 1 if its inputs are,
    and the number of devices of processes that got SIGTERM.
    """
    batch = _gather(batch, data)
    mask = batch["mask"]
    rows = mask.shape[0]
    positions = lax.axis_index(AXIS) * rows + jnp.arange(rows)
    augment_key, dropout_key, crop_key = jax.random.split(jax.random.fold_in(key, state.step), 3)
    images = to_images(batch["inputs"], settings.front_end, _row_keys(crop_key, positions))
    targets = target_masses(
        batch["labels"],
        batch["verified"],
        settings.num_classes,
        smoothing=settings.label_smoothing,
        unverified_weight=settings.unverified_weight,
        class_weights=batch.get("class_weights"),
    )
    images, targets = augment(_row_keys(augment_key, positions), images, targets, mask, settings.augmentation)
    images = normalize(images, settings.front_end)
    total = lax.psum(jnp.sum(row_weights(targets) * mask), AXIS)  # of the weights
    total = jnp.where(total > 0, total, 1)

    def loss_share(params):
        """Returns this device's share of the mean loss (shares and their gradients add up), logits and statistics."""
        logits, updates = state.apply_fn(
            {"params": params, "batch_stats": state.batch_stats},
            images,
            train=True,
            mask=mask,
            positions=positions,
            rngs={"dropout": dropout_key},
            mutable=["batch_stats"],
        )
        losses = losses_of(logits, targets, settings.loss)
        return jnp.sum(losses * mask) / total, (logits, updates["batch_stats"])

    (loss, (logits, batch_stats)), grads = jax.value_and_grad(loss_share, has_aux=True)(state.params)
    correct = jnp.sum(right_first(logits, batch["labels"]) * mask)
    count = lax.psum(mask.sum(), AXIS)
    grads, loss, correct = lax.psum((grads, loss, correct / jnp.maximum(count, 1)), AXIS)
    state, updates = state.updated(grads, batch_stats)
    metrics = {"loss": loss, "accuracy": correct} | group_norms("gradient", grads) | group_norms("update", updates)
    finite = jnp.isfinite(sum(metrics.values())).astype(jnp.float32)
    bad_inputs = lax.psum(jnp.sum(~jnp.isfinite(jnp.sum(images, axis=(1, 2, 3))) & (mask > 0)), AXIS)
    health = jnp.stack([finite, (bad_inputs == 0).astype(jnp.float32), lax.psum(batch["stop"], AXIS)])
    return state, metrics | {"health": health}


def eval_step(state: TrainState, batch: Arrays, data: Arrays, *, settings: StepSettings) -> jax.Array:
    """Returns logits `[D, B, K]` float32 of the rows of all D devices, by running batch statistics, without dropout."""
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    images = normalize(to_images(_gather(batch, data)["inputs"], settings.front_end), settings.front_end)
    return lax.all_gather(state.apply_fn(variables, images, train=False), AXIS)


def pmapped_steps(settings: StepSettings) -> tuple[Callable, Callable]:
    """Maps `train_step(state, batch, data, key)` and `eval_step(state, batch, data)` over all devices of all processes.

    Batches carry a leading device axis, states and data carry none; the state given to the training step is used up.
    """
    train = partial(train_step, settings=settings)
    in_axes, out_axes = (None, 0, None, None), (None, None)
    train = jax.pmap(train, axis_name=AXIS, in_axes=in_axes, out_axes=out_axes, donate_argnums=0)
    evaluate = partial(eval_step, settings=settings)
    return train, jax.pmap(evaluate, axis_name=AXIS, in_axes=(None, 0, None), out_axes=None)


def replicate(tree):
    """Places a state, or data, on all devices as a step returns it; placed otherwise, the second step compiles again.

    Buffers may be shared with the argument, which must not be used after a step has used up the result.
    """
    mesh = Mesh(np.array(jax.local_devices()), (AXIS,))
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def _gather(batch, data):
    if "index" not in batch:
        return batch
    return batch | {name: values[batch["index"]] for name, values in data.items()}


def _row_keys(key, positions):
    return jax.vmap(lambda position: jax.random.fold_in(key, position))(positions)
