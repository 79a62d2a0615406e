"""Initial weights that are not random: from a file of weights, or from another run's checkpoint."""

import glob
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from audiotag_jax.models.efficientnet import LITE0
from audiotag_jax.models.pretrained import lite0_file, load_pretrained
from audiotag_jax.models.published import trained_on
from audiotag_jax.models.resnet import IMAGENET
from audiotag_jax.models.yamnet import YAMNET
from audiotag_jax.models.yamnet_weights import find_weights, load_yamnet
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.files import write_json
from audiotag_jax.runtime.progress import log
from audiotag_jax.settings.record import FILE_NAME
from audiotag_jax.settings.sections import ModelSettings
from audiotag_jax.training.frozen_body import read_network
from audiotag_jax.training.state import TrainState

SEEN = "clips_seen.json"  # beside a fold's checkpoints: digests of all clips that its weights were trained on


def initial_weights(
    state: TrainState, model: ModelSettings, classes: Sequence[str], fold: int, scored: Mapping[str, str]
) -> TrainState:
    """Returns the state with the weights that `model.pretrained` or `model.init_from` name; as it is if both are empty.

    `scored` are ids by digest. Raises UserError if the weights cannot be read, do not fit the network, or were trained
    on a scored clip.
    """
    check_initial_weights(model, fold, scored)
    return _loaded(state, model, classes, fold)


def _loaded(state: TrainState, model: ModelSettings, classes: Sequence[str], fold: int) -> TrainState:
    if model.pretrained:
        try:
            if model.name == YAMNET:
                params, batch_stats = load_yamnet(model.pretrained, state.params, state.batch_stats)
            else:
                params, batch_stats = load_pretrained(model.pretrained, state.params, state.batch_stats, model.name)
        except ValueError as error:
            raise UserError(f"config.model.pretrained: {error}") from error
        return state.replace(params=params, batch_stats=batch_stats)
    if model.init_from:
        return _from_checkpoint(state, model, classes, fold)
    return state


def initial_body(body: nn.Module, model: ModelSettings, image_shape: tuple[int, ...], fold: int = 0) -> dict:
    """Returns `params` and `batch_stats` of a body whose weights `model.pretrained` or `model.init_from` name.

    `image_shape` is [T, F, C]. It is not checked which clips the weights have seen (`check_initial_weights`). Raises
    UserError if the weights cannot be read or do not fit.
    """
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    shapes = jax.eval_shape(lambda x: body.init(jax.random.key(0), x, train=False), images)
    parts: dict[str, dict] = {kind: {"body": shapes.get(kind, {})} for kind in ("params", "batch_stats")}
    state = _loaded(TrainState(step=0, apply_fn=None, tx=None, opt_state={}, **parts), model, (), fold)  # type: ignore[arg-type]
    return {kind: jax.tree.map(np.asarray, getattr(state, kind)["body"]) for kind in parts}


def check_initial_weights(model: ModelSettings, fold: int, scored: Mapping[str, str]) -> None:
    """Raises UserError as `initial_weights` does, except for errors that only the arrays show; reads no arrays."""
    check_pretrained(model)
    if not model.init_from:
        return
    path = resolve_init_from(model.init_from, fold)
    common = sorted(scored[digest] for digest in clips_seen(model, fold) & scored.keys())
    if common:
        raise UserError(
            f"config.model.init_from: the network in {path} was trained on {len(common)} clips that fold {fold} holds "
            f"out or tests, such as {common[0]}.\nWrite {{fold}} in place of the fold's number, and use the same folds."
        )


def check_pretrained(model: ModelSettings) -> None:
    """Raises UserError if the weights that `model.pretrained` or `model.init_from` name are not there.

    YAMNet's are downloaded first. Of a folder for each fold, one has to be there.
    """
    source = model.pretrained
    if model.init_from and not _is_there(Path(model.init_from).expanduser().absolute()):
        raise UserError(f"config.model.init_from: there is no folder {model.init_from}.")
    try:
        if source and model.name == YAMNET:
            find_weights(source)
        elif source == IMAGENET and model.name == LITE0:
            lite0_file()
        elif source and source != IMAGENET and not Path(source).expanduser().is_file():
            raise UserError(f"config.model.pretrained: there is no file {source}.")
    except ValueError as error:
        raise UserError(f"config.model.pretrained: {error}") from error


def _is_there(path: Path) -> bool:
    """Returns whether there is the folder, or one that the path with a number in place of {fold} names."""
    if "{fold}" not in str(path):
        return path.is_dir()
    pattern = "*".join(map(glob.escape, str(path.relative_to(path.anchor)).split("{fold}")))
    return any(Path(path.anchor).glob(pattern))


def clips_seen(model: ModelSettings, fold: int) -> set[str]:
    """Returns digests of the clips that the first weights, and those before them, have seen; none without `init_from`.

    Published weights count as having seen none: `models/published.py` states what they were trained on. Raises
    UserError if there is no record.
    """
    if not model.init_from:
        return set()
    path = resolve_init_from(model.init_from, fold).parent / SEEN
    try:
        return set(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise UserError(
            f"config.model.init_from: {path} does not list the clips that the network has seen; held-out ones may be "
            "among them.\nName the fold_K folder of a run, whole as mode train left it."
        ) from error


def pretrained_on(model: ModelSettings) -> str:
    """Returns a line on the data, other than clips of runs, that the first weights were trained on; "" for none.

    With `init_from`, it is that of the run that they come from, or of the one before.
    """
    if not model.init_from:
        return trained_on(model.pretrained, model.name)
    folder = Path(model.init_from.replace("{fold}", "0")).expanduser().absolute()  # fold_K, or its checkpoints
    records = (_record(parent / FILE_NAME) for parent in folder.parents[:2])
    return next((record["pretrained_on"] for record in records if record.get("pretrained_on")), "")


def record_seen(fold_dir: Path, model: ModelSettings, fold: int, digests: Iterable[str]) -> None:
    """Writes `clips_seen.json`: `digests`, and those of the clips that the first weights had seen."""
    write_json(fold_dir / SEEN, sorted(clips_seen(model, fold) | set(digests)))


def resolve_init_from(init_from: str, fold: int) -> Path:
    """Returns the folder of the steps that `init_from` names, itself or its fold's; raises UserError without one."""
    path = Path(init_from.replace("{fold}", str(fold))).expanduser().absolute()
    path = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    if not path.is_dir():
        raise UserError(f"config.model.init_from: there is no folder {path}.")
    return path


def _from_checkpoint(state, model, classes, fold):
    path = resolve_init_from(model.init_from, fold)
    step, arrays, _ = read_network(path)
    record = _record(path.parent.parent / FILE_NAME)
    new = {"params": dict(state.params), "batch_stats": dict(state.batch_stats)}
    parts = ["body"]
    if record.get("classes") == list(classes) and _fits(new, arrays, "head"):
        parts.append("head")
    if not _fits(new, arrays, "body"):
        raise UserError(f"config.model.init_from: the body in {path} is another network's.")
    for part in parts:
        for kind in new:
            if part in new[kind]:
                new[kind][part] = arrays[kind][part]
    log(f"{'body and head start' if len(parts) > 1 else 'body starts'} from {path}, step {step}")
    return state.replace(**new)


def _record(path):
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def _fits(new, arrays, part):
    return all(_shapes(new[kind][part]) == _shapes(arrays.get(kind, {}).get(part)) for kind in new if part in new[kind])


def _shapes(tree):
    return jax.tree.map(np.shape, tree) if tree is not None else None
