"""Imports between folders point one way, and nothing loads what it does not need."""

import ast
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "audiotag_jax"
PURE = {"audio", "spectral", "models", "evaluation"}  # of the project they import runtime.errors alone
# A folder may import from those that it stands on; each folder, from below to above.
STANDS_ON = {
    "runtime": set(),
    **dict.fromkeys(sorted(PURE), {"runtime"}),
    "settings": {"runtime", "audio", "spectral", "models"},
    "datasets": {"runtime", "settings", *PURE},
    "training": {"runtime", "settings", *PURE, "datasets"},
    "inference": {"runtime", "settings", *PURE, "training"},
    "doctor": {"runtime", "settings", "audio", "datasets"},
    "study": {"runtime", "settings", *PURE, "datasets", "training", "inference"},
}
IN_FUNCTIONS = {  # imported where they are called alone
    "models/pretrained.py": {"torch"},
    "study/charts.py": {"matplotlib"},
    "study/figures.py": {"matplotlib"},
    "study/pictures.py": {"matplotlib"},
}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE)


def imported(path: Path) -> set[str]:
    return names_in(ast.walk(ast.parse(path.read_text())))


def names_in(nodes: Iterable[ast.AST]) -> set[str]:
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_every_folder_has_its_place():
    assert {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()} == set(STANDS_ON)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    folder = path.relative_to(PACKAGE).parts[0]
    for name in imported(path):
        project, other, *rest = (*name.split("."), "")
        if project != "audiotag_jax" or other == folder:
            continue
        assert other in STANDS_ON[folder], f"{folder} imports {name}"
        assert folder not in PURE or rest[0] == "errors", f"{folder} imports {name}"


@pytest.mark.parametrize(
    "path",
    [ROOT / "main.py", PACKAGE / "__init__.py", PACKAGE / "cli.py", *MODULES],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_no_module_imports_another_framework_or_a_config(path):
    banned = {"tensorflow", "torch", "matplotlib", "pandas", "configs"}
    allowed = IN_FUNCTIONS.get(path.relative_to(PACKAGE).as_posix(), set()) if path.is_relative_to(PACKAGE) else set()
    assert {name.split(".")[0] for name in imported(path)} & banned <= allowed
    assert not {name.split(".")[0] for name in names_in(ast.parse(path.read_text()).body)} & banned


@pytest.mark.parametrize(
    ("modules", "unwanted"),
    [
        ("training.train, audiotag_jax.study.run", "tensorflow torch matplotlib"),
        (
            "inference.predict, audiotag_jax.inference.embed, audiotag_jax.inference.export",
            "tensorflow_datasets grain optax torch matplotlib tensorboardX h5py pyarrow pandas",
        ),
        ("runtime.errors, audiotag_jax.runtime.memory", "jax numpy tensorflow_datasets"),
        ("cli", "jax tensorflow_datasets"),
    ],
)
def test_importing_loads_nothing_that_is_not_needed(modules, unwanted):
    script = f"import sys, audiotag_jax.{modules}; print(*(set('{unwanted}'.split()) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
