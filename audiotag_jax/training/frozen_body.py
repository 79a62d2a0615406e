"""The frozen body of a probe: one file of weights beside a fold's checkpoint, which names it by its hash."""

import contextlib
import dataclasses
import functools
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.files import write_atomic
from audiotag_jax.training.checkpoints import read_arrays

FILE_NAME = "body.safetensors"  # in the folder of a fold: params/… and batch_stats/… of the body
HASH = "body"  # name of the hash in the position of a probe's checkpoint


@dataclasses.dataclass(frozen=True, eq=False)
class FrozenBody:
    """The variables of a body, NumPy arrays: `params`, and `batch_stats`, which may be empty."""

    variables: Mapping

    @functools.cached_property
    def flat(self) -> dict[str, np.ndarray]:
        """The arrays by their path, such as `params/conv1/kernel`."""
        flat = traverse_util.flatten_dict(dict(self.variables), sep="/")
        return {name: np.ascontiguousarray(array) for name, array in sorted(flat.items())}

    @functools.cached_property
    def hash(self) -> str:
        """A hash of the names, shapes and values."""
        digest = hashlib.sha256()
        for name, array in self.flat.items():
            digest.update(f"{name} {array.dtype} {array.shape} ".encode())
            digest.update(array.data)
        return digest.hexdigest()[:16]


def save_body(fold_dir: Path, body: FrozenBody, shared_dir: Path) -> None:
    """Writes `fold_dir/body.safetensors`, atomically.

    Many probes have the same body: it is written once to `shared_dir` and linked from there (a hard link takes no
    space, and a copy of the work directory is complete); where that is not possible, it is written again.
    """
    target, common = fold_dir / FILE_NAME, shared_dir / f"{body.hash}.safetensors"

    def write(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, lambda file: file.write(safetensors.numpy.save(body.flat)))

    fold_dir.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        if not common.exists():
            write(common)
        os.link(common, target)
    if not target.exists():
        write(target)


def load_body(fold_dir: Path, expected: str) -> FrozenBody:
    """Returns the body in `fold_dir`; raises UserError unless its hash is `expected`."""
    path = fold_dir / FILE_NAME
    try:
        flat = safetensors.numpy.load(path.read_bytes())
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"The body of the probe, {path}, is missing or damaged: {error}") from error
    body = FrozenBody(traverse_util.unflatten_dict(flat, sep="/"))
    if body.hash != expected:
        raise UserError(f"{path} has changed since the probe was trained on its features; train it again.")
    return body


def read_network(checkpoints_dir: Path) -> tuple[int, dict, str]:
    """Returns the step of a fold's latest checkpoint, the network's variables, and the hash of a probe's body, else "".

    Raises UserError if the checkpoint, or the body of a probe beside it, is missing or damaged.
    """
    step, state, position = read_arrays(checkpoints_dir)
    variables = {name: state.get(name) or {} for name in ("params", "batch_stats")}
    if not position.get(HASH):
        return step, variables, ""
    body = load_body(checkpoints_dir.parent, position[HASH])
    return step, join(body.variables, {kind: tree.get("head", {}) for kind, tree in variables.items()}), body.hash


def join(body: Mapping, head: Mapping) -> dict:
    """Returns the variables of a network, `params` and `batch_stats`, from those of its body and of its head."""
    variables: dict[str, dict] = {"params": {}, "batch_stats": {}}
    for part, trees in (("body", body), ("head", head)):
        for name, tree in trees.items():
            if tree:  # a body may have no batch statistics
                variables[name][part] = tree
    return variables
