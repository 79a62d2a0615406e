"""Two processes of four devices train the same run as one device; connecting, broadcasting, SIGTERM."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pytest
from xla_flags import with_devices

from audiotag_jax.runtime import processes
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.processes import (
    all_processes_equal,
    any_process,
    broadcast_from_main,
    check_equal_devices,
    connect,
)

ROOT = Path(__file__).parents[2]
BUDGET = {
    "dataset.sample_rate_hz": 4000,
    "dataset.duration_s": 0.5,
    "spectral.num_frames": 32,
    "spectral.num_bins": 32,
    "spectral.window_samples": 256,
    "spectral.fft_samples": 256,
    "model.width": 4,
    "train.num_epochs": 2,
    "train.batch_size": 32,
    "train.log_every_steps": 1,
    "train.folds": "(0,)",
    "train.compilation_cache": False,
    "augment.mixup_alpha": 0.3,
    "augment.time_masks": 1,
}


def start(tmp_path: Path, name: str, num_devices: int, *arguments: str) -> subprocess.Popen:
    """Starts a small demo run in a process with `num_devices` virtual devices."""
    command = [sys.executable, "main.py", "--config=configs/log_db.py:demo", f"--workdir={tmp_path / name}"]
    command += [f"--config.dataset.{field}={tmp_path / field}" for field in ("path", "prepared_dir")]
    command += [f"--config.{field}={value}" for field, value in BUDGET.items()]
    environment = os.environ | {"XLA_FLAGS": with_devices(num_devices)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command + list(arguments), cwd=ROOT, env=environment, **pipes)


def end(*processes: subprocess.Popen) -> list[str]:
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), "\n".join(outputs)
    return outputs


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def losses(workdir: Path) -> list[float]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["split"] == "train"]


def test_two_processes_of_four_devices_equal_one_device(tmp_path):
    """Losses of all steps agree within 1e-4; checkpoints, metrics and summary are written once."""
    end(start(tmp_path, "one", 1))
    flags = (f"--coordinator=127.0.0.1:{free_port()}", "--num_processes=2")
    flags += (
        "--config.dataset.input=stream",
        "--config.dataset.num_workers=1",
    )  # one reader process per training process
    two = [start(tmp_path, "two", 4, *flags, f"--process_id={i}") for i in (0, 1)]
    outputs = end(*two)
    one, two = (losses(tmp_path / name) for name in ("one", "two"))
    assert len(one) == len(two) == 14
    np.testing.assert_allclose(two, one, rtol=1e-4)
    logits = [np.load(tmp_path / name / "fold_0/predictions.npz")["logits"] for name in ("one", "two")]
    np.testing.assert_allclose(logits[1], logits[0], atol=2e-3, rtol=2e-3)
    summaries = [json.loads((tmp_path / name / "summary.json").read_text()) for name in ("one", "two")]
    assert summaries[0]["validation"]["all"]["num_clips"] == summaries[1]["validation"]["all"]["num_clips"]
    assert "written to" in outputs[0] and "fold 0" in outputs[0]
    assert "fold 0" not in outputs[1]
    # One process restores the checkpoint that two have written.
    end(start(tmp_path, "two", 1, "--mode=evaluate"))
    again = np.load(tmp_path / "two/fold_0/predictions.npz")["logits"]
    np.testing.assert_allclose(again, logits[1], atol=1e-4, rtol=1e-4)


def test_sigterm_to_one_process_saves_a_checkpoint_and_stops_all(tmp_path):
    """SIGTERM to the second of two: both exit with its status, and one process resumes from their checkpoint."""
    flags = (f"--coordinator=127.0.0.1:{free_port()}", "--num_processes=2", "--config.train.num_epochs=400")
    flags += ("--config.dataset.input=device", "--config.train.checkpoint_every_epochs=400")
    two = [start(tmp_path, "two", 2, *flags, f"--process_id={i}") for i in (0, 1)]
    metrics, deadline = tmp_path / "two/metrics.jsonl", time.monotonic() + 200
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.1)
    two[1].send_signal(signal.SIGTERM)
    outputs = [process.communicate(timeout=200)[0] for process in two]
    assert [process.returncode for process in two] == [143, 143], outputs
    [step] = [int(path.name) for path in (tmp_path / "two/fold_0/checkpoints").iterdir()]
    assert f"fold 0 is saved at step {step}. The same command continues." in outputs[0]
    assert 0 < step < 2800 and step == len(losses(tmp_path / "two"))
    inspected = end(start(tmp_path, "two", 1, "--mode=inspect"))[0]
    assert f"step {step}:" in inspected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("", 2, None), "--num_processes and --process_id need --coordinator"),
        (("127.0.0.1:1", None, 0), "needs --num_processes and --process_id"),
        (("127.0.0.1", 2, 0), "--coordinator=127.0.0.1: give HOST:PORT, or cluster"),
    ],
)
def test_incomplete_flags_raise(arguments, message):
    with pytest.raises(UserError, match=message):
        connect(*arguments)


def test_without_a_coordinator_nothing_is_connected(monkeypatch):
    monkeypatch.delenv("JAX_COORDINATOR_ADDRESS", raising=False)
    assert connect("") is False
    assert all_processes_equal("a single process")


class FakeMultihost:
    """Threads as processes, with the collectives of `multihost_utils`, each of which waits for all."""

    def __init__(self, size: int):
        self.size, self.local = size, threading.local()
        self.barrier, self.values = threading.Barrier(size, timeout=20), [None] * size

    def process_allgather(self, value):
        self.values[self.local.index] = value
        self.barrier.wait()
        gathered = np.stack(self.values)
        self.barrier.wait()  # or the next call would overwrite what another has not read yet
        return gathered

    def broadcast_one_to_all(self, value):
        return self.process_allgather(value)[0]

    def call(self, function: Callable, *values) -> list:
        """Returns the results of `function` in each process, called with that process's value."""

        def run(index, value):
            self.local.index = index
            return function(value)

        with ThreadPoolExecutor(self.size) as pool:
            return list(pool.map(run, range(self.size), values))


@pytest.fixture
def multihost(monkeypatch):
    multihost = FakeMultihost(3)
    monkeypatch.setattr(processes, "multihost_utils", multihost)
    monkeypatch.setattr(processes.jax, "process_count", lambda: 3)
    return multihost


@pytest.mark.parametrize(
    ("texts", "same"),
    [("aaa", True), ("baa", False), ("aba", False), ("aab", False), ("abc", False), (("", "", ""), True)],
)
def test_all_processes_detect_one_that_differs(multihost, texts, same):
    """Whichever it is, the first included: equal processes must not continue and wait for it."""
    assert multihost.call(all_processes_equal, *texts) == [same] * 3


def test_any_process_and_broadcast_agree_in_all_processes(multihost):
    for values in ((False, False, False), (True, False, False), (False, False, True), (True, True, True)):
        assert multihost.call(any_process, *values) == [any(values)] * 3
        assert multihost.call(broadcast_from_main, *values) == [values[0]] * 3


@pytest.mark.parametrize(
    ("owners", "equal"),
    [
        ([0], True),
        ([0, 0, 1, 1], True),
        ([0, 1, 2], True),
        ([0, 1, 0, 1], False),
        ([1, 0], False),
        ([0, 0, 0, 1], False),
        ([0, 1, 1], False),
        ([0, 1, 1, 2, 2, 2], False),
    ],
)
def test_processes_need_equally_many_consecutive_devices(monkeypatch, owners, equal):
    """`owners` are the processes of JAX's devices; at least one process must raise if these differ, else none."""
    monkeypatch.setattr(jax, "devices", lambda: [types.SimpleNamespace(process_index=owner) for owner in owners])
    monkeypatch.setattr(jax, "process_count", lambda: len(set(owners)))
    raised = []
    for process in sorted(set(owners)):
        monkeypatch.setattr(jax, "local_device_count", lambda process=process: owners.count(process))
        try:
            check_equal_devices()
        except UserError as error:
            assert "equally many devices" in str(error)
            raised.append(process)
    assert bool(raised) != equal


def test_processes_with_different_flags_do_not_train(tmp_path):
    flags = (f"--coordinator=127.0.0.1:{free_port()}", "--num_processes=2")
    two = [start(tmp_path, "two", 1, *flags, f"--process_id={i}", f"--config.seed={i}") for i in (0, 1)]
    outputs = [process.communicate(timeout=200)[0] for process in two]
    assert 0 not in [process.returncode for process in two]
    assert any("must have the same flags and the same data" in output for output in outputs), outputs
