"""The picture of all variants is drawn from an ordinary recording; what a user gets wrong is told in one line."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).parents[1]
VARIANTS = sorted(path.stem for path in (ROOT / "configs").glob("*_*.py") if path.stem != "__init__")


def show_variants(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    pytest.importorskip("matplotlib")
    command = [sys.executable, str(ROOT / "benchmarks/show_variants.py"), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


def test_show_variants_draws_all_of_them(tmp_path):
    rate_hz = 8000
    seconds = np.arange(rate_hz) / rate_hz
    soundfile.write(tmp_path / "my.wav", 0.5 * np.sin(2 * np.pi * 440 * seconds), rate_hz)
    done = show_variants(tmp_path, "my.wav", "--out=variants.png", "--duration=0.1")
    assert done.returncode == 0, done.stderr
    *computing, drawing, result = done.stdout.splitlines()
    assert sorted(computing) == [f"Computing {name} …" for name in VARIANTS] and len(VARIANTS) >= 13
    assert (drawing, result) == ("Drawing …", f"{len(VARIANTS)} variants in variants.png")
    from matplotlib.image import imread

    picture = imread(tmp_path / "variants.png")[..., :3]
    assert picture.shape[0] > 500 and picture.std() > 0.1


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["missing.wav", "--out=a.png"], "missing.wav: no such file"),
        (["missing.wav", "--out=nowhere/a.png"], "--out: there is no folder nowhere."),
        (["missing.wav", "--out=a.doc"], "--out: a.doc must end in one of "),
    ],
)
def test_show_variants_tells_what_is_wrong_in_one_line(tmp_path, arguments, line):
    done = show_variants(tmp_path, *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(line) and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
