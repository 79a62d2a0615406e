"""Probes: a linear classifier on the frozen features of a pretrained network.

The classifier is multinomial logistic regression on standardized features, with an L2 penalty of its weights (not of
its biases), solved by L-BFGS as scikit-learn's `LogisticRegression` is. Where a clip has any number of labels, each
class has a logistic regression of its own (one against the rest), all solved together. The problem is convex and
nothing is drawn at random: the seed of a run changes nothing.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from audiotag_jax.datasets.reader import Examples
from audiotag_jax.evaluation.task import has_label, is_scored
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.progress import log
from audiotag_jax.settings.record import fold_dir
from audiotag_jax.training import checkpoints
from audiotag_jax.training.experiment import Experiment
from audiotag_jax.training.frozen_body import HASH, FrozenBody, load_body, save_body
from audiotag_jax.training.frozen_features import FOLDER, clip_features
from audiotag_jax.training.initial_weights import check_initial_weights, initial_body
from audiotag_jax.training.losses import binary_masses, example_weights, losses_of, row_weights, soft_targets
from audiotag_jax.training.state import TrainState

MAX_ITERATIONS = 500
TOLERANCE = 1e-3  # of the gradient, as a share of the penalty's largest part of it, where the solver stops
_LEAST_STD = 1e-6  # relative to the mean: a feature that varies less is constant, and stays unscaled
_ROWS = 256  # the number of rows is padded to a multiple of it

Predict = Callable[[Examples, np.ndarray, str], np.ndarray]  # of examples, indices and a description to logits [n, K]


@dataclasses.dataclass(frozen=True)
class Probe:
    """Weights `[D, K]` and biases `[K]` for features `[D]` from which `mean` is taken and which `std` divides."""

    mean: np.ndarray
    std: np.ndarray
    kernel: np.ndarray
    bias: np.ndarray
    power: float = 1.0  # of the features, before anything else

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Returns `[n, K]` float32 of features `[n, D]`."""
        features = raised(features, self.power)
        return ((features - self.mean) / self.std @ self.kernel + self.bias).astype(np.float32)

    def variables(self) -> dict:
        """Returns the variables of `ProbeHead`."""
        names = ("mean", "std", "kernel", "bias")
        as_float32 = {name: np.asarray(getattr(self, name), np.float32) for name in names}
        return {
            "params": {"linear": {name: as_float32[name] for name in ("kernel", "bias")}},
            "batch_stats": {name: as_float32[name] for name in ("mean", "std")},
        }


def raised(features: np.ndarray, power: float) -> np.ndarray:
    """Returns features whose absolute values are raised to `power`."""
    return features if power == 1 else np.sign(features) * np.abs(features) ** power


def fit_probe(
    features: np.ndarray, targets: np.ndarray, weights: np.ndarray, penalty: float, power: float = 1.0
) -> tuple[Probe, dict]:
    """Returns the probe of features `[n, D]` and targets `[n, K]` with weights `[n]`; and its loss and iterations.

    It minimizes the weighted sum of the clips' cross-entropies + penalty / 2 · the sum of squares of the kernel. The
    loss is the weighted mean of the cross-entropies. With targets `[n, K, 2]`, masses of any number of labels, the sum
    is over clips and classes.
    """
    features = raised(features, power)
    mean, std = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
    std = np.where(std > _LEAST_STD * np.maximum(1, np.abs(mean)), std, 1.0)
    weighted = targets * weights.reshape(-1, *[1] * (targets.ndim - 1))
    rows = (0, -len(features) % _ROWS)  # rows of weight 0: folds of nearly equal size share a program
    arrays = [
        np.pad(each, (rows, *[(0, 0)] * (each.ndim - 1))).astype(np.float32)
        for each in ((features - mean) / std, weighted)
    ]
    kernel, bias, loss, iterations = map(np.asarray, _solve(*arrays, np.float32(penalty)))
    return Probe(mean, std, kernel, bias, power), {"loss": float(loss), "iterations": int(iterations)}


@jax.jit
def _solve(inputs: jax.Array, targets: jax.Array, penalty: jax.Array) -> tuple[jax.Array, ...]:
    """Returns kernel, bias, mean cross-entropy and iterations for standardized inputs and weighted targets."""
    total = row_weights(targets).sum() if targets.ndim == 3 else targets.sum()
    if targets.ndim == 3:  # their cross-entropy is a mean over classes, where the sum is meant
        penalty = penalty / targets.shape[1]

    def cross_entropy(variables: tuple[jax.Array, jax.Array]) -> jax.Array:
        kernel, bias = variables
        logits = jnp.dot(inputs, kernel, precision="highest") + bias
        return losses_of(logits, targets).sum() / total

    def loss(variables: tuple[jax.Array, jax.Array]) -> jax.Array:
        return cross_entropy(variables) + penalty / (2 * total) * jnp.vdot(variables[0], variables[0])

    solver, value_and_grad = optax.lbfgs(memory_size=20), optax.value_and_grad_from_state(loss)

    def step(carry):
        variables, state, count, _ = carry
        value, grad = value_and_grad(variables, state=state)
        updates, state = solver.update(grad, state, variables, value=value, grad=grad, value_fn=loss)
        variables = optax.apply_updates(variables, updates)
        grad = optax.tree_utils.tree_get(state, "grad")
        largest = jnp.maximum(jnp.abs(grad[0]).max(), jnp.abs(grad[1]).max())
        return variables, state, count + 1, largest / (penalty / total * jnp.abs(variables[0]).max())

    def unfinished(carry):
        return (carry[3] > TOLERANCE) & (carry[2] < MAX_ITERATIONS)

    num_features, num_classes = inputs.shape[1], targets.shape[1]
    start = jnp.zeros((num_features, num_classes)), jnp.zeros(num_classes)
    (kernel, bias), _, count, _ = jax.lax.while_loop(
        unfinished, step, (start, solver.init(start), jnp.zeros([], int), jnp.inf)
    )
    return kernel, bias, cross_entropy((kernel, bias)), count


class Probes:
    """The probes of a run's folds; keeps body and features in memory while they are the same from fold to fold."""

    def __init__(self, experiment: Experiment):
        self._experiment = experiment
        self._bodies: dict[int | None, FrozenBody] = {}
        self._features: dict[tuple[str, str], np.ndarray] = {}

    def compute_features(self, fold: int) -> None:
        """Computes what is missing of the features that the fold's probe needs."""
        self._of_split(self._body(fold), "train")
        if self._experiment.test_examples is not None:
            self._of_split(self._body(fold), "test")

    def train(self, workdir: Path, fold: int) -> tuple[Predict, dict[str, Any]]:
        """Fits and saves the probe of a fold, or loads one that is saved; returns its predictions, and metrics."""
        experiment, directory = self._experiment, fold_dir(workdir, fold)
        if checkpoints.kept_steps(directory / "checkpoints"):  # interrupted before its predictions were saved
            return self.load(workdir, fold), {}
        settings, examples, clips = experiment.settings, experiment.examples, experiment.training_clips(fold)
        check_initial_weights(settings.model, fold, experiment.scored_clips(fold))
        body = self._body(fold)
        features = self._of_split(body, "train")[clips]
        labels, smoothing = examples.labels[clips], settings.optimizer.label_smoothing
        if labels.ndim == 1:
            targets = soft_targets(labels, len(experiment.classes), smoothing)
        else:
            targets = binary_masses(labels, smoothing)
        class_weights = experiment.class_weights(fold)
        if class_weights is not None:
            targets = targets * (class_weights[labels][:, None] if labels.ndim == 1 else class_weights)
        known = jnp.where(is_scored(labels), 0, -1)
        weights = example_weights(examples.verified[clips], known, settings.training.unverified_weight)
        probe, metrics = fit_probe(
            features,
            np.asarray(targets),
            np.asarray(weights),
            settings.optimizer.probe_penalty,
            settings.training.probe_power,
        )
        log(
            f"fold {fold}: probe of {features.shape[1]} features on {len(clips)} clips, "
            f"{len(experiment.validation_clips(fold))} held out: {metrics['iterations']} iterations"
        )
        save_body(directory, body, Path(settings.dataset.prepared_dir) / FOLDER / "bodies")
        variables = {name: {"head": tree} for name, tree in probe.variables().items()}
        state = TrainState(step=jnp.asarray(1), apply_fn=None, tx=None, opt_state={}, **variables)  # type: ignore[arg-type]
        with checkpoints.open_checkpoints(directory) as manager:
            checkpoints.save(manager, state, {"fold": fold, "epoch": 1, "batch": 0, HASH: body.hash})
        metrics["accuracy"] = np.mean(has_label(labels, probe.logits(features).argmax(axis=1)))
        return self.load(workdir, fold), metrics

    def load(self, workdir: Path, fold: int) -> Predict:
        """Returns the predictions of the fold's saved probe; raises UserError if it is missing or damaged."""
        directory = fold_dir(workdir, fold)
        _, state, position = checkpoints.read_arrays(directory / "checkpoints")
        try:
            linear, statistics = state["params"]["head"]["linear"], state["batch_stats"]["head"]
            probe = Probe(
                statistics["mean"],
                statistics["std"],
                linear["kernel"],
                linear["bias"],
                self._experiment.settings.training.probe_power,
            )
            expected = position[HASH]
        except (KeyError, TypeError) as error:
            raise UserError(f"The checkpoint in {directory} is not that of a probe.") from error
        body = load_body(directory, expected)

        def predict(examples: Examples, clips: np.ndarray, description: str) -> np.ndarray:
            del description
            split = "train" if examples is self._experiment.examples else "test"
            return probe.logits(self._of_split(body, split)[clips])

        return predict

    def _body(self, fold: int) -> FrozenBody:
        """Returns the frozen body of a fold as `config.model` names it: the same one for all, unless by fold."""
        experiment, model = self._experiment, self._experiment.settings.model
        key = fold if "{fold}" in model.init_from else None
        if key not in self._bodies:
            body = model.network(len(experiment.classes)).body
            self._bodies = {key: FrozenBody(initial_body(body, model, experiment.image_shape, fold))}
        return self._bodies[key]

    def _of_split(self, body: FrozenBody, split: str) -> np.ndarray:
        key = (body.hash, split)
        if key not in self._features:
            test = self._experiment.test_examples
            examples = test if split == "test" and test is not None else self._experiment.examples
            self._features = {known: values for known, values in self._features.items() if known[0] == key[0]}
            experiment = self._experiment
            self._features[key] = clip_features(experiment.settings, experiment.fingerprint, body, examples, split)
        return self._features[key]
