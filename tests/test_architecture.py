"""Imports point one way, modules stay small, and training needs no other framework."""

import ast
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "audiotag_jax"

# A module may import those of a lower number only; parts of a package may import each other.
LAYERS = [
    {"errors", "memory", "compilation"},
    {"audio", "spectral", "augment", "losses", "metrics", "calibration", "models"},  # leaves: third parties only
    {"progress", "processes"},
    {"files", "array_table", "front_end"},
    {"datasets", "optimizer", "workdir", "tagged"},
    {"train_state", "input_pipeline", "submission", "recordings"},
    {"steps", "checkpoint"},
    {"interruption", "initial_weights"},
    {"audit"},
    {"doctor_report"},
    {"config_check", "doctor"},
    {"experiment"},
    {"evaluate", "prepare", "inspect_checkpoint"},
    {"train", "tagger"},
    {"predict", "export_onnx"},
    {"export"},
    {"study"},
]
LEAVES = LAYERS[1]
IN_FUNCTIONS = {"models/pretrained.py": {"torch"}}  # imported when called: PyTorch's own files, where it is installed
RANKS = {name: rank for rank, names in enumerate(LAYERS) for name in names}
MODULES = sorted(PACKAGE.rglob("*.py"))


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


def parts_of_the_project(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imported(path) if name.split(".")[0] == "audiotag_jax"}


def own_part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    part = own_part(path)
    if part == "__init__":
        assert not parts_of_the_project(path)
        return
    assert part in RANKS, f"give {part} its place in LAYERS"
    for other in parts_of_the_project(path) - {part}:
        assert RANKS[other] < RANKS[part], f"{part} imports {other}"
        assert part not in LEAVES, f"the leaf {part} imports {other}"


@pytest.mark.parametrize("path", [ROOT / "main.py", *MODULES], ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_imports_another_framework_or_a_config(path):
    banned = {"tensorflow", "torch", "matplotlib", "pandas", "configs"}
    allowed = IN_FUNCTIONS.get(path.relative_to(PACKAGE).as_posix(), set()) if path.is_relative_to(PACKAGE) else set()
    assert {name.split(".")[0] for name in imported(path)} & banned <= allowed
    assert not {name.split(".")[0] for name in names_in(ast.parse(path.read_text()).body)} & banned


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_and_functions_stay_small(path):
    text = path.read_text()
    assert text.count("\n") <= 250
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, node.name


def test_importing_training_loads_no_other_framework():
    script = "import sys, audiotag_jax.training.train; print(sorted({'tensorflow', 'torch', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
