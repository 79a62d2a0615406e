"""The walks in docs/ are followed to the letter, in a copy of the project: what they paste fits, and their tests pass.

Above a block stands where it goes, in one of the forms of `PLACE`; a `bash` block is a command, the last one the test
in which the walk ends.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("add_*.md"))
PROJECT = ("main.py", "pyproject.toml", "audiotag_jax", "benchmarks", "configs", "tests")
BLOCK = re.compile(r"(?:^(?P<place>[^\n]+)\n\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
PLACE = re.compile(
    r"(?P<where>New file|At the end of|In) `(?P<path>[^`]+)`"
    r"(?:, (?P<side>after|before|in place of) the line `(?P<line>[^`]+)`)?:"
)

each_walk = pytest.mark.parametrize("path", DOCS, ids=lambda path: path.stem)


@pytest.fixture
def clone(tmp_path) -> Path:
    for name in PROJECT:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, tmp_path / name)
    return tmp_path


def follow(path: Path, clone: Path) -> list[str]:
    """Pastes what the walk at `path` says to paste; returns the commands that it says to run."""
    commands = []
    for block in BLOCK.finditer(path.read_text(encoding="utf-8")):
        if block["language"] == "bash":
            commands += block["text"].splitlines()
        elif block["language"] == "python":
            place = PLACE.fullmatch(block["place"] or "")
            assert place, f"where does this go? {block[0]}"
            paste(block["text"], clone / place["path"], place["where"], place["side"], place["line"])
    return commands


def paste(text: str, file: Path, where: str, side: str | None, line: str | None) -> None:
    assert (line is None) == (where != "In")
    assert file.exists() == (where != "New file"), file
    before = file.read_text(encoding="utf-8") if file.exists() else ""
    lines = before.splitlines(keepends=True)
    if line is None:
        file.write_text(before + text, encoding="utf-8")
        return
    found = [number for number, each in enumerate(lines) if each.strip() == line]
    assert len(found) == 1, f"{file} has {len(found)} lines {line}"
    first = found[0] + (side == "after")
    lines[first : first + (side == "in place of")] = [text]
    file.write_text("".join(lines), encoding="utf-8")


def run(command: str, clone: Path) -> str:
    """Output of a line such as `ruff check .`, `python -m pytest …` or `python tests/…`, which must succeed."""
    name, *arguments = shlex.split(command.removeprefix("python "))
    if name.endswith(".py"):
        arguments = [name, *arguments]
    else:
        module, *arguments = arguments if name == "-m" else [name, *arguments]
        assert module in ("pytest", "ruff"), command
        arguments = ["-m", module, *arguments, *(["-n", "0"] if module == "pytest" else [])]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "XLA_"))}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=clone,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_there_are_walks():
    assert [path.stem for path in DOCS] == ["add_a_data_source", "add_a_model", "add_a_variant"]


@each_walk
def test_ends_in_a_test_that_passes(path, clone):
    commands = follow(path, clone)
    assert commands[-1].startswith("python -m pytest ")
    *_, printed = [run(command, clone) for command in commands]
    assert re.search(r"\b\d+ passed", printed) and "skipped" not in printed


def test_all_walks_together_keep_the_project_whole(clone):
    """As a contributor's own tests and ruff see it; what takes long to compile is left out."""
    commands = [command for path in DOCS for command in follow(path, clone)]
    assert commands.count("ruff format .") == len(DOCS)
    run("ruff format .", clone)
    run("ruff check .", clone)
    quick = "-k 'not trains_a_step and not network_and_optimizer'"
    files = "tests/test_architecture.py tests/test_configs.py tests/models/test_build.py tests/study/test_plan.py"
    run(f"python -m pytest {quick} {files}", clone)
