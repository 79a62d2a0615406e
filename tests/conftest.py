"""Eight virtual devices for the whole test session; real data where it is at hand."""

import os
from pathlib import Path

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import pytest  # noqa: E402

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real recordings and tables; the test is skipped where it is absent."""
    folder = Path(os.environ.get("AUDIOTAG_SHARED", ROOT.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set AUDIOTAG_SHARED")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The sounds and the table of `made_runs`."""
    import random_runs  # not before the devices are set

    folder = tmp_path_factory.mktemp("data") / "sounds"
    folder.mkdir()
    random_runs.make_sounds(folder)
    return folder
