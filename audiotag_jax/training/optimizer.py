"""Parameter groups, one-cycle schedules and phases; Adam with decoupled decay for each group, by optax.multi_transform.

Everything is a function of the step number, so an interrupted run continues without knowing where its phases began.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util

from audiotag_jax.models.build import BODY_STAGES
from audiotag_jax.models.stages import late_paths
from audiotag_jax.settings.sections import OptimizerSettings

GROUPS = ("early", "late", "head")
_NORM = "_norm"  # suffix of the label of a body group's batch norms, which learn in a frozen phase too


@dataclasses.dataclass(frozen=True)
class Phase:
    """`num_steps` steps of one cycle; peak learning rates by group, None where only the group's norms learn."""

    num_steps: int
    norm_peaks: Mapping[str, float]
    peaks: Mapping[str, float | None]


def make_phases(
    settings: OptimizerSettings, frozen_epochs: int, num_epochs: int, steps_per_epoch: int
) -> tuple[Phase, ...]:
    """Returns the frozen-body phase, where there is one, and the phase in which all groups learn."""
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
    """Returns `count` rates from low to high, each the same multiple of the one before."""
    return tuple(low * (high / low) ** (i / (count - 1)) for i in range(count))


def parameter_labels(params: dict) -> dict:
    """Returns a tree of group labels with the shape of `params`; raises ValueError on a parameter without a group.

    The head is one group, the body's stages are `early` or `late` as its module states; the scale and bias of a batch
    norm are labelled `early_norm` or `late_norm`.
    """
    flat = traverse_util.flatten_dict(params)
    norms = {path[:-1] for path in flat if path[-1] == "scale"}
    late = late_paths([path[1:] for path in flat if path[0] == "body"], BODY_STAGES)

    def label(path: tuple[str, ...]) -> str:
        if path[0] == "head":
            return "head"
        if path[0] != "body":
            raise ValueError(f"Parameter {'/'.join(path)} belongs to no group; its first name must be body or head.")
        group = "late" if path[1:] in late else "early"
        return group + _NORM if path[:-1] in norms else group

    return traverse_util.unflatten_dict({path: label(path) for path in flat})


def group_norms(name: str, tree: dict) -> dict[str, jax.Array]:
    """Computes Euclidean norms of a tree like the parameters: `NAME_norm` of all, `NAME_norm_GROUP` of each group."""
    flat, labels = (traverse_util.flatten_dict(each) for each in (tree, parameter_labels(tree)))
    squares = dict.fromkeys(GROUPS, jnp.zeros([]))
    for path, values in flat.items():
        squares[labels[path].removesuffix(_NORM)] += jnp.sum(values**2)
    groups = {f"{name}_norm_{group}": jnp.sqrt(square) for group, square in squares.items()}
    return {f"{name}_norm": jnp.sqrt(sum(squares.values()))} | groups


def one_cycle(
    num_steps: int, peak: float, *, warmup_fraction: float, start_divisor: float, end_divisor: float
) -> optax.Schedule:
    """Returns two half cosines: peak / start_divisor to peak, then to peak / end_divisor, reached after `num_steps`.

    The peak is at step `warmup_fraction` * `num_steps`, rounded, at least 1 (Smith & Topin, 2019, arXiv:1708.07120).
    """
    warmup_steps = max(1, round(warmup_fraction * num_steps))
    cycle_steps = max(num_steps, warmup_steps + 1)  # optax needs a step to fall in
    return optax.cosine_onecycle_schedule(
        cycle_steps,
        peak,
        pct_start=(warmup_steps + 0.5) / cycle_steps,  # optax truncates the product; rounding must not lower it
        div_factor=start_divisor,
        final_div_factor=end_divisor / start_divisor,  # optax's is relative to the first value
    )


def learning_rates(settings: OptimizerSettings, phases: Sequence[Phase]) -> dict[str, optax.Schedule]:
    """Returns the learning rate by label as a function of the step; 0 where a group does not learn."""

    def cycle(phase: Phase, peak: float | None) -> optax.Schedule:
        if peak is None:
            return optax.constant_schedule(0.0)
        return one_cycle(
            phase.num_steps,
            peak,
            warmup_fraction=settings.warmup_fraction,
            start_divisor=settings.start_divisor,
            end_divisor=settings.end_divisor,
        )

    schedules = {group: _in_turn(phases, [cycle(p, p.peaks[group]) for p in phases]) for group in GROUPS}
    for group in GROUPS[:-1]:
        schedules[group + _NORM] = _in_turn(phases, [cycle(p, p.norm_peaks[group]) for p in phases])
    return schedules


def momentum_schedule(settings: OptimizerSettings, phases: Sequence[Phase]) -> optax.Schedule:
    """Returns Adam's beta1 as a function of the step: low where the learning rate is high."""

    def cycle(phase: Phase) -> optax.Schedule:
        # Of 1 - beta1, which is highest where the momentum is lowest, and above 0 even where a momentum is 0.
        peak, start = 1 - settings.momentum_low, 1 - settings.momentum_high
        complement = one_cycle(
            phase.num_steps,
            peak,
            warmup_fraction=settings.warmup_fraction,
            start_divisor=peak / start,
            end_divisor=peak / start,
        )
        return lambda step: 1 - complement(step)

    return _in_turn(phases, [cycle(phase) for phase in phases])


def make_optimizer(settings: OptimizerSettings, phases: Sequence[Phase]) -> optax.GradientTransformation:
    """Builds one AdamW a label (Loshchilov & Hutter, 2019), each restarted at the phases' boundaries."""
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

    count: jax.Array  # type: ignore[assignment]  # tuples have a method of that name
    inner: optax.OptState


def restart_at(inner: optax.GradientTransformation, boundaries: Sequence[int]) -> optax.GradientTransformation:
    """Returns `inner`, its state initialized again before each step in `boundaries`: no moments of an earlier phase."""
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
