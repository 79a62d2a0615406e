"""Features of every clip by a frozen body, computed once and cached beside the prepared datasets.

They lie in `prepared_dir/audiotag_features/KEY/`, in files of some clips each, so that an interrupted computation
continues. The key names all that they depend on; every fold, seed and search trial of a probe reads the same files, as
does mode `embed`.
"""

import contextlib
import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from jax import lax

from audiotag_jax.datasets.reader import Examples
from audiotag_jax.runtime.errors import NPZ_ERRORS, UserError
from audiotag_jax.runtime.files import write_npz
from audiotag_jax.runtime.progress import log, progress
from audiotag_jax.settings.sections import ModelSettings
from audiotag_jax.settings.settings import Settings
from audiotag_jax.spectral.front_end import FrontEnd, normalize, to_images
from audiotag_jax.training.frozen_body import FrozenBody, join
from audiotag_jax.training.input_pipeline import Batches, close, evaluation_order, read_ahead
from audiotag_jax.training.steps import AXIS, replicate

VERSION = 1  # to be raised when the features of a body change, and nothing else in their key does
FOLDER = "audiotag_features"
_CHUNK = 512  # clips of a file


def clip_features(settings: Settings, inputs_name: str, body: FrozenBody, examples: Examples, split: str) -> np.ndarray:
    """Returns pooled features `[n, D]` float32 of the n examples of a split, in their order; computes what is missing.

    `inputs_name` is that of what the network sees (`experiment.name_of_inputs`). Raises UserError if a feature is NaN
    or infinite.
    """
    directory = features_dir(settings, inputs_name, body)
    starts = range(0, len(examples), _CHUNK)
    parts = {start: _read(_file(directory, split, start), examples.ids[start : start + _CHUNK]) for start in starts}
    missing = [start for start in starts if parts[start] is None]
    if missing:
        parts |= _compute(settings, directory, body, examples, split, missing)
    return np.concatenate([parts[start] for start in starts])


def features_dir(settings: Settings, inputs_name: str, body: FrozenBody) -> Path:
    """Returns the folder of the features that this body has of the inputs of that name."""
    model, pooling = settings.model, settings.training.probe_pooling
    inputs = [inputs_name, settings.trains_on_clips, model.normalization]
    key = json.dumps([VERSION, inputs, model.name, model.dtype, pooling, body.hash])
    return Path(settings.dataset.prepared_dir) / FOLDER / hashlib.sha256(key.encode()).hexdigest()[:16]


def _compute(
    settings: Settings, directory: Path, body: FrozenBody, examples: Examples, split: str, starts: list[int]
) -> dict[int, np.ndarray]:
    """Computes the files of `directory` that begin at the clips `starts`, and caches them; returns their contents."""
    size, total = settings.training.batch_size, len(examples)
    chunks = [np.arange(start, min(start + _CHUNK, total)) for start in starts]
    order = [batch for chunk in chunks for batch in evaluation_order(chunk, size)]
    step = feature_step(settings.model, settings.front_end, settings.training.probe_pooling)
    variables = replicate(join(body.variables, {}))
    batches = read_ahead(Batches(examples, order, size, resident=False), num_workers=settings.dataset.num_workers)
    log(f"computing features of {sum(map(len, chunks))} {split} clips, once; the first batch compiles")
    rows: list[np.ndarray] = []
    computed: dict[int, np.ndarray] = {}
    for indices, batch in zip(order, progress(batches, len(order), "computing features", "batches"), strict=True):
        features = np.asarray(step(variables, batch))
        rows.append(features.reshape(-1, features.shape[-1])[: len(indices)])
        last = int(indices[-1])
        if (last + 1) % _CHUNK == 0 or last + 1 == total:
            start = last // _CHUNK * _CHUNK
            computed[start], rows = np.concatenate(rows), []
            _check_finite(computed[start])
            _write(_file(directory, split, start), examples.ids[start : last + 1], computed[start])
    close(batches)
    return computed


@functools.lru_cache(maxsize=8)  # the variants of a study share a compiled step, where their images have one shape
def feature_step(model: ModelSettings, front_end: FrontEnd, pooling: str) -> Callable:
    """Returns the pmapped function of variables and batch to features `[D, B, …]` of the rows of all D devices."""
    network = model.network(1, AXIS, pooling)

    def step(variables: dict, batch: dict[str, jax.Array]) -> jax.Array:
        images = normalize(to_images(batch["inputs"], front_end), front_end)
        return lax.all_gather(network.apply(variables, images, pooling, method="pooled"), AXIS)

    return jax.pmap(step, axis_name=AXIS, in_axes=(None, 0), out_axes=None)


def _check_finite(features: np.ndarray) -> None:
    if not np.isfinite(features).all():
        raise UserError(
            "The features of the frozen body are NaN or infinite: its weights do not fit config.model.dtype, or the "
            "prepared dataset is damaged (then remove it)."
        )


def _file(directory: Path, split: str, start: int) -> Path:
    return directory / f"{split}_{start:06d}.npz"


def _read(path: Path, ids: np.ndarray) -> np.ndarray | None:
    """Returns the features of a file; None if it is missing, damaged, or of other clips."""
    try:
        with np.load(path) as saved:
            return saved["features"] if np.array_equal(saved["ids"], ids) else None
    except NPZ_ERRORS:
        return None


def _write(path: Path, ids: np.ndarray, features: np.ndarray) -> None:
    with contextlib.suppress(OSError):  # where nothing can be written, the next run computes them again
        path.parent.mkdir(parents=True, exist_ok=True)
        write_npz(path, ids=ids, features=features)
