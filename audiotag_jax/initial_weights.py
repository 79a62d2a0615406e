"""Where a network's first weights come from, if not from chance: a file of weights, or another run's checkpoint."""

from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from audiotag_jax.checkpoint import read_arrays
from audiotag_jax.errors import UserError
from audiotag_jax.models.pretrained import load_pretrained
from audiotag_jax.progress import say
from audiotag_jax.train_state import TrainState


def initial_weights(state: TrainState, model: ConfigDict, fold: int) -> TrainState:
    """The state with the weights that `model.pretrained` or `model.init_from` name; as it is where both are empty.

    Raises UserError where they are not to be had, or do not fit the network.
    """
    if model.pretrained:
        try:
            params, batch_stats = load_pretrained(model.pretrained, state.params, state.batch_stats)
        except ValueError as error:
            raise UserError(f"config.model.pretrained: {error}") from error
        return state.replace(params=params, batch_stats=batch_stats)
    if model.init_from:
        return _from_checkpoint(state, Path(model.init_from.replace("{fold}", str(fold))))
    return state


def _from_checkpoint(state, path):
    step, arrays, _ = read_arrays(_checkpoints(path))
    new = {"params": dict(state.params), "batch_stats": dict(state.batch_stats)}
    parts = []
    for part in ("body", "head"):
        fits = all(_shapes(new[kind][part]) == _shapes(arrays[kind].get(part)) for kind in new if part in new[kind])
        if fits:
            parts.append(part)
            for kind in new:
                if part in new[kind]:
                    new[kind][part] = arrays[kind][part]
        elif part == "body":
            raise UserError(f"config.model.init_from: the body in {path} is another network's.")
    say(f"{' and '.join(parts)} start from {path}, step {step}")
    return state.replace(**new)


def _shapes(tree):
    return jax.tree.map(np.shape, tree) if tree is not None else None


def _checkpoints(path):
    """The folder of the steps, given itself or that of its fold."""
    return path / "checkpoints" if (path / "checkpoints").is_dir() else path
