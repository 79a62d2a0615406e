"""Groups cover every parameter, schedules are what they say, and each group is PyTorch's AdamW under OneCycleLR."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util

from audiotag_jax.models.build import MODELS, build_model
from audiotag_jax.settings.settings import parse_settings
from audiotag_jax.training.optimizer import (
    geometric_spread,
    learning_rates,
    make_optimizer,
    make_phases,
    momentum_schedule,
    one_cycle,
    parameter_labels,
)
from configs import default

LABELS = ("early", "early_norm", "late", "late_norm", "head")
# Of torchvision and timm, less the classifier.
BODY_SIZES = {
    "resnet18": 11_689_512 - 513_000,
    "resnext50_32x4d": 25_028_904 - 2_049_000,
    "efficientnet_lite0": 4_652_008 - 1_281_000,
}
LATE_YAMNET = tuple(f"layer{number}/" for number in range(7, 15))  # its layers are more, and count from the stem
LATE = ("layer3/", "layer4/", "blocks/3/", "blocks/4/", "blocks/5/", "blocks/6/", "conv_head/", "bn2/")

SETTINGS = {
    "frozen_learning_rate": 3e-3,
    "learning_rate_low": 1e-3,
    "learning_rate_high": 3e-3,
    "warmup_fraction": 0.25,
    "start_divisor": 25.0,
    "end_divisor": 1e5,
    "momentum_high": 0.95,
    "momentum_low": 0.85,
    "beta2": 0.99,
    "weight_decay": 0.01,
}


def make_settings(**changes):
    config = default.get_config("demo")
    config.optimizer.update(SETTINGS | changes)
    return parse_settings(config).optimizer


def parameter_shapes(name):
    model = build_model(name, 5, width=4, dropout=0.3)
    images = jnp.zeros({"waveform": (1, 4096, 1, 1), "yamnet": (1, 96, 64, 1)}.get(name, (1, 64, 64, 3)))
    return jax.eval_shape(lambda key: model.init(key, images, train=False), jax.random.key(0))["params"]


@pytest.fixture(scope="module")
def params():
    """Parameters of the small network, none of them 0, so that decay shows."""
    rng = np.random.default_rng(0)
    shapes = parameter_shapes("small")
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(1, 0.3, leaf.shape), jnp.float32), shapes)


def gradients(params, step):
    """Gradients of a step; their scale varies, so that moments matter."""
    rng = np.random.default_rng(step)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 1 + step % 3, leaf.shape), jnp.float32), params)


@functools.cache
def compiled(tx):
    return jax.jit(tx.init), jax.jit(tx.update)


def run(tx, params, steps, state=None):
    """Parameters and optimizer state after the given steps."""
    init, update = compiled(tx)
    state = init(params) if state is None else state
    for step in steps:
        updates, state = update(gradients(params, step), state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def by_label(params, tree):
    """{label: {path: leaf}} of a tree shaped like `params`."""
    labels = traverse_util.flatten_dict(parameter_labels(params), sep="/")
    flat = traverse_util.flatten_dict(tree, sep="/")
    return {name: {path: flat[path] for path, label in labels.items() if label == name} for name in LABELS}


def assert_equal(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


# Groups.


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_belongs_to_one_group(name):
    shapes = parameter_shapes(name)
    labels = parameter_labels(shapes)
    assert jax.tree.structure(labels) == jax.tree.structure(shapes)
    sizes = dict.fromkeys(LABELS, 0)
    for path, leaf in traverse_util.flatten_dict(shapes).items():
        label = traverse_util.flatten_dict(labels)[path]
        late = "/".join(path[1:]).startswith(LATE_YAMNET if name == "yamnet" else LATE)
        norm = "_norm" if len(leaf.shape) == 1 else ""  # the body's convolutions have no bias
        assert label == ("head" if path[0] == "head" else ("late" if late else "early") + norm), path
        sizes[label] += leaf.size
    assert all(sizes.values())
    if name in BODY_SIZES:
        assert sum(sizes.values()) - sizes["head"] == BODY_SIZES[name]
    if name == "resnet18":  # layer3 and layer4 of torchvision's
        assert sizes["late"] + sizes["late_norm"] == 2_099_712 + 8_393_728
    settings = make_settings()
    jax.eval_shape(make_optimizer(settings, make_phases(settings, 1, 2, 2)).init, shapes)


def test_unknown_top_name_raises(params):
    with pytest.raises(ValueError, match="stem/kernel belongs to no group"):
        parameter_labels({**params, "stem": {"kernel": jnp.zeros(1)}})
    with pytest.raises(ValueError, match="body/layer5/kernel belongs to no stage"):
        parameter_labels({**params, "body": {**params["body"], "layer5": {"kernel": jnp.zeros(1)}}})


# Phases and schedules.


def test_rates_are_spread_geometrically():
    np.testing.assert_allclose(geometric_spread(1e-4, 1e-2, 3), (1e-4, 1e-3, 1e-2))
    settings = make_settings(learning_rate_low=2e-4, learning_rate_high=2e-2)
    (phase,) = make_phases(settings, 0, 2, 7)
    assert phase.num_steps == 14
    np.testing.assert_allclose([phase.peaks[group] for group in ("early", "late", "head")], (2e-4, 2e-3, 2e-2))


def test_frozen_phase_comes_first():
    settings = make_settings(frozen_learning_rate=0.5)
    frozen, everything = make_phases(settings, frozen_epochs=3, num_epochs=2, steps_per_epoch=10)
    assert (frozen.num_steps, everything.num_steps) == (30, 20)
    assert frozen.peaks == {"early": None, "late": None, "head": 0.5}
    assert frozen.norm_peaks == {"early": 0.5, "late": 0.5, "head": 0.5}
    assert everything.norm_peaks == everything.peaks
    assert [phase.num_steps for phase in make_phases(settings, 3, 0, 10)] == [30]


def test_one_cycle_at_its_marks():
    schedule = one_cycle(100, 5.0, warmup_fraction=0.3, start_divisor=5.0, end_divisor=10.0)
    marks = {0: 1.0, 15: 3.0, 30: 5.0, 65: 2.75, 100: 0.5, 1000: 0.5}  # quarters of a cosine are the means
    np.testing.assert_allclose([schedule(step) for step in marks], list(marks.values()), rtol=1e-6)
    rates = np.array(jax.vmap(schedule)(jnp.arange(100)))
    assert np.all(np.diff(rates[:31]) > 0)
    assert np.all(np.diff(rates[30:]) < 0)


@pytest.mark.parametrize("num_steps", [1, 2, 3])
@pytest.mark.parametrize("fraction", [0.01, 0.5, 0.99])
def test_shortest_cycles_stay_within_their_ends(num_steps, fraction):
    schedule = one_cycle(num_steps, 5.0, warmup_fraction=fraction, start_divisor=5.0, end_divisor=10.0)
    rates = np.array([schedule(step) for step in range(num_steps)])
    assert rates[0] == 1
    assert np.all((rates >= 0.5) & (rates <= 5))


def test_the_peak_is_at_the_rounded_fraction_of_the_steps():
    """Also where the fraction times the steps is a whole number that floats miss from below, such as 0.29 * 100."""
    for num_steps in (7, 40, 100, 1475):
        for fraction in (0.0, 0.1, 0.25, 0.29, 0.57, 0.58):
            schedule = one_cycle(num_steps, 3.0, warmup_fraction=fraction, start_divisor=25.0, end_divisor=1e5)
            rates = np.array(jax.vmap(schedule)(jnp.arange(num_steps)))
            assert rates.argmax() == max(1, round(fraction * num_steps))
            assert rates.max() == pytest.approx(3.0, rel=1e-6)


def torch_cycle(optimizer, settings, num_steps):
    """PyTorch's OneCycleLR with our settings, each parameter group's rate being its peak.

    PyTorch puts the peak at point `pct_start * total_steps - 1` and the end at point `total_steps - 1`. Ours peaks
    after `round(warmup_fraction * num_steps)` steps and reaches the end after `num_steps`, with the first rate that is
    not used any more: it is PyTorch's cycle of num_steps + 1 points. PyTorch's `final_div_factor` is relative to the
    first rate, our `end_divisor` to the peak.
    """
    torch = pytest.importorskip("torch")
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=num_steps + 1,
        pct_start=(round(settings.warmup_fraction * num_steps) + 1) / (num_steps + 1),
        div_factor=settings.start_divisor,
        final_div_factor=settings.end_divisor / settings.start_divisor,
        base_momentum=settings.momentum_low,
        max_momentum=settings.momentum_high,
    )


@pytest.mark.parametrize(("num_steps", "fraction"), [(40, 0.25), (37, 0.3), (300, 0.1)])
def test_one_cycle_matches_torch(num_steps, fraction):
    torch = pytest.importorskip("torch")
    settings = make_settings(warmup_fraction=fraction)
    phases = make_phases(settings, 0, 1, num_steps)
    peak, ours = phases[0].peaks["late"], learning_rates(settings, phases)["late"]
    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=peak)
    theirs = torch_cycle(optimizer, settings, num_steps)
    rates, momenta = [], []
    for _ in range(num_steps + 1):
        rates.append(optimizer.param_groups[0]["lr"])
        momenta.append(optimizer.param_groups[0]["betas"][0])
        optimizer.step()
        if len(rates) <= num_steps:
            theirs.step()
    steps = jnp.arange(num_steps + 1)
    np.testing.assert_allclose(jax.vmap(ours)(steps), rates, rtol=1e-4, atol=1e-7 * peak)
    np.testing.assert_allclose(jax.vmap(momentum_schedule(settings, phases))(steps), momenta, rtol=1e-6)


def test_momentum_mirrors_the_rate():
    settings = make_settings(end_divisor=25.0)  # start and end alike, as the momentum's
    phases = make_phases(settings, 0, 1, 50)
    steps = jnp.arange(50)
    rates = jax.vmap(learning_rates(settings, phases)["head"])(steps) / phases[0].peaks["head"]
    momenta = jax.vmap(momentum_schedule(settings, phases))(steps)
    np.testing.assert_allclose((rates - 1 / 25) / (1 - 1 / 25), (0.95 - momenta) / 0.1, atol=1e-5)


@pytest.mark.parametrize("momenta", [(0.9, 0.9), (0.9, 0.0), (0.0, 0.0)])
def test_momenta_may_be_equal_or_0(momenta):
    high, low = momenta
    settings = make_settings(momentum_high=high, momentum_low=low)
    schedule = momentum_schedule(settings, make_phases(settings, 0, 1, 40))
    np.testing.assert_allclose([schedule(step) for step in (0, 10, 40)], (high, low, high), atol=1e-6)


def test_rates_of_two_phases():
    settings = make_settings(frozen_learning_rate=1e-2)
    phases = make_phases(settings, 1, 2, 20)
    schedules = learning_rates(settings, phases)
    rates = {label: np.array(jax.vmap(schedule)(jnp.arange(60))) for label, schedule in schedules.items()}
    assert set(rates) == set(LABELS)
    cycle = one_cycle(20, 1e-2, warmup_fraction=0.25, start_divisor=25.0, end_divisor=1e5)
    frozen = np.array(jax.vmap(cycle)(jnp.arange(20)))
    for label in LABELS:
        resting = label in ("early", "late")
        np.testing.assert_allclose(rates[label][:20], 0 if resting else frozen, rtol=1e-6)
        peak = phases[1].peaks[label.removesuffix("_norm")]
        np.testing.assert_allclose(rates[label][[20, 30]], (peak / 25, peak), rtol=1e-5)


# The optimizer.


def torch_run(params, settings, steps, num_steps=None):
    """Parameters, flat, after PyTorch's AdamW, a parameter group for each label; with num_steps, under OneCycleLR."""
    torch = pytest.importorskip("torch")
    peaks = make_phases(settings, 0, 1, 1)[-1].peaks
    flat = {path: torch.tensor(np.array(leaf)) for path, leaf in traverse_util.flatten_dict(params, sep="/").items()}
    groups = [
        {"params": [flat[path] for path in leaves], "lr": peaks[label.removesuffix("_norm")]}
        for label, leaves in by_label(params, params).items()
    ]
    betas = (settings.momentum_high, settings.beta2)
    optimizer = torch.optim.AdamW(groups, betas=betas, eps=settings.epsilon, weight_decay=settings.weight_decay)
    cycle = torch_cycle(optimizer, settings, num_steps) if num_steps else None
    for step in steps:
        for path, grad in traverse_util.flatten_dict(gradients(params, step), sep="/").items():
            flat[path].grad = torch.tensor(np.array(grad))
        optimizer.step()
        if cycle:
            cycle.step()
    return {path: value.numpy() for path, value in flat.items()}


def test_groups_match_torch_adamw_at_constant_rates(params):
    constant = {"start_divisor": 1.0, "end_divisor": 1.0, "momentum_low": 0.9, "momentum_high": 0.9}
    settings = make_settings(weight_decay=0.1, **constant)
    steps = range(10)
    ours, _ = run(make_optimizer(settings, make_phases(settings, 0, 1, 10)), params, steps)
    theirs = torch_run(params, settings, steps)
    for path, value in traverse_util.flatten_dict(ours, sep="/").items():
        np.testing.assert_allclose(value, theirs[path], rtol=1e-6, atol=1e-6, err_msg=path)


def test_groups_match_torch_adamw_under_one_cycle(params):
    settings = make_settings()
    steps = range(12)
    ours, _ = run(make_optimizer(settings, make_phases(settings, 0, 1, 12)), params, steps)
    theirs = torch_run(params, settings, steps, num_steps=12)
    for path, value in traverse_util.flatten_dict(ours, sep="/").items():
        np.testing.assert_allclose(value, theirs[path], rtol=2e-6, atol=2e-6, err_msg=path)


def test_convolutions_do_not_learn_in_the_frozen_phase(params):
    settings = make_settings()
    tx = make_optimizer(settings, make_phases(settings, 1, 1, 3))
    frozen, state = run(tx, params, range(3))
    before, after = by_label(params, params), by_label(params, frozen)
    for label in ("early", "late"):
        assert_equal(after[label], before[label])  # neither gradient nor decay
    for label in ("early_norm", "late_norm", "head"):
        for path, value in after[label].items():
            assert np.mean(value != before[label][path]) > 0.99, path
    last = by_label(params, run(tx, frozen, [3], state)[0])
    for label in LABELS:
        for path, value in last[label].items():
            assert np.mean(value != after[label][path]) > 0.99, path


def test_second_phase_starts_as_a_fresh_optimizer(params):
    settings = make_settings()
    phases = make_phases(settings, 1, 2, 3)
    tx = make_optimizer(settings, phases)
    between, state = run(tx, params, range(3))
    continued, state = run(tx, between, range(3, 6), state)
    fresh, fresh_state = run(make_optimizer(settings, phases[1:]), between, range(3, 6))
    assert_equal(continued, fresh)
    adam, fresh_adam = (find_adam_states(each) for each in (state, fresh_state))
    assert len(adam) == len(LABELS)
    assert_equal(adam, fresh_adam)


def find_adam_states(state):
    """The moments of every label, in the labels' order."""
    is_adam = lambda node: isinstance(node, optax.ScaleByAdamState)  # noqa: E731
    return [node for node in jax.tree.leaves(state, is_leaf=is_adam) if is_adam(node)]


def test_hyperparameters_follow_the_step_alone(params):
    settings = make_settings()
    phases = make_phases(settings, 1, 1, 3)
    tx = make_optimizer(settings, phases)
    rates, momentum = learning_rates(settings, phases), momentum_schedule(settings, phases)
    at = {0: (params, compiled(tx)[0](params))}
    for step in range(6):
        at[step + 1] = run(tx, at[step][0], [step], at[step][1])
        for label, inner in at[step + 1][1].inner_states.items():
            used = inner.inner_state.hyperparams
            np.testing.assert_allclose(used["learning_rate"], rates[label](step), rtol=1e-6, err_msg=f"{label} {step}")
            np.testing.assert_allclose(used["b1"], momentum(step), rtol=1e-6)
    for first in (2, 3, 4):  # an interrupted run has the arrays of its last step, and nothing else
        state = jax.tree.map(lambda leaf: jnp.asarray(np.array(leaf)), at[first][1])
        assert_equal(run(tx, at[first][0], range(first, 6), state), at[6])
