"""Checkpoints: bit-equal after a round trip, whole or not there, and readable by an outsider."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiotag_jax.models.build import build_model
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.paths import check_checkpoint_path
from audiotag_jax.settings.settings import parse_settings
from audiotag_jax.training import checkpoints
from audiotag_jax.training.optimizer import make_optimizer, make_phases
from audiotag_jax.training.state import create_train_state
from audiotag_jax.training.steps import replicate
from configs import default

ROOT = Path(__file__).parents[2]


def make_state(step, seed, name="small", width=4, frozen_epochs=1):
    """A state on all devices whose arrays are random, optimizer state included; some values are hard to keep."""
    config = default.get_config("demo")
    config.train.frozen_epochs = frozen_epochs
    settings = parse_settings(config)
    phases = make_phases(settings.optimizer, frozen_epochs, settings.training.num_epochs, 3)
    tx = make_optimizer(settings.optimizer, phases)
    model = build_model(name, 5, width=width, dropout=0.3)
    shapes = jax.eval_shape(lambda key: create_train_state(model, tx, (32, 32, 1), key), jax.random.key(0))
    rng = np.random.default_rng(seed)

    def fill(leaf):
        if jnp.issubdtype(leaf.dtype, jnp.integer):
            return np.asarray(rng.integers(0, 2**31 - 1, leaf.shape), leaf.dtype)
        values = np.asarray(rng.normal(size=leaf.shape), leaf.dtype)
        if values.size > 8:
            values.reshape(-1)[:5] = np.nan, np.inf, -0.0, 1e-42, np.finfo(np.float32).max
        return values

    return replicate(jax.tree.map(fill, shapes).replace(step=np.asarray(step, np.int32)))


def host(state):
    """All that a state holds, in the host's memory, as bits."""
    parts = (state.step, state.params, state.opt_state, state.batch_stats)
    return jax.tree.map(lambda leaf: np.array(leaf).view(np.int32), parts)


def assert_same(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def save(folder, *states):
    with checkpoints.open_checkpoints(folder) as manager:
        for state in states:
            checkpoints.save(manager, state, {"epoch": int(state.step), "batch": 0})


def restore(folder, template):
    with checkpoints.open_checkpoints(folder) as manager:
        return checkpoints.restore(manager, template)


@pytest.fixture(scope="module")
def states():
    return [make_state(step, seed=step) for step in (10, 20, 30)]


@pytest.fixture(scope="module")
def saved(tmp_path_factory, states):
    """A folder with checkpoints of all three states."""
    folder = tmp_path_factory.mktemp("saved")
    save(folder, *states)
    return folder


@pytest.fixture
def copied(tmp_path, saved):
    """A copy of that folder, to be damaged, and the folder of its checkpoints."""
    shutil.copytree(saved, tmp_path / "copy")
    return tmp_path / "copy", tmp_path / "copy" / "checkpoints"


def steps_in(root):
    return sorted(path.name for path in root.iterdir())


def test_round_trip_is_bit_equal(saved, states):
    template = make_state(0, seed=99)
    restored, position = restore(saved, template)
    assert position == {"epoch": 30, "batch": 0}
    assert_same(host(restored), host(states[-1]))
    assert len(jax.tree.leaves(restored.opt_state)) > 100
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(restored.arrays()))  # to be placed anywhere


def test_the_latest_checkpoint_is_read_back(tmp_path, copied, states):
    folder, directory = copied
    checkpoints.check_saved(directory, states[-1])
    with pytest.raises(UserError, match=r"checkpoints/20 cannot be read back"):  # it is not the latest
        checkpoints.check_saved(directory, states[1])
    (directory / "30/state/manifest.ocdbt").unlink()
    with pytest.raises(UserError, match=r"30 cannot be read back, .*: 0 of \d+ arrays are there"):
        checkpoints.check_saved(directory, states[-1])


@pytest.mark.parametrize("name", ["a[1]", "a\\b"])
def test_paths_that_orbax_misreads_are_refused(tmp_path, name):
    """It writes there without an error; so does training, unless the path is checked before the first step."""
    state = SimpleNamespace(step=3, arrays=lambda: {"w": np.ones(2, np.float32)})
    save(tmp_path / name, state)
    with pytest.raises(UserError, match="cannot be read back"):
        checkpoints.check_saved(tmp_path / name / "checkpoints", state)
    with pytest.raises(UserError, match="checkpoints cannot be read back from a path with the character"):
        check_checkpoint_path(str(tmp_path / name))


@pytest.mark.parametrize("name", ["a*b", "a?b", "a]b", "a b", "{fold}", "a%20b", "名前"])
def test_other_paths_work(tmp_path, name):
    state = SimpleNamespace(step=3, arrays=lambda: {"w": np.ones(2, np.float32)})
    check_checkpoint_path(str(tmp_path / name))
    save(tmp_path / name, state)
    checkpoints.check_saved(tmp_path / name / "checkpoints", state)
    np.testing.assert_array_equal(checkpoints.read_arrays(tmp_path / name / "checkpoints")[1]["w"], np.ones(2))


def test_checkpoint_does_not_follow_a_state_that_is_used_up(tmp_path):
    state = make_state(1, seed=5)
    expected = host(state)
    with checkpoints.open_checkpoints(tmp_path) as manager:
        checkpoints.save(manager, state, {})
        advance = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0)
        advanced = advance(state)
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
        restored, _ = checkpoints.restore(manager, make_state(0, seed=6))
        assert_same(host(restored), expected)
        checkpoints.save(manager, advanced, {})  # what a donating step returned can be saved
        assert_same(host(checkpoints.restore(manager, make_state(0, seed=6))[0]), host(advanced))
        advance(restored)  # and what was restored can be donated


def test_nothing_saved_gives_the_template(tmp_path):
    template = make_state(0, seed=1)
    state, position = restore(tmp_path, template)
    assert state is template
    assert position == {}


def test_two_checkpoints_are_kept(saved):
    assert steps_in(saved / "checkpoints") == ["20", "30"]


def test_saving_a_step_again_changes_nothing(copied, states):
    folder, _ = copied
    save(folder, make_state(30, seed=77))
    assert_same(host(restore(folder, make_state(0, seed=1))[0]), host(states[-1]))


def test_checkpoint_moves_to_another_number_of_devices(saved, states):
    one = jax.device_put(jax.device_get(make_state(0, seed=1)), jax.devices()[0])
    restored, _ = restore(saved, one)
    assert_same(host(restored), host(states[-1]))


# Interrupted writes and deletions.


def cut_in_half(folder):
    """Leaves what a process killed while writing leaves: some files whole, some short, some missing."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for index, path in enumerate(files):
        if index % 3 == 0:
            path.unlink()
        elif index % 3 == 1:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("whole", [False, True])
def test_half_written_checkpoint_is_not_taken_for_whole(copied, states, whole):
    """Orbax writes under STEP.orbax-checkpoint-tmp and renames at the end: without the rename nothing counts."""
    folder, root = copied
    unfinished = root / "40.orbax-checkpoint-tmp"
    shutil.copytree(root / "30", unfinished)
    if not whole:
        cut_in_half(unfinished)
    state, position = restore(folder, make_state(0, seed=1))
    assert position["epoch"] == 30
    assert_same(host(state), host(states[-1]))
    assert steps_in(root) == ["20", "30"]  # and it is gone
    save(folder, make_state(40, seed=4))
    assert steps_in(root) == ["30", "40"]


def test_half_deleted_old_checkpoint_is_harmless(copied, states):
    folder, root = copied
    cut_in_half(root / "20")
    state, _ = restore(folder, make_state(0, seed=1))
    assert_same(host(state), host(states[-1]))
    save(folder, make_state(40, seed=4), make_state(50, seed=5))
    assert steps_in(root) == ["40", "50"]


def test_damaged_checkpoint_raises(copied):
    folder, root = copied
    shutil.rmtree(root / "30" / "state")
    with pytest.raises(UserError, match=r"checkpoints/30 is damaged or contains another network") as caught:
        restore(folder, make_state(0, seed=1))
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    "other", [{"width": 8}, {"name": "resnet18"}, {"frozen_epochs": 0}], ids=["width", "name", "phases"]
)
def test_other_models_raise(saved, other):
    with pytest.raises(UserError, match=r"checkpoints/30 is damaged or contains another network") as caught:
        restore(saved, make_state(0, seed=1, **other))
    assert len(str(caught.value).splitlines()) == 2


# An outsider.

READER = """
import sys, numpy as np, jax, orbax.checkpoint as ocp
folder = sys.argv[1] + "/checkpoints/30/state"
checkpointer = ocp.PyTreeCheckpointer()
leaves = checkpointer.metadata(folder).item_metadata.tree
as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), leaves)
state = checkpointer.restore(folder, restore_args=as_numpy)
np.save(sys.argv[2], state["params"]["head"]["linear1"]["kernel"])
print(jax.device_count(), int(state["step"]), *sorted(state))
"""


def test_outsider_reads_it_with_plain_orbax(tmp_path, saved, states):
    """On a machine with one device, of a checkpoint that eight wrote."""
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", READER, str(saved), str(tmp_path / "kernel.npy")]
    result = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["1", "30", "batch_stats", "opt_state", "params", "step"]
    kernel = np.load(tmp_path / "kernel.npy")
    np.testing.assert_array_equal(kernel, np.asarray(states[-1].params["head"]["linear1"]["kernel"]))


# Without a template.


@pytest.fixture
def outside(saved, tmp_path):
    """Runs a script that has imported checkpoint and been given a folder, in a process with one device."""

    def run(script: str, *arguments) -> subprocess.CompletedProcess:
        head = "import sys, jax, numpy as np, pathlib; from audiotag_jax.training import checkpoints\n"
        command = [sys.executable, "-c", head + script, *map(str, arguments)]
        environment = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
        return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120)

    return run


def test_arrays_are_read_without_template_on_one_device(outside, tmp_path, saved, states):
    """Of a checkpoint that eight devices wrote: every array, bit for bit."""
    script = (
        "step, state, position = checkpoints.read_arrays(pathlib.Path(sys.argv[1]))\n"
        "leaves = jax.tree.leaves(state)\n"
        "assert {type(leaf) for leaf in leaves} == {np.ndarray}\n"
        "np.savez(sys.argv[2], *leaves)\n"
        "print(jax.device_count(), step, position, sorted(state))"
    )
    done = outside(script, saved / "checkpoints", tmp_path / "leaves.npz")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "1 30 {'epoch': 30, 'batch': 0} ['batch_stats', 'opt_state', 'params', 'step']\n"
    with np.load(tmp_path / "leaves.npz") as file:
        leaves = [file[f"arr_{n}"] for n in range(len(file.files))]
    _, state, _ = checkpoints.read_arrays(saved / "checkpoints")
    read = jax.tree.unflatten(jax.tree.structure(state), leaves)
    for name in ("params", "batch_stats", "step"):
        assert_same(bits(read[name]), bits(getattr(states[-1], name)))
    everything = [jax.tree.leaves(bits(tree)) for tree in (read, states[-1].arrays())]
    assert sorted(leaf.tobytes() for leaf in everything[0]) == sorted(leaf.tobytes() for leaf in everything[1])


def bits(tree):
    return jax.tree.map(lambda leaf: np.array(leaf).view(np.int32), tree)


def test_arrays_that_were_spread_over_devices_are_read_whole(outside, tmp_path):
    """Each of eight devices holds an eighth; half precision and an empty part of the tree stay as they are."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("device",))
    values = jax.device_put(np.arange(16.0).reshape(8, 2), jax.NamedSharding(mesh, jax.P("device")))
    arrays = {"params": {"x": values, "half": jnp.full(3, 1.5, jnp.bfloat16), "none": {}}}
    with checkpoints.open_checkpoints(tmp_path) as manager:
        checkpoints.save(manager, SimpleNamespace(step=4, arrays=lambda: arrays), {"batch": 2})
    script = (
        "step, state, position = checkpoints.read_arrays(pathlib.Path(sys.argv[1]))\n"
        "print(step, position, state['params']['x'].ravel().astype(int), state['params']['half'].dtype)"
    )
    done = outside(script, tmp_path / "checkpoints")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "4 {'batch': 2} [ 0  1  2  3  4  5  6  7  8  9 10 11 12 13 14 15] bfloat16\n"


def test_arrays_of_an_earlier_step(saved, states):
    step, state, position = checkpoints.read_arrays(saved / "checkpoints", 20)
    assert (step, int(state["step"]), position["epoch"]) == (20, 20, 20)
    assert_same(bits(state["params"]), bits(states[1].params))


def test_steps_and_items_kept(copied):
    _, root = copied
    (root / "40.orbax-checkpoint-tmp").mkdir()
    (root / "note.txt").write_text("")
    (root / "30/metrics").mkdir()
    assert checkpoints.kept_steps(root) == [20, 30]
    assert checkpoints.kept_steps(root / "nowhere") == []
    assert checkpoints.read_items(root, 30) == {
        "metrics": None,
        "position": {"epoch": 30, "batch": 0},
        "state": None,
    }


def test_missing_steps_raise(tmp_path, saved):
    with pytest.raises(UserError, match=r"no checkpoint of step 25; choose from 20, 30"):
        checkpoints.read_arrays(saved / "checkpoints", 25)
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=r"contains no checkpoint\."):
            checkpoints.read_arrays(folder)


def test_reading_writes_nothing(copied):
    _, root = copied
    before = {path: path.stat().st_mtime_ns for path in [root, *root.rglob("*")]}
    checkpoints.read_arrays(root)
    assert {path: path.stat().st_mtime_ns for path in [root, *root.rglob("*")]} == before


@pytest.mark.parametrize("name", ["state", "state/_METADATA", "state/d", "state/manifest.ocdbt"])
def test_arrays_of_a_checkpoint_that_lacks_a_part_raise(copied, name):
    _, root = copied
    path = root / "30" / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(UserError, match=r"checkpoints/30 is damaged, or was removed just now: .") as caught:
        checkpoints.read_arrays(root)
    assert len(str(caught.value).splitlines()) == 1


def test_truncated_position_raises(copied):
    _, root = copied
    (root / "30/position/metadata").write_text('{"epoch": 3')
    with pytest.raises(UserError, match=r"checkpoints/30 is damaged"):
        checkpoints.read_arrays(root)


def test_truncated_arrays_are_one_error_and_no_noise(outside, copied):
    """Reads that run at once must not complain of each other on standard error."""
    _, root = copied
    largest = max((root / "30").rglob("d/*"), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:1000])
    script = (
        "from audiotag_jax.runtime.errors import UserError\n"
        "try: checkpoints.read_arrays(pathlib.Path(sys.argv[1]))\n"
        "except UserError as error: print(error)"
    )
    done = outside(script, root)
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1
    assert "checkpoints/30 is damaged" in done.stdout
