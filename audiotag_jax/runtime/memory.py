"""Settings of the memory allocator (glibc) for training on CPU."""

import contextlib
import ctypes
import os
from pathlib import Path

ACCELERATORS = ("/dev/nvidia0", "/dev/kfd", "/dev/accel0", "/dev/vfio/0")  # device files of NVIDIA, AMD and TPU
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8  # names of glibc's mallopt(3)


def keep_freed_memory() -> None:
    """Configures glibc (`mallopt`) to keep freed memory in one heap; does nothing with another C library.

    A training step on CPU frees and allocates the same large buffers again; getting zeroed pages from the system each
    time takes about a sixth of the step. With an accelerator the step's buffers are not in this memory, and the threads
    that prepare batches would only compete for the lock of the one heap: nothing is changed then either.
    Call it before JAX starts its threads.
    """
    if not trains_on_cpu():
        return
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**28), (_ARENA_MAX, 1)):
            mallopt(option, value)


def trains_on_cpu() -> bool:
    """Returns whether JAX will find no accelerator, from `JAX_PLATFORMS` or the device files; initializes no JAX."""
    platforms = os.environ.get("JAX_PLATFORMS", "")
    return platforms.split(",")[0] == "cpu" if platforms else not any(Path(file).exists() for file in ACCELERATORS)
