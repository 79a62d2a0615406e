"""A trained run as one function from waveforms to probabilities, from its directory alone."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax.typing import ArrayLike

from audiotag_jax.evaluation.decision import Decision
from audiotag_jax.evaluation.events import Event
from audiotag_jax.evaluation.predictions import VALIDATION
from audiotag_jax.evaluation.task import DEFAULT_THRESHOLD, MULTI_LABEL, SINGLE_LABEL, Task
from audiotag_jax.inference.batches import BATCH_WINDOWS, each_window
from audiotag_jax.inference.calibrate import calibrate
from audiotag_jax.inference.events import HOPS_A_WINDOW, ON_THRESHOLD, EventOptions, find_events, window_scores
from audiotag_jax.inference.windows import WindowOptions, waveform_windows
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.settings.record import fold_dir, read_record
from audiotag_jax.spectral.front_end import FrontEnd, normalize, to_images
from audiotag_jax.training.frozen_body import read_network

ACTIVATIONS = {"softmax": jax.nn.softmax, "sigmoid": jax.nn.sigmoid}


@dataclasses.dataclass(frozen=True)
class Tagger:
    """The networks of a run's folds, the front end before them, and the temperature of their probabilities."""

    name: str  # of the run's configuration
    classes: tuple[str, ...]  # K, in the order of the probabilities
    sample_rate_hz: int
    length_samples: int  # N, of a waveform
    folds: tuple[int, ...]  # of the run's networks; empty for a published one
    temperature: float
    calibration_errors: tuple[float, float]  # at temperature 1, and cross-fitted; NaN where no clip has a label
    variables: dict  # of the network: arrays with a leading axis of folds, but for what is shared
    network: nn.Module
    front_end: FrontEnd
    rounds_images: bool  # to half precision, as a dataset stores them
    shares_body: bool = False  # the folds' networks differ in their heads alone, as probes of one body do
    activation: str = "softmax"  # of the logits; "sigmoid" where classes do not exclude each other
    usual_hop_s: float = 0.0  # between the windows of a recording; 0: a window's length
    fitted_to: str = ""  # the clips that the temperature is fitted to
    doubt: str = ""  # why the probabilities are not reliable; tags are then named uncertain
    task: Task = SINGLE_LABEL  # whether a recording gets one tag or any number
    decision: Decision | None = None  # of any number: calibrations and thresholds of the classes

    @property
    def duration_s(self) -> float:
        return self.length_samples / self.sample_rate_hz

    def __call__(self, waveform: ArrayLike, rate_hz: int, hop_s: float = 0.0) -> dict[str, float]:
        """Returns probabilities by class, the likeliest first, of a recording of any length; empty if all is silent.

        `waveform` is [n] or [n, channels] at `rate_hz`, of floats or of signed integers. As in mode predict, a
        recording longer than a clip is windows, one every `hop_s` (0: as usual), and its probabilities are the mean
        over those that are not silent. Raises ValueError on what is no recording.
        """
        samples = np.asarray(waveform)
        batch = 1 if len(np.atleast_1d(samples)) <= self.duration_s * rate_hz else BATCH_WINDOWS
        windows = waveform_windows(samples, rate_hz, self.window_options(hop_s))
        found = [row for _, row in each_window(windows, self.probabilities, self.length_samples, batch)]
        audible = [row for row in found if row is not None]
        if not audible:
            return {}
        mean = np.asarray(np.sum(audible, axis=0, dtype=np.float64)) / len(audible)
        return {self.classes[k]: float(mean[k]) for k in np.argsort(-mean, kind="stable")}

    def events(
        self, sound: str | Path | ArrayLike, rate_hz: int = 0, hop_s: float = 0.0, options: EventOptions | None = None
    ) -> list[Event]:
        """Returns events (tag, onset_s, offset_s, score) of a recording by onset: a file, or samples at `rate_hz`.

        `find_events` defines how windows, one every `hop_s`, become events; with several tags a recording each class
        has its own threshold, unless `options` sets one. Raises ValueError on what is no recording.
        """
        scores = window_scores(sound, self.probabilities, self.event_windows(hop_s), rate_hz)
        return find_events(*scores, self.classes, (options or EventOptions()).with_thresholds(self.event_thresholds))

    @property
    def event_thresholds(self) -> float | tuple[float, ...]:
        """What an event of a class reaches: one for all, or one each where a recording has any number of tags."""
        return self.thresholds or ON_THRESHOLD

    def event_windows(self, hop_s: float = 0.0) -> WindowOptions:
        """Returns the windows for events, one every `hop_s` seconds; 0: as usual, but four a window at least."""
        usual_s = min(self.usual_hop_s or self.duration_s, self.duration_s / HOPS_A_WINDOW)
        return self.window_options(hop_s or usual_s)

    def window_options(self, hop_s: float = 0.0) -> WindowOptions:
        """Returns options of windows, one every `hop_s` seconds; 0: as usual. Raises ValueError on a negative one."""
        if not hop_s >= 0:
            raise ValueError(f"hop_s is {hop_s}; it must be 0 or more")
        hop_samples = max(1, round((hop_s or self.usual_hop_s or self.duration_s) * self.sample_rate_hz))
        return WindowOptions(self.sample_rate_hz, self.length_samples, hop_samples)

    def probabilities(self, waveforms: ArrayLike) -> jax.Array:
        """Returns [B, K] float32, the mean over folds, of finite `waveforms` [B, N]; raises ValueError on other N.

        Compiled once for each B; a row's probabilities do not depend on the other rows.
        """
        names = ("network", "front_end", "rounds_images", "shares_body", "activation")
        settings = {name: getattr(self, name) for name in names}
        scale: tuple = (self.temperature, None)
        if self.decision is not None:
            scale = tuple(np.asarray(each, np.float32) for each in (self.decision.temperatures, self.decision.offsets))
        return _probabilities(self.variables, self._checked(waveforms), *scale, **settings)

    @property
    def thresholds(self) -> float | tuple[float, ...]:
        """The probability from which a class is a tag: one for all, or one each where a recording has any number."""
        if self.decision is not None:
            return tuple(self.decision.thresholds.tolist())
        return DEFAULT_THRESHOLD if self.task is MULTI_LABEL else 0.0

    def embeddings(self, waveforms: ArrayLike, fold: int | None = None) -> jax.Array:
        """Returns [B, D] float32, the mean over positions of the body's features, of `waveforms` as above.

        They are those of one network, since features of different networks have no common axes: of `fold`, or of the
        first. Raises ValueError on a fold that is not loaded.
        """
        if fold is not None and fold not in self.folds:
            raise ValueError(f"fold {fold} is not loaded; choose from {', '.join(map(str, self.folds))}")
        number = 0 if fold is None else self.folds.index(fold)
        body = {kind: tree["body"] for kind, tree in self.variables.items() if "body" in tree}
        if not self.shares_body:
            body = jax.tree.map(lambda leaf: leaf[number], body)
        settings = {"body": self.network.body, "front_end": self.front_end, "rounds_images": self.rounds_images}
        return _embeddings(body, self._checked(waveforms), **settings)

    def _checked(self, waveforms: ArrayLike) -> ArrayLike:
        shape = np.shape(waveforms)
        if len(shape) != 2 or shape[1] != self.length_samples:
            raise ValueError(f"waveforms must be [clips, {self.length_samples}], not {shape}")
        return waveforms


def describe_decision(tagger: Tagger) -> dict:
    """Returns the calibrations and thresholds by class, in their order, for JSON; empty where one is for all."""
    if tagger.decision is None:
        return {}
    names = ("temperatures", "offsets", "thresholds")
    return {name: getattr(tagger.decision, name).tolist() for name in names}


def load_tagger(workdir: str | Path, folds: Sequence[int] = ()) -> Tagger:
    """Loads the tagger of a run: of the given folds, or of all that are finished. No data set is read.

    One temperature is fitted to the folds' held-out logits together; with several labels a clip, a calibration and a
    threshold for each class that has enough of them. The mean over folds is somewhat less confident
    than each; how much cannot be fitted, as every labelled clip was seen by all folds but one. Raises UserError if the
    directory contains no such run, or one of another version of the code.
    """
    workdir = Path(workdir)
    record = read_record(workdir)
    settings, classes = record.settings, record.classes
    chosen = _finished_folds(workdir, folds)
    network = settings.network(len(classes))
    length_samples = settings.clips.length_samples
    front_end = settings.waveform_front_end
    read = (read_network(fold_dir(workdir, fold) / "checkpoints") for fold in chosen)
    _, variables, bodies = zip(*read, strict=True)
    for fold, loaded in zip(chosen, variables, strict=True):
        _check_shapes(loaded, network, front_end, f"{workdir}, fold {fold}")
    calibration = calibrate(workdir, chosen)
    shares_body = "" not in bodies and len(set(bodies)) == 1
    return Tagger(
        name=settings.name,
        classes=classes,
        sample_rate_hz=settings.dataset.sample_rate_hz,
        length_samples=length_samples,
        folds=chosen,
        temperature=calibration.temperature,
        calibration_errors=calibration.errors,
        fitted_to=calibration.fitted_to,
        doubt=calibration.doubt,
        variables=_stacked(variables, shares_body),
        network=network,
        front_end=front_end,
        rounds_images=not settings.trains_on_clips,
        shares_body=shares_body,
        activation=calibration.task.activation,
        task=calibration.task,
        decision=calibration.decision,
    )


def _stacked(variables: Sequence[dict], shares_body: bool) -> dict:
    """Returns the variables of all folds with a leading axis of folds; a shared body once, without that axis."""

    def stack(path, *arrays):
        is_shared = shares_body and path[1].key == "body"
        return jnp.asarray(arrays[0] if is_shared else np.stack(arrays))

    return jax.tree_util.tree_map_with_path(stack, *variables)


@functools.partial(jax.jit, static_argnames=("network", "front_end", "rounds_images", "shares_body", "activation"))
def _probabilities(
    variables, waveforms, temperature, offset, *, network, front_end, rounds_images, shares_body, activation
):
    images = _images(waveforms, front_end, rounds_images)

    if shares_body:
        features = network.apply(_part(variables, "body"), images, method="features")
        answer, variables = functools.partial(network.apply, method="classify"), _part(variables, "head")
    else:
        answer, features = functools.partial(network.apply, train=False), images

    def of_fold(variables):
        logits = answer(variables, features) / temperature
        return ACTIVATIONS[activation](logits if offset is None else logits + offset)

    return jax.lax.map(of_fold, variables).mean(axis=0)  # one network in the program, however many folds


def _part(variables: dict, part: str) -> dict:
    """Returns the variables of the body alone, or of the head."""
    return {kind: {part: tree[part]} for kind, tree in variables.items() if part in tree}


@functools.partial(jax.jit, static_argnames=("body", "front_end", "rounds_images"))
def _embeddings(variables, waveforms, *, body, front_end, rounds_images):
    return mean_features(body, variables, _images(waveforms, front_end, rounds_images))


def mean_features(body: nn.Module, variables: dict, images: jax.Array) -> jax.Array:
    """Returns [B, D] float32: the features of normalized images [B, T, F, C], averaged over their positions."""
    features = jnp.asarray(body.apply(variables, images, train=False), jnp.float32)
    return features.mean(range(1, features.ndim - 1))


def _images(waveforms, front_end, rounds_images):
    images = to_images(jnp.asarray(waveforms, jnp.float32), front_end)
    return normalize(round_to_half(images) if rounds_images else images, front_end)


def round_to_half(values: jax.Array) -> jax.Array:
    """Rounds `values` in [0, 1] to half precision, still float32.

    Two casts would be removed by the compiler as redundant; `reduce_precision` alone flushes the subnormal numbers of
    half precision to zero.
    """
    subnormal = jnp.round(values * 2.0**24) / 2.0**24
    return jnp.where(values < 2.0**-14, subnormal, jax.lax.reduce_precision(values, 5, 10))


def _finished_folds(workdir: Path, folds: Sequence[int]) -> tuple[int, ...]:
    paths = workdir.glob(f"fold_*/{VALIDATION}")
    numbers = [path.parent.name.removeprefix("fold_") for path in paths]
    finished = sorted(int(number) for number in numbers if number.isdecimal())
    if not finished:
        raise UserError(f"{workdir} contains no finished fold: train one first with --mode=train.")
    unknown = [fold for fold in folds if fold not in finished]
    if unknown:
        raise UserError(f"{workdir}: fold {unknown[0]} is not finished; choose from {', '.join(map(str, finished))}.")
    return tuple(dict.fromkeys(folds)) or tuple(finished)


def _check_shapes(variables: dict, network: nn.Module, settings: FrontEnd, where: str) -> None:
    """Raises UserError unless these are the variables of the network."""
    waveforms = jax.ShapeDtypeStruct((1, settings.length_samples), jnp.float32)
    images = jax.eval_shape(functools.partial(to_images, front_end=settings), waveforms)
    expected = jax.eval_shape(functools.partial(network.init, train=False), jax.random.key(0), images)
    found, wanted = (
        {name: np.shape(array) for name, array in traverse_util.flatten_dict(tree, sep="/").items()}
        for tree in (variables, expected)
    )
    odd = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
    if odd:
        raise UserError(f"{where}: the checkpoint contains another network than config.json describes ({odd[0]}).")
