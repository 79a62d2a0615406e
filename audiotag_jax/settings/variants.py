"""The variants' files: where they are, what they are called, and how they are loaded.

In a clone they lie in `configs/` beside the package; installed, in `audiotag_jax/configs/`. They import their defaults
by `from configs import default` in both places, which `import_configs` makes work.
"""

import importlib.util
import runpy
import sys
from pathlib import Path

from ml_collections import ConfigDict

from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.suggest import did_you_mean

_PACKAGE = "configs"  # the name by which variants import what they share
_SHARED = ("__init__", "default")
# Of a published network on its own input, not of a variant: a study compares them where they are named alone.
NETWORKS = ("yamnet",)


def configs_dir() -> Path:
    """Returns the folder of the variants' files, of the installed package or of the clone."""
    package = Path(__file__).parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def list_variants() -> tuple[str, ...]:
    """Returns the names of all variants, sorted."""
    return tuple(sorted(path.stem for path in configs_dir().glob("*.py") if path.stem not in _SHARED))


def variant_file(name: str) -> Path:
    """Returns the file of a variant; raises UserError, listing the choices, on an unknown one."""
    if name not in list_variants():
        close = did_you_mean(name, list_variants())
        raise UserError(f"Unknown variant {name!r}; {close or 'choose from ' + ', '.join(list_variants()) + '.'}")
    return configs_dir() / f"{name}.py"


def get_config(variant: str, preset: str = "fsdkaggle2018") -> ConfigDict:
    """Returns a variant's configuration under a preset; raises UserError, listing the choices, on an unknown one."""
    import_configs()
    path = variant_file(variant)
    try:
        return runpy.run_path(str(path))["get_config"](preset)
    except ValueError as error:
        raise UserError(str(error)) from error


def import_configs() -> None:
    """Makes `from configs import default` work in a variant's file, wherever the program runs and the file lies."""
    if _PACKAGE in sys.modules:
        return
    folder = configs_dir()
    spec = importlib.util.spec_from_file_location(
        _PACKAGE, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        raise UserError(f"There is no {folder / '__init__.py'}; install the package again.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[_PACKAGE] = module
    spec.loader.exec_module(module)
