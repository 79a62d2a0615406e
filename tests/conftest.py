"""Eight virtual devices for the whole test session, programs that are quick to compile, and data that tests share."""

import os
from pathlib import Path

from xla_flags import with_devices

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {with_devices(8)}"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Nearly all of a test is compiling, and a program that runs once is not worth its optimization. Tests of numbers and of
# speed are marked `optimized`; they compile as users do, but for the code generator (see xla_flags.py). Processes that
# tests start inherit this.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import pytest  # noqa: E402

ROOT = Path(__file__).parents[1]
LONGEST = ("test_train.py", "test_readme.py", "test_processes.py", "test_run.py", "test_configs.py")


def pytest_collection_modifyitems(items):
    """Starts with the files that take longest, so that the processes end together."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="module", autouse=True)
def compile_effort(request):
    """Compiles with all optimizations in a module with `pytestmark = pytest.mark.optimized`."""
    if request.node.get_closest_marker("optimized") is None:
        yield
        return
    import jax

    before = os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1"  # jax.config has no attribute for it
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()
    yield
    jax.config.update("jax_disable_most_optimizations", before)
    jax.clear_caches()


@pytest.fixture(autouse=True)
def restored_flags():
    """The command line that a test parses in this process is not the next test's."""
    from fresh_flags import fresh_flags

    with fresh_flags():
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real recordings and tables; the test is skipped where it is absent."""
    folder = Path(os.environ.get("AUDIOTAG_SHARED", ROOT.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set AUDIOTAG_SHARED")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The sounds and the table of `random_runs`."""
    import random_runs  # not before the devices are set

    folder = tmp_path_factory.mktemp("data") / "sounds"
    folder.mkdir()
    random_runs.make_sounds(folder)
    return folder
