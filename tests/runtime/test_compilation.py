"""Where compiled programs are kept, and where they are not."""

import os
import subprocess
import sys
import types
from pathlib import Path

import jax
import pytest

import main
from audiotag_jax.runtime import compilation
from audiotag_jax.runtime.compilation import enable_compilation_cache
from audiotag_jax.settings.settings import parse_settings

ROOT = Path(__file__).parents[2]


@pytest.fixture
def told(monkeypatch):
    """What a JAX on a GPU would be told: the true one is not, since all tests that follow would go by it."""
    told = {}
    config = types.SimpleNamespace(jax_compilation_cache_dir=None, update=told.__setitem__)
    monkeypatch.setattr(compilation, "jax", types.SimpleNamespace(default_backend=lambda: "gpu", config=config))
    return told


def test_folder_is_made_and_named_in_full(told, tmp_path, monkeypatch):
    """In full, for a program may change its working directory later."""
    monkeypatch.chdir(tmp_path)
    enable_compilation_cache(Path("prepared/compiled"))
    assert (tmp_path / "prepared/compiled").is_dir()
    assert told == {"jax_compilation_cache_dir": str(tmp_path / "prepared/compiled")}


def test_not_on_cpu(told, tmp_path, monkeypatch):
    monkeypatch.setattr(compilation.jax, "default_backend", jax.default_backend)
    enable_compilation_cache(tmp_path / "compiled")
    assert told == {}
    assert not (tmp_path / "compiled").exists()


def test_a_cache_of_ones_own_is_left_alone(told, tmp_path):
    compilation.jax.config.jax_compilation_cache_dir = "/somewhere"
    enable_compilation_cache(tmp_path / "compiled")
    assert told == {}


@pytest.mark.parametrize("place", ["file", "file/compiled"])
def test_a_file_in_the_way_ends_nothing(told, tmp_path, place):
    """It is not used either: JAX would complain of it at every compilation."""
    (tmp_path / "file").write_text("in the way")
    enable_compilation_cache(tmp_path / place)
    assert told == {}
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_folder_that_cannot_be_written_is_not_used(told, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # root may write everywhere
    enable_compilation_cache(tmp_path)
    assert told == {}


def test_only_what_took_long_is_kept(tmp_path):
    """Of two programs in a process that takes itself to have a GPU; neither is ever read back."""
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
    ("mode", "wanted", "kept"),
    [("train", True, True), ("evaluate", True, True), ("study", True, True), ("train", False, False)]
    + [(mode, True, False) for mode in ("prepare", "inspect", "doctor")],
)
def test_modes_and_the_field_decide(monkeypatch, tmp_path, mode, wanted, kept):
    """Beside the prepared datasets, in the modes that compile steps, unless `config.train.compilation_cache` is off."""
    monkeypatch.delenv("JAX_COORDINATOR_ADDRESS", raising=False)
    folders = []
    monkeypatch.setattr(compilation, "enable_compilation_cache", folders.append)
    main.parse_flags(["main.py", "--config=configs/log_db.py:demo", f"--mode={mode}"])
    config = main._CONFIG.value
    config.dataset.prepared_dir, config.train.compilation_cache = str(tmp_path), wanted
    main._set_up_jax(parse_settings(config))
    assert folders == [tmp_path / "compiled"] * kept
