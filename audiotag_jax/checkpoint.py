"""Orbax checkpoints of a fold: the latest ones, each with the position of the input."""

from pathlib import Path

import jax
import orbax.checkpoint as ocp

from audiotag_jax.errors import UserError
from audiotag_jax.train_state import TrainState


def open_checkpoints(fold_dir: Path, max_to_keep: int = 2) -> ocp.CheckpointManager:
    """The manager of `fold_dir/checkpoints/STEP/`. A checkpoint cut off half-way is removed, never taken for whole."""
    options = ocp.CheckpointManagerOptions(
        max_to_keep=max_to_keep, cleanup_tmp_directories=True, enable_async_checkpointing=False, create=True
    )
    return ocp.CheckpointManager(
        (fold_dir / "checkpoints").absolute(), item_names=("state", "position"), options=options
    )


def save(manager: ocp.CheckpointManager, state: TrainState, position: dict) -> None:
    """Writes the state under its step. `position` is JSON: where the input stands."""
    arguments = ocp.args.Composite(state=ocp.args.StandardSave(state.arrays()), position=ocp.args.JsonSave(position))
    manager.save(int(state.step), args=arguments)


def restore(manager: ocp.CheckpointManager, template: TrainState) -> tuple[TrainState, dict]:
    """The latest checkpoint as a state like `template`, and its position; the template itself and {} without one.

    Raises UserError if the checkpoint does not fit the template.
    """
    step = manager.latest_step()
    if step is None:
        return template, {}
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, template.arrays())
    arguments = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), position=ocp.args.JsonRestore())
    try:
        restored = manager.restore(step, args=arguments)
    except (ValueError, KeyError, TypeError, OSError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        path = manager.directory / str(step)
        raise UserError(
            f"Checkpoint {path} is damaged or holds another network: {reason}\nRemove it, or choose another --workdir."
        ) from error
    return template.replace(**restored.state), restored.position
