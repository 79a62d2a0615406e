"""The state that a training step maps to the next one."""

from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp
import optax
from flax.training import train_state

from audiotag_jax.models.build import TaggingNetwork


class TrainState(train_state.TrainState):
    """Step, parameters, optimizer state and batch statistics; the functions of network and optimizer are static."""

    batch_stats: dict

    def arrays(self) -> dict:
        """Returns all that a checkpoint must contain, as a tree of arrays."""
        names = ("step", "params", "opt_state", "batch_stats")
        return {name: getattr(self, name) for name in names}

    def updated(self, grads: dict, batch_stats: dict) -> tuple["TrainState", dict]:
        """Returns the state one step further, and what the optimizer added to the parameters."""
        updates, opt_state = self.tx.update(grads, self.opt_state, self.params)
        params = optax.apply_updates(self.params, updates)
        return self.replace(step=self.step + 1, params=params, opt_state=opt_state, batch_stats=batch_stats), updates


def create_train_state(
    network: TaggingNetwork, tx: optax.GradientTransformation, image_shape: tuple[int, ...], key: jax.Array
) -> TrainState:
    """Creates a state at step 0 with parameters drawn from `key`, for images of shape `[T, F, C]`."""
    traced = isinstance(key, jax.core.Tracer)  # inside of another program there are no compiler options of one's own
    variables = (_variables if traced else _initializer(jax.default_backend()))(key, network, image_shape)
    return TrainState.create(
        apply_fn=network.apply, params=variables["params"], tx=tx, batch_stats=variables["batch_stats"]
    ).replace(step=jnp.zeros([], jnp.int32))


@cache  # compiled once, however many folds begin
def _initializer(backend: str) -> Callable:
    """Returns the jitted initialization. It runs once: on a CPU, optimizing it takes ten times as long as it saves."""
    options = {"xla_backend_optimization_level": 0} if backend == "cpu" else None
    return jax.jit(_variables, static_argnums=(1, 2), compiler_options=options)


def _variables(key: jax.Array, network: TaggingNetwork, image_shape: tuple[int, ...]) -> dict:
    return dict(network.init(key, jnp.zeros((1, *image_shape)), train=False))
