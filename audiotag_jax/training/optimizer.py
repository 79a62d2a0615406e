"""Parameter groups, one-cycle schedules and phases; Adam with decoupled decay for each group, by optax.multi_transform.

Everything is a function of the step number, so an interrupted run continues without knowing where its phases began.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util

from audiotag_jax.settings.sections import OptimizerSettings

GROUPS = ("early", "late", "head")
LATE_LAYERS = ("layer3", "layer4")
_NORM = "_norm"  # suffix of the label of a body group's batch norms, which learn in a frozen phase too


@dataclasses.dataclass(frozen=True)
class Phase:
    """`num_steps` steps of one cycle; peak learning rates by group, None where the group rests but for its norms."""

    num_steps: int
    norm_peaks: dict[str, float]
    peaks: dict[str, float | None]


def make_phases(
    settings: OptimizerSettings, frozen_epochs: int, num_epochs: int, steps_per_epoch: int
) -> tuple[Phase, ...]:
    """The frozen-body phase, where there is one, and the phase in which all groups learn."""
    spread = geometric_spread(settings.learning_rate_low, settings.learning_rate_high, len(GROUPS))
    peaks = dict(zip(GROUPS, spread, strict=True))
    phases = []
    if frozen_epochs:
        rate = settings.frozen_learning_rate
        frozen = {"early": None, "late": None, "head": rate}
        phases.append(Phase(frozen_epochs * steps_per_epoch, dict.fromkeys(GROUPS, rate), frozen))
    if num_epochs:
        phases.append(Phase(num_epochs * steps_per_epoch, peaks, peaks))
    return tuple(phases)


def geometric_spread(low: float, high: float, count: int) -> tuple[float, ...]:
    """`count` rates from low to high, each the same multiple of the one before."""
    return tuple(low * (high / low) ** (i / (count - 1)) for i in range(count))


def parameter_labels(params: dict) -> dict:
    """Tree of group labels with the shape of `params` (`body` and `head`); raises ValueError on any other top name.

    The head is one group. In the body, layer3 and layer4 are `late` and all before them `early`; the scale and bias
    of a batch norm are labelled `early_norm` or `late_norm`.
    """
    flat = traverse_util.flatten_dict(params)
    norms = {path[:-1] for path in flat if path[-1] == "scale"}

    def label(path: tuple[str, ...]) -> str:
        if path[0] == "head":
            return "head"
        if path[0] != "body":
            raise ValueError(f"Parameter {'/'.join(path)} belongs to no group; its first name must be body or head.")
        group = "late" if path[1] in LATE_LAYERS else "early"
        return group + _NORM if path[:-1] in norms else group

    return traverse_util.unflatten_dict({path: label(path) for path in flat})


def group_norms(name: str, tree: dict) -> dict[str, jax.Array]:
    """Euclidean norms of a tree shaped like the parameters: `NAME_norm` of all of it, `NAME_norm_GROUP` by group."""
    flat, labels = (traverse_util.flatten_dict(each) for each in (tree, parameter_labels(tree)))
    squares = dict.fromkeys(GROUPS, 0.0)
    for path, values in flat.items():
        squares[labels[path].removesuffix(_NORM)] += jnp.sum(values**2)
    groups = {f"{name}_norm_{group}": jnp.sqrt(square) for group, square in squares.items()}
    return {f"{name}_norm": jnp.sqrt(sum(squares.values()))} | groups


def one_cycle(num_steps: int, start: float, peak: float, end: float, warmup_fraction: float) -> optax.Schedule:
    """Half a cosine from start to peak, then half a cosine to end (Smith & Topin, 2019, arXiv:1708.07120)."""
    warmup_steps = max(1, round(warmup_fraction * num_steps))
    fall_steps = max(1, num_steps - warmup_steps)

    def schedule(step):
        rise = start + (peak - start) * (1 - jnp.cos(jnp.pi * jnp.minimum(step / warmup_steps, 1))) / 2
        progress = jnp.clip((step - warmup_steps) / fall_steps, 0, 1)
        fall = end + (peak - end) * (1 + jnp.cos(jnp.pi * progress)) / 2
        return jnp.where(step < warmup_steps, rise, fall)

    return schedule


def learning_rates(settings: OptimizerSettings, phases: Sequence[Phase]) -> dict[str, optax.Schedule]:
    """Learning rate by label as a function of the step; 0 where a group rests."""

    def cycle(phase: Phase, peak: float | None) -> optax.Schedule:
        if peak is None:
            return optax.constant_schedule(0.0)
        start, end = peak / settings.start_divisor, peak / settings.end_divisor
        return one_cycle(phase.num_steps, start, peak, end, settings.warmup_fraction)

    schedules = {group: _in_turn(phases, [cycle(p, p.peaks[group]) for p in phases]) for group in GROUPS}
    for group in GROUPS[:-1]:
        schedules[group + _NORM] = _in_turn(phases, [cycle(p, p.norm_peaks[group]) for p in phases])
    return schedules


def momentum_schedule(settings: OptimizerSettings, phases: Sequence[Phase]) -> optax.Schedule:
    """Adam's beta1 as a function of the step: low where the learning rate is high."""
    high, low = settings.momentum_high, settings.momentum_low
    return _in_turn(phases, [one_cycle(p.num_steps, high, low, high, settings.warmup_fraction) for p in phases])


def make_optimizer(settings: OptimizerSettings, phases: Sequence[Phase]) -> optax.GradientTransformation:
    """One AdamW a label (Loshchilov & Hutter, 2019), each starting afresh at the phases' boundaries."""
    momentum = momentum_schedule(settings, phases)
    boundaries = _boundaries(phases)

    def adamw(schedule: optax.Schedule) -> optax.GradientTransformation:
        def build(learning_rate, b1):
            adam = optax.scale_by_adam(b1=b1, b2=settings.beta2, eps=settings.epsilon)
            return optax.chain(
                restart_at(adam, boundaries),
                optax.add_decayed_weights(settings.weight_decay),
                optax.scale_by_learning_rate(learning_rate),
            )

        return optax.inject_hyperparams(build)(learning_rate=schedule, b1=momentum)

    rates = learning_rates(settings, phases)
    return optax.multi_transform({label: adamw(rate) for label, rate in rates.items()}, parameter_labels)


class RestartState(NamedTuple):
    """Steps taken, and the state of the transformation that is restarted."""

    count: jax.Array
    inner: optax.OptState


def restart_at(inner: optax.GradientTransformation, boundaries: Sequence[int]) -> optax.GradientTransformation:
    """`inner`, its state made anew before each step in `boundaries`: a group wakes without stale moments."""
    if not boundaries:
        return inner

    def init(params):
        return RestartState(jnp.zeros([], jnp.int32), inner.init(params))

    def update(updates, state, params=None):
        restart = jnp.isin(state.count, jnp.asarray(boundaries))
        fresh = inner.init(params)
        current = jax.tree.map(lambda new, old: jnp.where(restart, new, old), fresh, state.inner)
        updates, current = inner.update(updates, current, params)
        return updates, RestartState(state.count + 1, current)

    return optax.GradientTransformation(init, update)


def _boundaries(phases: Sequence[Phase]) -> list[int]:
    ends = [sum(phase.num_steps for phase in phases[:i]) for i in range(len(phases) + 1)]
    return ends[1:-1]


def _in_turn(phases: Sequence[Phase], schedules: Sequence[Callable]) -> optax.Schedule:
    return optax.join_schedules(schedules, _boundaries(phases))
