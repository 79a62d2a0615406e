"""A synthetic data set for runs without data: seeded, with label noise, not separable by the mean spectrum alone."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from audiotag_jax.datasets.demo_sounds import SYNTHESIZERS, noise, render
from audiotag_jax.datasets.folder import open_folder
from audiotag_jax.datasets.records import ClipSource
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.files import locked

VERSION = 2  # increment it with any change to the sounds or the table: the set is then written to a new folder
TRAIN_PER_CLASS, TEST_PER_CLASS = 30, 6
UNVERIFIED_PER_CLASS = 9  # 30 % of the training clips, of which ...
WRONG_LABEL_FRACTION = 0.35  # ... about this part is wrong, as in FSDKaggle2018
SAMPLE_RATES_HZ = (16000, 22050, 44100)
DURATION_S = (1.2, 4.0)
PEAK_DB = (-36.0, -2.0)
SNR_DB = (10.0, 35.0)
_MARKER, _TABLE, _STAGING = "demo.json", "clips.csv", ".demo"


def open_demo(path: str | Path, num_folds: int = 3, seed: int = 0) -> ClipSource:
    """Returns the demo's clip source; writes the sounds under `path` first if they are missing."""
    return open_folder(write_demo(path, seed), _TABLE, num_folds, seed, name="demo")


def write_demo(path: str | Path, seed: int = 0) -> Path:
    """Writes the sounds and `clips.csv` to `path/demo_v{VERSION}_seed{seed}`, atomically, and returns that folder.

    A complete set is reused. Raises UserError if that folder is incomplete or something else, or on a disk error.
    """
    folder = Path(path) / f"demo_v{VERSION}_seed{seed}"
    if _is_complete(folder, seed):
        return folder
    if Path(path).is_dir() and any(not entry.name.startswith((".", "demo_v")) for entry in Path(path).iterdir()):
        raise UserError(f"{path} contains other files; the demo's sounds need a folder of their own.")
    try:
        with locked(Path(path) / _STAGING, "writing the demo sounds in", wait=True):
            if _is_complete(folder, seed):  # another process has written it before this one got the lock
                return folder
            temporary = Path(path) / _STAGING / folder.name
            shutil.rmtree(temporary, ignore_errors=True)
            _write_set(temporary, seed)
            temporary.rename(folder)
    except OSError as error:
        raise UserError(f"Cannot write the demo sounds to {folder}: {error.strerror or error}.") from error
    return folder


def _params(seed: int) -> dict[str, int]:
    return {"version": VERSION, "seed": seed, "clips": (TRAIN_PER_CLASS + TEST_PER_CLASS) * len(SYNTHESIZERS)}


def _is_complete(folder: Path, seed: int) -> bool:
    """Returns whether `folder` exists; raises UserError if it exists but is not the complete set of this seed."""
    if not folder.exists():
        return False
    try:
        params = json.loads((folder / _MARKER).read_text(encoding="utf-8"))
        num_sounds = len(list((folder / "audio").glob("*.wav")))
        if params == _params(seed) and num_sounds == params["clips"] and (folder / _TABLE).is_file():
            return True
    except (OSError, ValueError):
        pass
    raise UserError(f"{folder} exists but is not a complete demo set.\nDelete it, or choose another folder.")


def _write_set(folder: Path, seed: int) -> None:
    (folder / "audio").mkdir(parents=True)
    rows = _table(seed)
    for index, row in enumerate(rows):
        rng = np.random.default_rng((seed, index))
        rate_hz = int(rng.choice(SAMPLE_RATES_HZ))
        soundfile.write(folder / row["path"], _clip(row["true_label"], rng, rate_hz), rate_hz, "PCM_16")
    with (folder / _TABLE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    (folder / _MARKER).write_text(json.dumps(_params(seed)) + "\n", encoding="utf-8")


def _table(seed: int) -> list[dict[str, Any]]:
    """Returns one row per clip, shuffled; `true_label` is the synthesized class, `label` may differ if unverified."""
    rng = np.random.default_rng((seed, 0x7AB1E))
    classes = list(SYNTHESIZERS)
    train = [(name, "train", int(n >= UNVERIFIED_PER_CLASS)) for name in classes for n in range(TRAIN_PER_CLASS)]
    test = [(name, "test", 1) for name in classes for _ in range(TEST_PER_CLASS)]
    unverified = [n for n, (_, _, verified) in enumerate(train) if not verified]
    wrong = set(rng.choice(unverified, round(WRONG_LABEL_FRACTION * len(unverified)), replace=False).tolist())
    rows = []
    for n, (name, split, verified) in enumerate(train + test):
        others = [other for other in classes if other != name]
        label = others[rng.integers(len(others))] if n in wrong else name
        rows.append({"label": label, "split": split, "verified": verified, "true_label": name})
    shuffled = [rows[n] for n in rng.permutation(len(rows))]
    return [{"path": f"audio/{n:04d}.wav", **row} for n, row in enumerate(shuffled)]


def _clip(name: str, rng: np.random.Generator, rate_hz: int) -> np.ndarray:
    """Returns a sound in noise with random onset, level and signal-to-noise ratio: float `[N]`, in stereo `[N, 2]`."""
    num_samples = int(rate_hz * np.exp(rng.uniform(*np.log(DURATION_S))))
    onset = int(num_samples * rng.uniform(0.0, 0.25))
    length = int((num_samples - onset) * rng.uniform(0.75, 1.0))
    sound = render(name, rng, length, rate_hz)
    noise_rms = np.sqrt(np.mean(sound**2)) * 10 ** (-rng.uniform(*SNR_DB) / 20)
    slope = rng.uniform(0.0, 1.0)
    channels = []
    for gain in rng.uniform(0.7, 1.0, size=rng.integers(1, 3)):
        channel = noise_rms * noise(rng, num_samples, lambda f_hz: np.maximum(f_hz, 50.0) ** -slope, rate_hz)
        channel[onset : onset + length] += gain * sound
        channels.append(channel)
    clip = np.stack(channels, axis=-1).squeeze()
    return clip / np.abs(clip).max() * 10 ** (rng.uniform(*PEAK_DB) / 20)
