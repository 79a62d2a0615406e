"""The compilation cache: its directory, the backends and modes that use it."""

import os
import subprocess
import sys
import types
from pathlib import Path

import jax
import pytest

from audiotag_jax import cli
from audiotag_jax.runtime import compilation
from audiotag_jax.runtime.compilation import enable_compilation_cache
from audiotag_jax.settings.settings import parse_settings

ROOT = Path(__file__).parents[2]


@pytest.fixture
def jax_updates(monkeypatch):
    """Records updates of JAX's configuration, with a GPU backend, in place of the real one that other tests use."""
    jax_updates = {}
    config = types.SimpleNamespace(jax_compilation_cache_dir=None, update=jax_updates.__setitem__)
    monkeypatch.setattr(compilation, "jax", types.SimpleNamespace(default_backend=lambda: "gpu", config=config))
    return jax_updates


def test_directory_is_created_and_passed_as_an_absolute_path(jax_updates, tmp_path, monkeypatch):
    """Absolute, since a program may change its working directory later."""
    monkeypatch.chdir(tmp_path)
    enable_compilation_cache(Path("prepared/compiled"))
    assert (tmp_path / "prepared/compiled").is_dir()
    assert jax_updates == {"jax_compilation_cache_dir": str(tmp_path / "prepared/compiled")}


def test_cpu_uses_no_cache(jax_updates, tmp_path, monkeypatch):
    monkeypatch.setattr(compilation.jax, "default_backend", jax.default_backend)
    enable_compilation_cache(tmp_path / "compiled")
    assert jax_updates == {}
    assert not (tmp_path / "compiled").exists()


def test_a_configured_cache_is_left_unchanged(jax_updates, tmp_path):
    compilation.jax.config.jax_compilation_cache_dir = "/somewhere"
    enable_compilation_cache(tmp_path / "compiled")
    assert jax_updates == {}


@pytest.mark.parametrize("place", ["file", "file/compiled"])
def test_a_file_in_place_of_the_directory_is_no_error(jax_updates, tmp_path, place):
    """No cache is set, since JAX would warn at every compilation."""
    (tmp_path / "file").write_text("in the way")
    enable_compilation_cache(tmp_path / place)
    assert jax_updates == {}
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_read_only_directory_is_not_used(jax_updates, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # root may write everywhere
    enable_compilation_cache(tmp_path)
    assert jax_updates == {}


def test_only_slow_compilations_are_cached(tmp_path):
    """Compiles two programs in a process with a pretended GPU backend; no program is loaded from the cache."""
    script = (
        "import jax, pathlib, sys\n"
        "from audiotag_jax.runtime.compilation import enable_compilation_cache\n"
        "jax.default_backend = lambda: 'gpu'\n"
        "enable_compilation_cache(pathlib.Path(sys.argv[1]))\n"
        "def short(x): return x + 1\n"
        "def long(x): return x + 2\n"
        "jax.jit(short)(1)\n"
        "jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)  # no program takes a second here\n"
        "print(jax.jit(long)(1))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "timeout": 120}
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "compiled"], cwd=ROOT, env=environment, **pipes)
    assert done.stdout == "3\n"
    assert [path.name.split("-")[0] for path in (tmp_path / "compiled").iterdir()] == ["jit_long"]


@pytest.mark.parametrize(
    ("mode", "enabled", "cached"),
    [("train", True, True), ("evaluate", True, True), ("study", True, True), ("train", False, False)]
    + [(mode, True, False) for mode in ("prepare", "inspect", "doctor")],
)
def test_mode_and_config_decide_on_the_cache(monkeypatch, tmp_path, mode, enabled, cached):
    """It is beside the prepared datasets, in modes that compile steps, if `config.train.compilation_cache` is set."""
    monkeypatch.delenv("JAX_COORDINATOR_ADDRESS", raising=False)
    folders = []
    monkeypatch.setattr(compilation, "enable_compilation_cache", folders.append)
    cli.parse_flags(["main.py", "--config=configs/log_db.py:demo", f"--mode={mode}"])
    config = cli._CONFIG.value
    config.dataset.prepared_dir, config.train.compilation_cache = str(tmp_path), enabled
    cli._set_up_jax(parse_settings(config))
    assert folders == [tmp_path / "compiled"] * cached
