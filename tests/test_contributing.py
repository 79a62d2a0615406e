"""CONTRIBUTING.md names modules that exist, and its paths enter each folder once."""

import re
from itertools import groupby
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FILES = re.findall(r"`([\w/]+\.(?:py|md|txt|toml))`", TEXT)
LISTS = re.findall(r"(?:^\d+\. .*\n)+", TEXT, re.MULTILINE)


@pytest.mark.parametrize("name", sorted(set(FILES)))
def test_file_exists(name):
    assert (ROOT / name).is_file() or (ROOT / "audiotag_jax" / name).is_file()


@pytest.mark.parametrize("steps", LISTS, ids=["training", "inference", "config field"])
def test_each_folder_is_entered_once(steps):
    modules = re.findall(r"^\d+\. `([\w/]+\.py)`", steps, re.MULTILINE)
    assert len(modules) == steps.count("\n") >= 7
    folders = [folder for folder, _ in groupby(Path(module).parent for module in modules)]
    assert len(folders) == len(set(folders))


def test_its_commands_are_those_of_ci():
    checks = [line.removeprefix(".venv/bin/") for line in (ROOT / ".ci/run").read_text().splitlines()[-3:]]
    assert checks == ["ruff check .", "ruff format --check .", "python -m mypy"]
    assert all(check in TEXT for check in checks)
