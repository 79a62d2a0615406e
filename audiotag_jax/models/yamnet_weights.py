"""YAMNet's published weights: the Keras file yamnet.h5, or safetensors with its names, with batch norms or folded."""

import csv
import re
from collections.abc import Mapping
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pooch
import requests
from flax import traverse_util

from audiotag_jax.models.pretrained import WeightsError, read_state_dict
from audiotag_jax.models.yamnet import EPSILON, NUM_CLASSES, RELU, RELU6, YAMNET

WEIGHTS_URL = "https://storage.googleapis.com/audioset/yamnet.h5"
WEIGHTS_SHA256 = "13c3308955bbfaef262f175ac9c40e47b134573a93984f009220dd7cc12a1744"
CLASSES_URL = (
    "https://raw.githubusercontent.com/tensorflow/models/930a6f98f7debcc32ca7afbca4a176dbf9211e03/"
    "research/audioset/yamnet/yamnet_class_map.csv"
)
CLASSES_SHA256 = "cdf24d193e196d9e95912a2667051ae203e92a2ba09449218ccb40ef787c6df2"
FILES = ("yamnet.safetensors", "yamnet.h5")  # that a folder of weights may contain
CLASS_MAP = "yamnet_class_map.csv"

CEILING = "batch_stats/ceiling"

_NAME = re.compile(r"layer(\d+)/(conv|depthwise_conv|pointwise_conv)(?:/(?:bn/)?)(\w+)")
_LEAVES = {
    "kernel": ("params", "", "kernel"),
    "depthwise_kernel": ("params", "", "kernel"),
    "bias": ("params", "_bn", "bias"),  # of a convolution with its batch norm folded in
    "beta": ("params", "_bn", "bias"),
    "gamma": ("params", "_bn", "scale"),
    "moving_mean": ("batch_stats", "_bn", "mean"),
    "moving_variance": ("batch_stats", "_bn", "var"),
}


def load_yamnet(source: str, params: Mapping, batch_stats: Mapping) -> tuple[dict, dict]:
    """Returns `params` and `batch_stats` with the body's weights from `source` (see `find_weights`).

    Folded weights become batch norms with a mean of 0 and a variance of 1: exact with running statistics; before
    training, see `with_statistics`. Raises WeightsError if they cannot be found, read or fitted.
    """
    path = find_weights(source)
    body, _ = import_yamnet(
        read_weights(path), str(path), {"params": params["body"], "batch_stats": batch_stats["body"]}
    )
    return {**params, "body": body["params"]}, {**batch_stats, "body": body["batch_stats"]}


def find_weights(source: str | Path, cache_dir: Path | None = None) -> Path:
    """Returns the file of weights that `source` names: a file, a folder with one of `FILES`, or "yamnet".

    The last is downloaded, with the names of the classes, to `cache_dir` (None: the user's) if it is not there, and
    verified. Raises WeightsError.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        found = [path / name for name in FILES if (path / name).is_file()]
        if not found:
            raise WeightsError(f"The folder {path} contains neither {' nor '.join(FILES)}.")
        return found[0]
    if path.is_file():
        return path
    if str(source) != YAMNET:
        raise WeightsError(f"There is no file {path}; name YAMNet's weights, their folder, or {YAMNET} (downloaded).")
    _import_h5py(Path(FILES[1]))  # raises before the download, not after
    cache_dir = Path(pooch.os_cache("audiotag_jax")) if cache_dir is None else cache_dir
    _download(CLASSES_URL, CLASSES_SHA256, cache_dir)
    return _download(WEIGHTS_URL, WEIGHTS_SHA256, cache_dir)


def _download(url: str, sha256: str, cache_dir: Path) -> Path:
    by_hand = f"Download {WEIGHTS_URL} and {CLASSES_URL} by hand to one folder, and name it."
    try:
        return Path(pooch.retrieve(url, f"sha256:{sha256}", fname=url.rsplit("/", 1)[1], path=cache_dir))
    except requests.RequestException as error:  # before OSError, whose subclass it is
        raise WeightsError(f"{url} could not be downloaded ({type(error).__name__}). {by_hand}") from error
    except ValueError as error:  # pooch's, of a wrong checksum
        raise WeightsError(f"{url} is damaged or has changed: its SHA-256 is not {sha256[:8]}…. {by_hand}") from error
    except OSError as error:
        raise WeightsError(f"Cannot write {cache_dir}: {error.strerror or error}.") from error


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """Returns float32 arrays by Keras name, such as `layer2/depthwise_conv/bn/beta`, of `.h5` or `.safetensors`."""
    arrays = _read_h5(path) if path.suffix.lower() in (".h5", ".hdf5") else read_state_dict(path)
    return {name.removesuffix(":0"): np.asarray(array, np.float32) for name, array in arrays.items()}


def class_names(weights: Path) -> tuple[str, ...]:
    """Returns the display names of the classes from yamnet_class_map.csv beside the weights. Raises WeightsError."""
    path = weights.parent / CLASS_MAP
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        names = tuple(row["display_name"] for row in rows)
    except FileNotFoundError as error:
        raise WeightsError(f"{path} is missing: the names of the classes, at {CLASSES_URL}.") from error
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise WeightsError(f"{path} is not YAMNet's class map ({error}).") from error
    if len(names) != NUM_CLASSES or [row.get("index") for row in rows] != [str(n) for n in range(len(rows))]:
        raise WeightsError(f"{path} must list {NUM_CLASSES} classes in order, by index and display_name.")
    return names


def import_yamnet(arrays: Mapping[str, np.ndarray], name: str, body: Mapping) -> tuple[dict, dict[str, np.ndarray]]:
    """Returns variables shaped as those of `body` from `arrays`, and the classifier's `kernel` and `bias`.

    Raises WeightsError, listing names that are missing or unexpected, other shapes and non-finite values; `name`
    denotes the weights there.
    """
    shapes = {path: np.shape(leaf) for path, leaf in traverse_util.flatten_dict(body, sep="/").items()}
    sequential = not any("pointwise_conv" in key for key in arrays)
    found: dict[str, np.ndarray] = {CEILING: np.array([RELU6 if sequential else RELU], np.float32)}
    classifier, unexpected = {}, []
    for key, array in arrays.items():
        layer, _, last = key.rpartition("/")
        if layer in ("logits", "dense") and last in ("kernel", "bias"):
            classifier[last] = array
        elif (path := _our_path(key, sequential)) in shapes:
            found[path] = array.transpose(0, 1, 3, 2) if _is_keras_depthwise(path, array) else array
        elif not key.startswith("mel/"):
            unexpected.append(key)
    for path, shape in shapes.items():  # what folded weights lack, and gamma, which the network has fixed at 1
        value = {"scale": 1.0, "mean": 0.0, "var": 1.0 - EPSILON}.get(path.rpartition("/")[2])
        if value is not None and (path.endswith("scale") or not any("moving_mean" in key for key in arrays)):
            found.setdefault(path, np.full(shape, value, np.float32))
    problems = {
        "missing": [path for path in shapes if path not in found],
        "unexpected": unexpected,
        "of another shape": [path for path, array in found.items() if array.shape != shapes[path]],
        "not finite": [path for path, array in found.items() if not np.isfinite(array).all()],
    }
    listed = [f"{len(keys)} {what}, such as {keys[0]}" for what, keys in problems.items() if keys]
    if listed:
        raise WeightsError(f"{name} is not YAMNet: of {len(shapes)} names, {'; '.join(listed)}.")
    return traverse_util.unflatten_dict(found, sep="/"), classifier


def _our_path(key: str, sequential: bool) -> str:
    """Returns the path of a Keras name in the variables, "" for another name.

    TFLite's files number every convolution by itself (`sequential`), Keras' file the pairs of a separable one.
    """
    match = _NAME.fullmatch(key)
    if match is None or match[3] not in _LEAVES:
        return ""
    number, kind = int(match[1]), match[2]
    if sequential and number > 1:
        kind = "depthwise_conv" if number % 2 == 0 and kind == "depthwise_conv" else "pointwise_conv"
        number = number // 2 + 1 if number % 2 == 0 else (number + 1) // 2
    collection, suffix, leaf = _LEAVES[match[3]]
    return f"{collection}/layer{number}/{kind}{suffix}/{leaf}"


def _is_keras_depthwise(path: str, array: np.ndarray) -> bool:
    return path.endswith("depthwise_conv/kernel") and array.ndim == 4 and array.shape[3] == 1


def _read_h5(path: Path) -> dict[str, np.ndarray]:
    """Reads `LAYER/LAYER/WEIGHT:0`, where LAYER is a path of groups, as `LAYER/WEIGHT:0`; runs no code of the file."""
    h5py = _import_h5py(path)
    arrays: dict[str, np.ndarray] = {}

    def visit(name: str, item) -> None:
        if isinstance(item, h5py.Dataset):
            *groups, weight = name.split("/")
            half = len(groups) // 2
            groups = groups[half:] if groups[:half] == groups[half:] else groups
            arrays["/".join([*groups, weight])] = item[()]

    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)
    except (OSError, KeyError, ValueError) as error:
        raise WeightsError(f"{path} is not a complete HDF5 file of weights ({str(error).splitlines()[0]}).") from error
    return arrays


def _import_h5py(path: Path):
    try:
        import h5py
    except ImportError as error:
        raise WeightsError(
            f"Reading {path} needs h5py: pip install h5py. Weights in .safetensors need nothing."
        ) from error
    return h5py


def is_folded(batch_stats: Mapping) -> bool:
    """Returns whether the body's batch norms are those of folded weights, which lack their inputs' statistics."""
    return not any(np.any(leaf) for path, leaf in traverse_util.flatten_dict(batch_stats).items() if path[-1] == "mean")


def with_statistics(body: nn.Module, variables: dict, log_mel: jax.Array) -> dict:
    """Returns variables of the same function in evaluation, with the statistics that `log_mel` `[B, T, 64, 1]` has.

    Folded batch norms have lost them. Training normalizes by each batch's own statistics, which changes what such a
    network computes unless the batch norms undo it: y + b = s (y - mean) / sqrt(var) + b' for s = sqrt(var), b' =
    b + mean.
    """

    def is_conv(module, method):
        return method == "__call__" and (module.name or "").endswith("conv")

    @jax.jit
    def moments(variables, log_mel):
        kept = body.apply(variables, log_mel, train=False, capture_intermediates=is_conv, mutable=["intermediates"])[1]
        flat = traverse_util.flatten_dict(kept["intermediates"])
        outputs = {path[:-1]: value[0].astype(jnp.float32) for path, value in flat.items()}
        return {path: (y.mean((0, 1, 2)), y.var((0, 1, 2))) for path, y in outputs.items() if path[-1].endswith("conv")}

    params, stats = (dict(traverse_util.flatten_dict(variables[kind])) for kind in ("params", "batch_stats"))
    for (*groups, conv), (mean, var) in jax.device_get(moments(variables, log_mel)).items():
        norm = (*groups, f"{conv}_bn")
        gain = params[(*norm, "scale")] / np.sqrt(stats[(*norm, "var")] + EPSILON)
        params[(*norm, "bias")] = params[(*norm, "bias")] + gain * (mean - stats[(*norm, "mean")])
        params[(*norm, "scale")] = gain * np.sqrt(var + EPSILON)
        stats[(*norm, "mean")], stats[(*norm, "var")] = mean, var
    return {"params": traverse_util.unflatten_dict(params), "batch_stats": traverse_util.unflatten_dict(stats)}
