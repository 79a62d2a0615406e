"""Every command of the README runs, shrunk, on small data laid out as the README says."""

import csv
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from audiotag_jax.training import checkpoints
from audiotag_jax.training.steps import replicate

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
QUICKSTART = "python main.py --config=configs/log_db.py:demo"
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if line.startswith("python main.py")]
SAID = {
    "prepare": "dataset:",
    "inspect": ": parameters\n",
    "doctor": "doctor.md",
    "study": "report.html",
    "predict": "predictions.csv",
    "export": "tagger.stablehlo",
}
SHRINK = [
    "--config.train.num_epochs=1",
    "--config.train.batch_size=32",
    "--config.model.name=small",
    "--config.model.width=4",
    "--config.spectral.num_frames=32",
    "--config.spectral.num_bins=32",
    "--config.dataset.duration_s=0.5",
]


def write_sounds(folder: Path, names: list[str]) -> None:
    rng = np.random.default_rng(0)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * rng.standard_normal(2000), 8000)


def write_table(path: Path, columns: str, rows: list[tuple]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns.split(","), *rows])


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clone")
    for name in ("main.py", "configs", "audiotag_jax"):
        (folder / name).symlink_to(ROOT / name)
    names = [f"{n}.wav" for n in range(20)]
    write_sounds(folder / "data/fsdkaggle2018/audio_train", names)
    write_sounds(folder / "data/fsdkaggle2018/audio_test", ["a.wav", "b.wav"])
    train = [(name, ("Oboe", "Bark", "Gong", "Meow")[n % 4], n % 2) for n, name in enumerate(names)]
    write_table(folder / "data/fsdkaggle2018/train.csv", "fname,label,manually_verified", train)
    write_table(
        folder / "data/fsdkaggle2018/sample_submission.csv", "fname,label", [("b.wav", "Oboe"), ("a.wav", "Oboe")]
    )
    write_sounds(folder / "data/ESC-50/audio", names)
    esc = [(name, n % 5 + 1, n % 2, ("dog", "rain")[n % 2], True, n, "A") for n, name in enumerate(names)]
    write_table(folder / "data/ESC-50/meta/esc50.csv", "filename,fold,target,category,esc10,src_file,take", esc)
    write_sounds(folder / "sounds", [f"{label}/{name}" for label in ("dog", "rain") for name in names[:6]])
    own = [(f"{label}/{name}", label) for label in ("dog", "rain") for name in names[:6]]
    write_table(folder / "sounds/clips.csv", "path,label", own)
    return folder


def test_the_readme_has_its_commands():
    assert len(COMMANDS) >= 7
    lines = [line for line in README.splitlines() if line.startswith("python3 -m venv ")]
    assert [line.rpartition(" && ")[2] for line in lines] == [
        ".venv/bin/python main.py --config=configs/log_db.py:demo",
        ".venv/bin/python -m pytest -q",
    ]


@pytest.mark.parametrize("command", [QUICKSTART, *COMMANDS])
def test_command_runs(clone, command):
    shrink = [flag for flag in SHRINK if "waveform.py" not in command or "model.name" not in flag]
    if "--config=" not in command:
        shrink = []
    if "--mode=study" in command:
        shrink += ["--config.study.variants=('mel_db',)", "--config.study.rate_factors=(1.0, 2.0)"]
    # Few steps: compiling is most of the time, but where a step computes spectrograms. The Quickstart runs as it is.
    quick = "on_the_fly" not in command and command != QUICKSTART
    environment = {**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": str(int(quick))}
    line = [sys.executable, *shlex.split(command)[1:], *shrink]
    done = subprocess.run(line, cwd=clone, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    mode = re.search(r"--mode=(\w+)", command)
    assert SAID.get(mode and mode[1], "held out") in done.stdout


def test_plain_orbax_opens_a_checkpoint_on_fewer_devices_than_wrote_it(tmp_path):
    """The README's own lines, on one device; these tests have eight."""
    kernel = np.arange(6, dtype=np.float32).reshape(2, 3)
    state = {"params": {"body": {"conv1": {"kernel": kernel}}}, "step": np.int32(7)}
    saved = SimpleNamespace(step=7, arrays=lambda: replicate(state))
    assert len(saved.arrays()["step"].devices()) == 8
    with checkpoints.open_checkpoints(tmp_path / "runs/log_db-demo/fold_0") as manager:
        checkpoints.save(manager, saved, {})
    [block] = [block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "orbax" in block]
    lines = block.strip().splitlines()
    lines[-1] = f"print(jax.device_count(), *{lines[-1]}, *state['params']['body']['conv1']['kernel'].flat, sep=' ')"
    environment = {**os.environ, "XLA_FLAGS": ""}
    command = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1", "2", "3", "0.0", "1.0", "2.0", "3.0", "4.0", "5.0"]


def test_the_high_resolution_spectrogram_of_ones_own_file(tmp_path):
    """The README's own lines, of a tone in two channels."""
    seconds = np.arange(4000) / 16000
    tone = 0.5 * np.sin(2 * np.pi * 1000 * seconds)
    soundfile.write(tmp_path / "my.wav", np.stack([tone, -tone], axis=1), 16000)
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    [block] = [block for block in blocks if "high_resolution_spectrogram" in block]
    loudest = "print(*energies.shape, frequencies_hz[np.argmax(energies[5:-5].sum(axis=0))])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", block + loudest]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    *shape, hz = done.stdout.split()
    assert shape == [str(-(-4000 // 197)), "224"]
    assert abs(np.log2(float(hz) / 1000)) <= 0.51 / 26.2
