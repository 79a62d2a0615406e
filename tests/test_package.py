"""The wheel, installed into an environment of its own, works from a folder that is no clone: command and API."""

import ast
import builtins
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import audiotag_jax
from audiotag_jax.settings.variants import list_variants

ROOT = Path(__file__).parents[1]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "audiotag_jax", "configs")
LEAST_SETUPTOOLS = 77  # the first to know `license = "Apache-2.0"`
SHRINK = [
    "--config.train.num_epochs=1",
    "--config.train.batch_size=32",
    "--config.train.folds=(0,)",
    "--config.model.width=4",
    "--config.spectral.num_frames=32",
    "--config.spectral.num_bins=32",
    "--config.dataset.duration_s=0.5",
]
API = re.findall(r"```python\n(.*?)```", (ROOT / "docs/api.md").read_text(encoding="utf-8"), re.DOTALL)
README = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, since setuptools leaves its build folder in the sources."""
    if importlib.util.find_spec("pip") is None or not has_setuptools():
        pytest.skip(f"pip and setuptools {LEAST_SETUPTOOLS} are not there: pip install -r requirements-test.txt")
    sources, wheels = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("wheels")
    for path in (*(ROOT / name for name in SOURCES), *ROOT.glob("requirements*.txt")):
        copy = shutil.copytree if path.is_dir() else shutil.copy2
        copy(path, sources / path.name)
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", wheels, ".", cwd=sources)
    [path] = wheels.iterdir()
    return path


def has_setuptools() -> bool:
    try:
        return int(importlib.metadata.version("setuptools").split(".")[0]) >= LEAST_SETUPTOOLS
    except importlib.metadata.PackageNotFoundError:
        return False


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Path:
    """A virtual environment with the wheel; behind it, the packages of this environment."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    run(sys.executable, "-m", "pip", "--python", folder / "bin/python", "install", "--no-deps", wheel, cwd=folder)
    [packages] = folder.glob("lib/python*/site-packages")
    behind = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (packages / "behind.pth").write_text("".join(f"{path}\n" for path in behind))
    return folder


@pytest.fixture(scope="module")
def trained(environment, tmp_path_factory) -> Path:
    """A folder in which the installed command has prepared and trained a run, shrunk to seconds."""
    folder = tmp_path_factory.mktemp("elsewhere")
    printed = run(environment / "bin/audiotag", "--config=log_db:demo", "--mode=prepare", *SHRINK, cwd=folder)
    assert "dataset: prepared/audiotag_spectrograms/" in printed
    printed = run(environment / "bin/audiotag", "--config=log_db:demo", *SHRINK, cwd=folder)
    assert "preparing" not in printed and "held out" in printed
    return folder


def run(*command, cwd: Path, status: int = 0) -> str:
    """What the command prints; it must end with `status`. On one device, without the clone on the module path."""
    hidden = ("PYTHON", "XLA_FLAGS", "PYTEST")
    variables = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    variables |= {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    command = [str(part) for part in command]
    done = subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_wheel_holds_all_of_the_package(wheel):
    folders = {"audiotag_jax": ROOT / "audiotag_jax", "audiotag_jax/configs": ROOT / "configs"}
    files = {
        f"{name}/{path.relative_to(folder).as_posix()}"
        for name, folder in folders.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"audiotag_jax/study/report.css", "audiotag_jax/configs/log_db.py", "audiotag_jax/py.typed"} <= files
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == files


def test_what_is_imported_is_what_was_installed(environment, tmp_path):
    script = (
        "import audiotag_jax, importlib.metadata, json, sys\n"
        "loaded = sorted({'jax', 'numpy', 'matplotlib', 'tensorflow_datasets'} & set(sys.modules))\n"
        "from audiotag_jax.settings.variants import configs_dir, get_config, list_variants\n"
        "names = [get_config(name, 'demo').name for name in list_variants()]\n"
        "version = audiotag_jax.__version__, importlib.metadata.version('audiotag_jax')\n"
        "print(json.dumps([audiotag_jax.__file__, str(configs_dir()), loaded, names, *version]))"
    )
    file, configs, loaded, names, *versions = json.loads(run(environment / "bin/python", "-c", script, cwd=tmp_path))
    assert Path(file).resolve().is_relative_to(environment.resolve())
    assert Path(configs) == Path(file).parent / "configs"
    assert loaded == []
    assert names == list(list_variants())
    assert versions == [audiotag_jax.__version__] * 2


def test_public_names():
    assert set(audiotag_jax.__all__) <= set(dir(audiotag_jax))
    documented = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    for name in audiotag_jax.__all__:
        assert getattr(audiotag_jax, name) is getattr(audiotag_jax, name)
        assert re.search(rf"`{name}\b", documented), f"docs/api.md lacks {name}"
    with pytest.raises(AttributeError, match="'audiotag_jax' has no attribute 'nothing'"):
        _ = audiotag_jax.nothing
    assert f"version: {audiotag_jax.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"## [{audiotag_jax.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_command_trains_in_the_folder_it_is_called_from(environment, trained):
    assert json.loads((trained / "runs/log_db-demo/config.json").read_text())["config"]["name"] == "log_db"
    assert (trained / "runs/log_db-demo/summary.json").exists()
    assert {"data", "prepared", "runs"} <= {path.name for path in trained.iterdir()}
    assert not [path for path in environment.rglob("*") if path.name in ("prepared", "runs")]


def test_help_lists_the_command_s_own_flags(environment, tmp_path):
    printed = run(environment / "bin/audiotag", "--help", cwd=tmp_path, status=0)
    assert printed.startswith("audiotag --config=VARIANT[:PRESET] ")
    assert re.search(r"\n  report +writes a page", printed)


def test_an_unknown_variant(environment, tmp_path):
    printed = run(environment / "bin/audiotag", "--config=nonsense:demo", cwd=tmp_path, status=2)
    assert re.fullmatch(
        r"error: Unknown variant 'nonsense'; choose from hires_q1, .*log_db, .*waveform, yamnet\.\n", printed
    )


def test_a_file_of_one_s_own_stands_on_the_installed_defaults(environment, tmp_path):
    text = (ROOT / "configs/log_db.py").read_text()
    (tmp_path / "mine.py").write_text(text.replace('config.name = "log_db"', 'config.name = "mine"'))
    arguments = ["--config.dataset.duration_s=0", "--mode=prepare"]
    printed = run(environment / "bin/audiotag", "--config=mine.py:demo", *arguments, cwd=tmp_path, status=2)
    assert printed.startswith("error: config.dataset.duration_s is 0.0; it must be above 0")
    printed = run(environment / "bin/audiotag", "--config=mine.py:nope", cwd=tmp_path, status=2)
    assert printed.startswith("error: Unknown preset 'nope'; choose from fsdkaggle2018, ")


@pytest.mark.parametrize("block", API, ids=lambda block: re.findall(r"import (\w+)", block)[-1])
def test_example_of_the_api(environment, trained, block):
    assert run(environment / "bin/python", "-c", block, cwd=trained).strip()


def test_there_are_examples_of_all_that_is_public():
    used = {name for block in API for name in re.findall(r"\w+", block)}
    assert set(audiotag_jax.__all__) - used == {"__version__", "high_resolution_spectrograms"}


def stands_alone(block: str) -> bool:
    """Whether a snippet defines all that it uses, and names no file."""
    nodes = list(ast.walk(ast.parse(block)))
    texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    names = [node for node in nodes if isinstance(node, ast.Name)]
    bound = {node.id for node in names if not isinstance(node.ctx, ast.Load)} | set(dir(builtins))
    bound |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    bound |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    bound |= {(node.asname or node.name).split(".")[0] for node in nodes if isinstance(node, ast.alias)}
    return {node.id for node in names} <= bound and not any(re.search(r"/|\.\w{2,}$", text) for text in texts)


def test_snippets_that_stand_alone_are_found():
    assert [stands_alone(block) for block in API] == [False, True, True, True, False, True]
    assert not stands_alone("print(undefined)") and not stands_alone("open('clip.wav')")


@pytest.mark.parametrize("block", [block for block in README if stands_alone(block)])
def test_snippet_of_the_readme(environment, tmp_path, block):
    run(environment / "bin/python", "-c", block, cwd=tmp_path)
