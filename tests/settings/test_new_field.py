"""A new field needs one line in default.py and one in its dataclass; old runs are resumed without it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import random_runs

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys
from pathlib import Path
import numpy as np
import random_runs
from audiotag_jax.inference.tagger import load_tagger
from audiotag_jax.settings.record import read_record
from audiotag_jax.settings.settings import parse_settings
from audiotag_jax.training import train

sounds, old, new = map(Path, sys.argv[1:])
settings = parse_settings(random_runs.tiny_config(sounds))
assert settings.model.sharpness == 1.5 and read_record(old).settings.model.sharpness == 1.0
try:
    train.run(settings, old)
except Exception as error:
    assert "model.sharpness (there 1.0, here 1.5)" in str(error), error
else:
    raise AssertionError("a run with another value was continued")
config = random_runs.tiny_config(sounds)
config.model.sharpness = 1.0
train.run(parse_settings(config), old)  # the value that runs had without the field
config.model.sharpness, config.train.folds = 2.5, (0,)
train.run(parse_settings(config), new)
assert read_record(new).settings.model.sharpness == 2.5
waveforms = np.zeros((1, random_runs.LENGTH), np.float32)
for workdir in (old, new):
    assert load_tagger(workdir).probabilities(waveforms).shape == (1, 4)
"""


def insert_before(path: Path, line: str, added: str) -> None:
    text = path.read_text()
    assert text.count(line) == 1, f"{line!r} is not one line of {path.name}"
    path.write_text(text.replace(line, added + line))


def test_two_lines_add_a_field(folder, tmp_path):
    old = random_runs.make_run(random_runs.tiny_config(folder), tmp_path / "old")
    (old / "fold_1/predictions.npz").unlink()
    clone = tmp_path / "clone"
    for name in ("audiotag_jax", "configs"):
        shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "tests/random_runs.py", clone)
    insert_before(clone / "configs/default.py", "    return model\n", "    model.sharpness = 1.5\n")
    insert_before(
        clone / "audiotag_jax/settings/sections.py",
        '    normalization: Annotated[str, one_of(NORMALIZATIONS)] = "none"\n',
        "    sharpness: Annotated[float, POSITIVE] = 1.0\n",
    )
    command = [sys.executable, "-c", SCRIPT, str(folder), str(old), str(tmp_path / "new")]
    done = subprocess.run(command, cwd=clone, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fold 1: continuing at step 1 of 1" in done.stdout
    assert json.loads((tmp_path / "new/config.json").read_text())["config"]["model"]["sharpness"] == 2.5
