"""Where a network's first weights come from, if not from chance: a file of weights, or another run's checkpoint."""

import json
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from audiotag_jax.checkpoint import read_arrays
from audiotag_jax.errors import UserError
from audiotag_jax.models.pretrained import load_pretrained
from audiotag_jax.progress import say
from audiotag_jax.train_state import TrainState

# What decides which clips a fold holds out.
_FOLD_FIELDS = ("source", "num_folds", "fold_seed")


def initial_weights(state: TrainState, config: ConfigDict, classes: list[str], fold: int) -> TrainState:
    """The state with the weights that `model.pretrained` or `model.init_from` name; as it is where both are empty.

    Raises UserError where they are not to be had, do not fit the network, or come from a run on the same source that
    was trained on this fold's held-out clips.
    """
    if config.model.pretrained:
        try:
            params, batch_stats = load_pretrained(config.model.pretrained, state.params, state.batch_stats)
        except ValueError as error:
            raise UserError(f"config.model.pretrained: {error}") from error
        return state.replace(params=params, batch_stats=batch_stats)
    if config.model.init_from:
        return _from_checkpoint(state, config, classes, fold)
    return state


def find_checkpoints(init_from: str, fold: int) -> Path:
    """The folder of the steps that `init_from` names, itself or its fold's; raises UserError if it is not there."""
    path = Path(init_from.replace("{fold}", str(fold)))
    path = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    if not path.is_dir():
        raise UserError(f"config.model.init_from: there is no folder {path}.")
    return path


def _from_checkpoint(state, config, classes, fold):
    path = find_checkpoints(config.model.init_from, fold)
    step, arrays, position = read_arrays(path)
    record = _record(path.parent.parent / "config.json")
    _check_held_out(config, record, position, fold, path)
    new = {"params": dict(state.params), "batch_stats": dict(state.batch_stats)}
    parts = ["body"]
    if record.get("classes", classes) == classes and _fits(new, arrays, "head"):
        parts.append("head")
    if not _fits(new, arrays, "body"):
        raise UserError(f"config.model.init_from: the body in {path} is another network's.")
    for part in parts:
        for kind in new:
            if part in new[kind]:
                new[kind][part] = arrays[kind][part]
    say(f"{' and '.join(parts)} start from {path}, step {step}")
    return state.replace(**new)


def _check_held_out(config, record, position, fold, path):
    """Raises UserError if the checkpoint may have seen the clips that `fold` holds out."""
    theirs = record.get("config", {}).get("dataset", {})
    ours = {name: config.dataset[name] for name in _FOLD_FIELDS}
    if theirs and theirs.get("source") != ours["source"]:
        return
    same_folds = all(theirs.get(name, value) == value for name, value in ours.items())
    if not same_folds or position.get("fold", fold) != fold:
        raise UserError(
            f"config.model.init_from: the network in {path} was trained on clips that fold {fold} holds out.\n"
            "Write {fold} in place of the fold's number, and use the same folds."
        )


def _record(path):
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def _fits(new, arrays, part):
    return all(_shapes(new[kind][part]) == _shapes(arrays.get(kind, {}).get(part)) for kind in new if part in new[kind])


def _shapes(tree):
    return jax.tree.map(np.shape, tree) if tree is not None else None
