"""What a computation ran with and on. It is recorded as provenance; no name and no check depends on it."""

import functools
import hashlib
import importlib.metadata
import platform
import sys
from collections.abc import Mapping
from pathlib import Path

PACKAGE = "audiotag_jax"
LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy", "scipy", "librosa", "soundfile", "soxr", "tensorflow-datasets")
_COMPARED = (PACKAGE, "python", *LIBRARIES, "device")  # the text of the code and the machine are recorded alone


def environment() -> dict[str, str]:
    """Returns the versions of the package, its code, Python and the libraries, the machine, and the kind of device."""
    return {
        PACKAGE: getattr(sys.modules.get(PACKAGE), "__version__", "unknown"),
        "code": _code(),
        "python": platform.python_version(),
        **{name: _version(name) for name in LIBRARIES},
        "machine": f"{platform.node()}, {platform.platform()}",
        "device": _device(),
    }


def differences(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Returns what differs between two environments and may change the last digits of a result, in words."""
    changed = [name for name in _COMPARED if name in then and then[name] != now.get(name)]
    return [f"{name} {then[name]}, here {now.get(name, 'unknown')}" for name in changed]


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _device() -> str:
    import jax  # what records no provenance need not load it

    device = jax.devices()[0]
    return device.platform if device.platform == device.device_kind else f"{device.platform} {device.device_kind}"


@functools.cache
def _code() -> str:
    """Returns a hash of the text of the package."""
    text = hashlib.sha256()
    root = Path(__file__).parents[1]
    for path in sorted(root.rglob("*.py")):
        text.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return text.hexdigest()[:16]
