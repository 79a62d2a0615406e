"""Runs of several processes, on one host or many: connecting them, broadcasting and comparing values."""

import hashlib
import os
import re

import jax
import numpy as np
from jax.experimental import multihost_utils

from audiotag_jax.runtime.errors import UserError

CLUSTER = "cluster"  # in place of an address: JAX detects it from the cluster's environment


def describe_devices() -> str:
    """Returns the number and kind of all devices, as "1 CPU" or "2 NVIDIA H100 80GB HBM3"."""
    kinds = [device.device_kind for device in jax.devices()]
    names = {kind: kind.upper() if kind == "cpu" else kind for kind in kinds}
    return ", ".join(f"{kinds.count(kind)} {name}" for kind, name in names.items())


def connect(coordinator: str, num_processes: int | None = None, process_id: int | None = None) -> bool:
    """Connects the processes of a run and returns True; without a coordinator returns False. Call it before JAX starts.

    `coordinator` is HOST:PORT of process 0, or "cluster": the address then comes from Slurm, Open MPI, a TPU pod or
    Kubernetes, or from the variable JAX_COORDINATOR_ADDRESS. Raises UserError on incomplete or invalid arguments; if
    other processes do not connect, JAX ends this process after five minutes.
    """
    coordinator = coordinator or (CLUSTER if os.environ.get("JAX_COORDINATOR_ADDRESS") else "")
    if not coordinator:
        if num_processes is not None or process_id is not None:
            raise UserError("--num_processes and --process_id need --coordinator=HOST:PORT.")
        return False
    if coordinator != CLUSTER and (num_processes is None or process_id is None):
        raise UserError("--coordinator=HOST:PORT needs --num_processes and --process_id; or use --coordinator=cluster.")
    if coordinator != CLUSTER and not re.fullmatch(r".+:\d+", coordinator):
        raise UserError(f"--coordinator={coordinator}: give HOST:PORT, or cluster.")
    address = None if coordinator == CLUSTER else coordinator
    try:
        jax.distributed.initialize(address, num_processes, process_id)
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0][:300]
        raise UserError(f"Cannot connect the processes at {coordinator}: {reason}") from error
    return True


def check_equal_devices() -> None:
    """Raises UserError unless all processes have equally many devices, and JAX lists those of a process together."""
    owners = [device.process_index for device in jax.devices()]
    if owners != sorted(owners) or len(owners) != jax.process_count() * jax.local_device_count():
        raise UserError("The processes of a run must have equally many devices each.")


def broadcast_from_main(value: bool) -> bool:
    """Broadcasts the main process's `value` and returns it in every process."""
    if jax.process_count() == 1:
        return value
    return bool(multihost_utils.broadcast_one_to_all(np.asarray(value)))


def any_process(value: bool) -> bool:
    """Returns whether `value` is true in any process."""
    if jax.process_count() == 1:
        return value
    return bool(np.any(multihost_utils.process_allgather(np.asarray(value))))


def all_processes_equal(text: str) -> bool:
    """Returns whether all processes pass the same `text`."""
    digest = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint32)
    if jax.process_count() == 1:
        return True
    return not any_process(bool(np.any(multihost_utils.broadcast_one_to_all(digest) != digest)))


def is_main_process() -> bool:
    """Returns whether this is process 0, which writes the shared files and the log."""
    return jax.process_index() == 0


def barrier(place: str) -> None:
    """Waits until every process has reached the barrier named `place`."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(place)
