"""Mode inspect: what it says of a work directory, from the checkpoints alone, and that it only reads."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.files import locked
from audiotag_jax.settings.settings import parse_settings, recorded_fields
from audiotag_jax.training import checkpoints, inspect_checkpoint
from audiotag_jax.training.inspect_checkpoint import (
    describe_config,
    find_checkpoints,
    format_differences,
    format_metrics,
    format_state,
    nearest_metrics,
    read_metrics,
    report,
)
from audiotag_jax.training.steps import replicate
from audiotag_jax.training.workdir import record_config
from configs import default

ROOT = Path(__file__).parents[2]


def make_arrays(step: int, bad: float = 2.0) -> dict:
    """A state of few values, whose means and deviations are known; `bad` is one value of Adam's moments."""
    body = {
        "conv1": {"kernel": np.array([[1, 3], [1, 3]], np.float32)},
        "bn1": {"scale": np.full(4, 5, np.float32), "bias": np.zeros(4, np.float32)},
        "layer3": {"conv1": {"kernel": np.full((2, 3), -1, np.float32)}},
    }
    return {
        "step": np.int32(step),
        "params": {"body": body, "head": {"linear1": {"kernel": np.full((4, 2), step, np.float32)}}},
        "batch_stats": {"body": {"bn1": {"mean": np.full(4, 7, np.float32), "var": np.full(4, 9, np.float32)}}},
        "opt_state": [{"mu": np.array([1, bad], np.float32)}],
    }


def save(fold: Path, *steps: int, bad: float = 2.0) -> None:
    with checkpoints.open_checkpoints(fold) as manager:
        for step in steps:
            arrays = replicate(make_arrays(step, bad))
            checkpoints.save(manager, SimpleNamespace(step=step, arrays=lambda arrays=arrays: arrays), {"epoch": step})


def demo(**train):
    config = default.get_config("demo")
    config.train.update(train)
    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A work directory of two folds, written with eight devices; the second fold's moments are not finite."""
    workdir = tmp_path_factory.mktemp("finished")
    assert jax.device_count() == 8
    record_config(workdir, parse_settings(demo(num_epochs=2)), ["bark", "gong", "oboe"], "f1a9e2")
    save(workdir / "fold_0", 10, 20)
    save(workdir / "fold_1", 20, bad=np.nan)
    lines = [
        {"fold": 0, "step": 8, "split": "train", "loss": 1.25, "accuracy": 0.5},
        {"fold": 0, "step": 10, "split": "validation", "loss": 1.75},
        {"fold": 1, "step": 20, "split": "train", "loss": 111.0},
        {"fold": 0, "step": 20, "split": "train", "loss": 0.123456},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (workdir / "metrics.jsonl").write_text(text + '{"fold": 0, "step": 20, "spl')
    return workdir


@pytest.fixture
def copied(tmp_path, finished) -> Path:
    return shutil.copytree(finished, tmp_path / "copy")


def text_of(workdir: Path, config=None) -> str:
    return "\n".join(line for lines in report(parse_settings(config or demo()), workdir) for line in lines)


def run_main(workdir: Path, xla_flags: str = "") -> subprocess.CompletedProcess:
    command = [sys.executable, "main.py", "--config=configs/log_db.py:demo", f"--workdir={workdir}", "--mode=inspect"]
    environment = {**os.environ, "XLA_FLAGS": xla_flags}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


def snapshot(folder: Path) -> dict:
    """All files and folders, with their dates of change."""
    return {path: path.lstat().st_mtime_ns for path in [folder, *folder.rglob("*")]}


# The whole.


def test_report(finished):
    text = text_of(finished)
    date = r"\d{4}-\d\d-\d\d \d\d:\d\d, \d+\.\d MB"
    expected = f"""\
{re.escape(str(finished))}: log_db:demo, 3 classes, dataset f1a9e2
its configuration differs from that of --config:
  train\\.num_epochs  2, in --config 18

fold 0: 2 steps kept
  step 10: {date}, items position, state
    position {{"epoch": 10}}
    train at step 8: loss 1\\.25, accuracy 0\\.5
    validation at step 10: loss 1\\.75
  step 20: {date}, items position, state
    position {{"epoch": 20}}
    train at step 20: loss 0\\.1235
    validation at step 10: loss 1\\.75

fold 1: 1 step kept
  step 20: {date}, items position, state
    position {{"epoch": 20}}
    train at step 20: loss 111

fold 0, step 20: parameters
"""
    assert re.match(expected, text)
    assert text.endswith(
        "\n\nfold 0, step 20: 26 parameters, 8 in batch_stats, 2 in opt_state, 1 in step; all finite\n"
        "fold 1, step 20: 26 parameters, 8 in batch_stats, 2 in opt_state, 1 in step; <-- NaN or Inf: 1, in "
        "opt_state/0/mu"
    )
    assert text.count(": parameters\n") == text.count(": batch statistics\n") == 1


def test_tables_of_a_state():
    arrays = make_arrays(20)
    arrays["params"]["head"]["linear1"]["kernel"][0, 0] = np.inf
    assert format_state("fold 0, step 20", arrays) == [
        "",
        "fold 0, step 20: parameters",
        "name                      shape   dtype    group       mean  std  NaN/Inf",
        "body/bn1/bias             (4,)    float32  early_norm     0    0        0",
        "body/bn1/scale            (4,)    float32  early_norm     5    0        0",
        "body/conv1/kernel         (2, 2)  float32  early          2    1        0",
        "body/layer3/conv1/kernel  (2, 3)  float32  late          -1    0        0",
        "head/linear1/kernel       (4, 2)  float32  head          20    0        1  <--",
        "",
        "group       arrays  values  NaN/Inf",
        "early            1       4        0",
        "early_norm       2       8        0",
        "head             1       8        1",
        "late             1       6        0",
        "total            5      26        1",
        "",
        "fold 0, step 20: batch statistics",
        "name           shape  dtype    mean  std  NaN/Inf",
        "body/bn1/mean  (4,)   float32     7    0        0",
        "body/bn1/var   (4,)   float32     9    0        0",
    ]


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"step": np.int32(1)}, "^x contains no parameters, only step"),
        ({"params": {"tail": {"bias": np.zeros(2)}}}, "^x: .*tail/bias belongs to no group"),
    ],
)
def test_states_that_are_not_ours_raise(state, said):
    with pytest.raises(UserError, match=said):
        format_state("x", state)


def test_state_without_batch_statistics_has_one_table():
    lines = format_state("x", {"params": {"head": {"bias": np.zeros(2)}}})
    assert not any("batch statistics" in line for line in lines)


def test_program_needs_one_device_no_data_and_writes_nothing(copied):
    """Eight devices wrote it, one reads it."""
    before = snapshot(copied)
    done = run_main(copied)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout == text_of(copied) + "\n"
    assert max(map(len, done.stdout.splitlines()[1:])) <= 120
    assert snapshot(copied) == before


def test_program_runs_beside_a_training(copied):
    with locked(copied, "using"):
        inspect_checkpoint.run(parse_settings(demo()), copied)


def test_reader_that_has_seen_enough_ends_it_quietly(finished):
    """`| head -1`, in a process whose output nobody reads any more."""
    script = (
        "import os, sys; from pathlib import Path\n"
        "from audiotag_jax.settings.settings import parse_settings; from configs import default\n"
        "from audiotag_jax.training import inspect_checkpoint\n"
        "inspect_checkpoint.run(parse_settings(default.get_config('demo')), Path(sys.argv[1])); sys.stderr.write('end')"
    )
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-c", script, str(finished)]
    done = subprocess.run(command, cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True, timeout=120)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "end")


# Folders.


@pytest.mark.parametrize("inside", ["fold_0", "fold_0/checkpoints"])
def test_checkpoints_alone(tmp_path, finished, inside):
    folder = shutil.copytree(finished / inside, tmp_path / "moved")
    text = text_of(folder)
    assert "has no config.json: checkpoints alone" in text.splitlines()[0]
    assert re.search(r"\n.*/moved\S*: 2 steps kept\n", text)
    assert "train at step" not in text
    assert re.search(r"\n.*/moved\S*, step 20: parameters\nname ", text)


def test_folds_are_in_the_order_of_their_numbers(tmp_path):
    for fold in (10, 9):
        (tmp_path / f"fold_{fold}/checkpoints/5").mkdir(parents=True)
    (tmp_path / "fold_0").mkdir()  # begun: no checkpoint yet
    (tmp_path / "fold_x").mkdir()
    assert list(find_checkpoints(tmp_path)) == [0, 9, 10]
    assert find_checkpoints(tmp_path)[10] == tmp_path / "fold_10/checkpoints"


def test_fold_without_a_checkpoint_is_passed_over(copied):
    shutil.rmtree(copied / "fold_0/checkpoints")
    text = text_of(copied)
    assert "\nfold 0: 0 steps kept\n" in text
    assert "\nfold 1, step 20: parameters\n" in text


@pytest.mark.parametrize("empty", ["", "fold_0", "fold_0/checkpoints", "fold_0/checkpoints/5.orbax-checkpoint-tmp"])
def test_folder_without_checkpoints_raises(tmp_path, empty):
    (tmp_path / empty).mkdir(parents=True, exist_ok=True)
    with pytest.raises(UserError, match=r"contains no checkpoint, .*--mode=train") as caught:
        text_of(tmp_path)
    assert len(str(caught.value).splitlines()) == 1


def test_missing_folder_is_one_line_and_stays_missing(tmp_path):
    done = run_main(tmp_path / "nowhere")
    assert done.returncode == 2
    assert re.fullmatch(r"error: There is no folder .*/nowhere: train first with --mode=train, .*\n", done.stderr)
    assert done.stdout == ""
    assert not (tmp_path / "nowhere").exists()


def test_damaged_checkpoint_is_one_line(copied):
    for path in (copied / "fold_0/checkpoints/20/state").rglob("d/*"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    done = run_main(copied)
    assert done.returncode == 2
    assert re.fullmatch(r"error: Checkpoint .*/fold_0/checkpoints/20 is damaged, .+\n", done.stderr)
    assert "fold 0: 2 steps kept" in done.stdout


def test_old_checkpoint_that_is_half_removed_is_said_to_be(copied):
    shutil.rmtree(copied / "fold_0/checkpoints/10/state")
    text = text_of(copied)
    assert re.search(r"step 10: .*, items position \(no state: half removed\)\n", text)
    assert "fold 0, step 20: parameters" in text


def test_further_items_are_listed_by_name(copied):
    """A later version may keep more with a checkpoint: JSON is printed, arrays are named."""
    (copied / "fold_0/checkpoints/20/metrics").mkdir()
    (copied / "fold_0/checkpoints/20/metrics/metadata").write_text('{"top3_error": 0.25}')
    (copied / "fold_0/checkpoints/20/average").mkdir()
    text = text_of(copied)
    assert ", items average, metrics, position, state\n" in text
    assert '\n    metrics {"top3_error": 0.25}\n' in text


# Configuration.


def test_same_configuration(finished):
    given = recorded_fields(parse_settings(demo(num_epochs=2)))
    assert describe_config(finished, given) == [
        f"{finished}: log_db:demo, 3 classes, dataset f1a9e2",
        "its configuration is that of --config",
    ]
    assert describe_config(finished, None) == describe_config(finished, given)[:1]


def test_differences_name_every_field():
    saved = {"seed": 0, "train": {"folds": [0], "gone": 1}, "same": {"a": 1, "empty": {}}}
    given = {"seed": 1, "train": {"folds": []}, "same": {"a": 1, "empty": {}}, "new": "x"}
    assert format_differences(saved, given) == [
        "its configuration differs from that of --config:",
        "  new          (no such field), in --config x",
        "  seed         0, in --config 1",
        "  train.folds  [0], in --config []",
        "  train.gone   1, in --config (no such field)",
    ]


@pytest.mark.parametrize("text", ["{", "[]", '{"config": 3}'])
def test_damaged_configuration_does_not_hide_the_checkpoints(copied, text):
    (copied / "config.json").write_text(text)
    lines = text_of(copied).splitlines()
    assert re.search(r"config\.json (is not JSON|describes no run)", lines[0])
    assert "fold 0, step 20: parameters" in lines


# Metrics.


def records(*pairs: tuple[int, str]) -> list[dict]:
    return [{"fold": 0, "step": step, "split": split, "n": n} for n, (step, split) in enumerate(pairs)]


def test_nearest_metrics_are_at_or_before_the_step():
    found = records((10, "train"), (20, "train"), (30, "train"), (5, "validation"), (40, "test"))
    assert {split: record["n"] for split, record in nearest_metrics(found, 20).items()} == {"train": 1, "validation": 3}
    assert {split: record["n"] for split, record in nearest_metrics(found, 19).items()} == {"train": 0, "validation": 3}
    assert nearest_metrics(found, 4) == {}


def test_of_two_records_of_a_step_the_later_counts():
    found = records((20, "train"), (20, "train"), (10, "train"))
    assert nearest_metrics(found, 25)["train"]["n"] == 1


def test_metrics_are_rounded_and_wrapped():
    record = {"fold": 0, "step": 3, "split": "train", "loss": 1 / 3, "clips": 12345, "bad": float("nan")}
    assert format_metrics(record) == ["    train at step 3: loss 0.3333, clips 12345, bad nan"]
    many = {**record, **{f"learning_rate_{i}": 0.1 for i in range(20)}}
    lines = format_metrics(many)
    assert max(map(len, lines)) <= 120
    assert len(lines) == 5
    assert all(line.startswith("      ") for line in lines[1:])


def test_lines_that_are_no_records_are_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(path) == []
    whole = {"fold": 0, "step": 1, "split": "train", "loss": 2.0}
    path.write_text('\n3\n{"fold": 0}\n' + json.dumps(whole) + '\n{"fold": 0, "st')
    assert read_metrics(path) == [whole]
