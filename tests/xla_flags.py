"""XLA flags of the test processes and of those that they start."""

import importlib.metadata

# XLA:CPU's newer code generator takes twice as long to compile a training step as the older one, which later releases
# may remove; an unknown flag ends the process. The wheel's and the notebooks' tests compile as users do.
_HAS_OLDER_GENERATOR = tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) <= (0, 10)


def with_devices(number: int) -> str:
    """The flags for `number` virtual devices, and for programs that are quick to compile."""
    flags = f"--xla_force_host_platform_device_count={number}"
    return flags + " --xla_cpu_use_fusion_emitters=false" * _HAS_OLDER_GENERATOR
