"""Orbax checkpoints of a fold: the latest ones, each with the position of the input."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore

from audiotag_jax.runtime.errors import UserError

if TYPE_CHECKING:  # reading a checkpoint asks for no optimizer
    from audiotag_jax.training.state import TrainState

Manager: TypeAlias = ocp.CheckpointManager


def open_checkpoints(fold_dir: Path, max_to_keep: int = 2) -> Manager:
    """Opens the manager of `fold_dir/checkpoints/STEP/`; removes checkpoints that were cut off half-way."""
    options = ocp.CheckpointManagerOptions(
        max_to_keep=max_to_keep, cleanup_tmp_directories=True, enable_async_checkpointing=False, create=True
    )
    return ocp.CheckpointManager(
        (fold_dir / "checkpoints").absolute(), item_names=("state", "position"), options=options
    )


def save(manager: Manager, state: "TrainState", position: dict) -> None:
    """Writes the state under its step, once for all processes. `position` is JSON: that of the input."""
    arrays = jax.device_get(state.arrays())  # the same on all devices; as NumPy arrays it opens on any number of them
    arguments = ocp.args.Composite(state=ocp.args.StandardSave(arrays), position=ocp.args.JsonSave(position))
    manager.save(int(state.step), args=arguments)


def restore(manager: Manager, template: "TrainState") -> tuple["TrainState", dict]:
    """Returns the latest checkpoint as a state like `template`, and its position; the template and {} without one.

    Its arrays are NumPy's. Raises UserError if the checkpoint does not fit the template.
    """
    step = manager.latest_step()
    if step is None:
        return template, {}
    abstract = jax.tree.map(lambda array: np.empty(array.shape, array.dtype), template.arrays())
    arguments = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), position=ocp.args.JsonRestore())
    try:
        _check_readable(manager.directory / str(step) / "state")
        restored = manager.restore(step, args=arguments)
        _check_shapes(restored.state, abstract)
    except (ValueError, KeyError, TypeError, OSError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        path = manager.directory / str(step)
        raise UserError(
            f"Checkpoint {path} is damaged or contains another network: {reason}\n"
            "Remove it, or choose another --workdir."
        ) from error
    return template.replace(**restored.state), restored.position


def check_saved(directory: Path, state: "TrainState") -> None:
    """Reads back step and metadata of the latest checkpoint's arrays; raises UserError unless they are `state`'s.

    A file system, or a path that orbax misreads, can lose what was written without an error.
    """
    step, path = int(state.step), directory / str(int(state.step))
    expected = sorted(np.shape(array) for array in jax.tree.leaves(state.arrays()))
    try:
        store = _open_store(path / "state")
        found: list[tuple[int, ...]] = []
        if store is not None:
            keys = [key for key in store.list().result() if key.endswith(b"/.zarray")]
            found = sorted(tuple(json.loads(store.read(key).result().value)["shape"]) for key in keys)
        whole = kept_steps(directory)[-1:] == [step] and found == expected
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise _damaged(path, error) from error
    if not whole:
        raise UserError(
            f"Checkpoint {path} cannot be read back, although it was written: {len(found)} of {len(expected)} arrays "
            "are there.\nChoose a --workdir on another disk, with a plain name."
        )


def kept_steps(directory: Path) -> list[int]:
    """Returns the steps of the checkpoints `directory/STEP/`, ascending; one being written has another name."""
    if not directory.is_dir():
        return []
    return sorted(int(path.name) for path in directory.iterdir() if path.name.isdecimal() and path.is_dir())


def read_items(directory: Path, step: int) -> dict[str, Any]:
    """Returns the items of the checkpoint `directory/STEP/` by name: the contents of JSON, None for arrays.

    Raises UserError if it is damaged.
    """
    path = directory / str(step)
    items = {}
    for item in sorted(each for each in path.iterdir() if each.is_dir()):
        file = item / "metadata"  # the JSON of an item that ocp.args.JsonSave wrote
        try:
            items[item.name] = json.loads(file.read_text()) if file.exists() else None
        except ValueError as error:
            raise _damaged(path, error) from error
    return items


def read_arrays(directory: Path, step: int | None = None) -> tuple[int, dict, dict]:
    """Returns step, state (nested dict of NumPy arrays) and position of a checkpoint, the latest by default.

    `directory` contains `STEP/` and is only read. No template is needed, nor as many devices as wrote it. Raises
    UserError if the checkpoint is missing or damaged.
    """
    steps = kept_steps(directory)
    if not steps:
        raise UserError(f"{directory} contains no checkpoint.")
    step = steps[-1] if step is None else step
    if step not in steps:
        raise UserError(f"{directory} contains no checkpoint of step {step}; choose from {', '.join(map(str, steps))}.")
    path = (directory / str(step)).absolute()
    try:
        _check_readable(path / "state")
        handler = ocp.PyTreeCheckpointHandler()
        leaves = handler.metadata(path / "state").tree
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), leaves)
        state = handler.restore(path / "state", args=ocp.args.PyTreeRestore(restore_args=as_numpy))
    except (ValueError, KeyError, TypeError, AttributeError, FileNotFoundError) as error:
        raise _damaged(directory / str(step), error) from error
    return step, state, read_items(directory, step).get("position") or {}


def _check_shapes(state: dict, template: dict) -> None:
    """Raises ValueError, naming the first, if arrays differ in shape: NumPy's are restored as they were stored."""
    for (path, array), expected in zip(jax.tree.leaves_with_path(state), jax.tree.leaves(template), strict=True):
        if np.shape(array) != np.shape(expected):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise ValueError(f"{name} has shape {np.shape(array)}, not {np.shape(expected)}")


def _check_readable(state: Path) -> None:
    """Reads every stored value in turn; raises ValueError at the first that is cut off or missing.

    Orbax reads all at once and, when one fails, leaves the others to complain on standard error for themselves.
    """
    if (store := _open_store(state)) is not None:
        for key in store.list().result():
            store.read(key).result()


def _open_store(state: Path) -> tensorstore.KvStore | None:
    """Opens the database of a state's arrays; returns None where there is none."""
    if not (state / "manifest.ocdbt").exists():
        return None
    files = {"driver": "file", "path": f"{state}/"}
    return tensorstore.KvStore.open({"driver": "ocdbt", "base": files}).result()


def _damaged(path: Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:200]
    return UserError(f"Checkpoint {path} is damaged, or was removed just now: {reason}")
