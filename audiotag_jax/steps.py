"""One step of training and of evaluation, and the one place where they are spread over devices.

A batch holds `images` `[B, T, F, C]`, `labels` `[B]` and `mask` `[B]`, 1 in real rows; B counts one device's rows.
"""

import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from audiotag_jax.augment import AugmentSettings, augment
from audiotag_jax.losses import cross_entropy, soft_targets
from audiotag_jax.train_state import TrainState

AXIS = "batch"  # the pmapped axis


@dataclasses.dataclass(frozen=True)
class StepSettings:
    """What a step depends on beside its state and batch."""

    num_classes: int
    label_smoothing: float = 0.0
    augment: AugmentSettings = AugmentSettings()


def train_step(
    state: TrainState, batch: dict[str, jax.Array], key: jax.Array, *, settings: StepSettings
) -> tuple[TrainState, dict[str, jax.Array]]:
    """The next state, and the mean loss, the accuracy and the gradient's norm over the real rows of all devices.

    `key` is the run's: draws are keyed by it, by the step, and by a row's place in the global batch.
    """
    rows = batch["labels"].shape[0]
    positions = lax.axis_index(AXIS) * rows + jnp.arange(rows)
    augment_key, dropout_key = jax.random.split(jax.random.fold_in(key, state.step))
    row_keys = jax.vmap(lambda position: jax.random.fold_in(augment_key, position))(positions)
    targets = soft_targets(batch["labels"], settings.num_classes, settings.label_smoothing)
    images = batch["images"].astype(jnp.float32)
    images, targets = augment(row_keys, images, targets, batch["mask"], settings.augment)
    count = jnp.maximum(lax.psum(batch["mask"].sum(), AXIS), 1)

    def loss_share(params):
        """This device's share of the mean loss: shares add up, so their gradients do."""
        logits, updates = state.apply_fn(
            {"params": params, "batch_stats": state.batch_stats},
            images,
            train=True,
            mask=batch["mask"],
            positions=positions,
            rngs={"dropout": dropout_key},
            mutable=["batch_stats"],
        )
        losses = cross_entropy(logits, targets)
        return jnp.sum(losses * batch["mask"]) / count, (logits, updates["batch_stats"])

    (loss, (logits, batch_stats)), grads = jax.value_and_grad(loss_share, has_aux=True)(state.params)
    grads = lax.psum(grads, AXIS)
    correct = jnp.sum((logits.argmax(-1) == targets.argmax(-1)) * batch["mask"]) / count
    loss, correct = lax.psum((loss, correct), AXIS)
    state = state.apply_gradients(grads=grads, batch_stats=batch_stats)
    squares = [jnp.sum(grad**2) for grad in jax.tree.leaves(grads)]
    return state, {"loss": loss, "accuracy": correct, "gradient_norm": jnp.sqrt(sum(squares))}


def eval_step(state: TrainState, batch: dict[str, jax.Array]) -> jax.Array:
    """Logits `[B, K]` float32 of one device's rows, with running batch statistics and without dropout."""
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    return state.apply_fn(variables, batch["images"].astype(jnp.float32), train=False)


def pmapped_steps(settings: StepSettings) -> tuple[Callable, Callable]:
    """`train_step(state, batch, key)` and `eval_step(state, batch)` over all devices.

    Batches carry a leading device axis, states carry none; the state given to the training step is used up.
    """
    train = partial(train_step, settings=settings)
    in_axes, out_axes = (None, 0, None), (None, None)
    train = jax.pmap(train, axis_name=AXIS, in_axes=in_axes, out_axes=out_axes, donate_argnums=0)
    return train, jax.pmap(eval_step, axis_name=AXIS, in_axes=(None, 0), out_axes=0)


def replicate(state: TrainState) -> TrainState:
    """The state on all devices, placed as a step returns it; placed otherwise, the second step would compile again.

    Buffers may be shared with the argument, which must not be used after a step has used up the result.
    """
    mesh = Mesh(np.array(jax.local_devices()), (AXIS,))
    return jax.device_put(state, NamedSharding(mesh, PartitionSpec()))
