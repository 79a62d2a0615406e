"""Files are whole or as they were; locks keep other processes out and die with their holder."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from audiotag_jax.runtime import files
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.files import locked, write_atomic, write_json, write_npz

ROOT = Path(__file__).parents[2]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_written_whole_and_alone(tmp_path):
    path = tmp_path / "a.bin"
    write_atomic(path, lambda file: file.write(b"first"))
    write_atomic(path, lambda file: file.write(b"2nd"))
    assert path.read_bytes() == b"2nd"
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_error_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def write(file):
        file.write(b"half")
        file.flush()
        assert path.read_bytes() == b"old"  # no reader sees the half
        raise error

    with pytest.raises(error):
        write_atomic(path, write)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


def test_error_without_an_old_file_leaves_none(tmp_path):
    with pytest.raises(ZeroDivisionError):
        write_atomic(tmp_path / "a.bin", lambda file: 1 / 0)
    assert names(tmp_path) == []


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"):
        write_json(tmp_path / "missing" / "a.json", {})


def test_json(tmp_path):
    write_json(tmp_path / "a.json", {"b": [1, None]})
    assert (tmp_path / "a.json").read_text() == '{\n  "b": [\n    1,\n    null\n  ]\n}\n'


def test_npz(tmp_path):
    arrays = {"ids": np.array(["a.wav", "bé.wav"]), "logits": np.arange(6, dtype=np.float32).reshape(2, 3)}
    write_npz(tmp_path / "a.npz", **arrays)
    with np.load(tmp_path / "a.npz") as saved:
        assert set(saved) == {"ids", "logits"}
        for name, values in arrays.items():
            np.testing.assert_array_equal(saved[name], values)
            assert saved[name].dtype == values.dtype
    assert names(tmp_path) == ["a.npz"]


# Locks.


@pytest.fixture
def hold():
    """Starts a process that holds a folder's lock, returns it once it does."""
    holders = []

    def start(folder):
        code = (
            "import sys, pathlib, time\n"
            "from audiotag_jax.runtime.files import locked\n"
            "with locked(pathlib.Path(sys.argv[1]), 'using'):\n"
            "    print('held', flush=True)\n"
            "    sys.stdin.read()\n"
        )
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        holder = subprocess.Popen([sys.executable, "-c", code, str(folder)], env=environment, **pipes)
        holders.append(holder)
        assert holder.stdout.readline() == "held\n"
        return holder

    yield start
    for holder in holders:
        holder.kill()
        holder.wait()
        holder.stdin.close()
        holder.stdout.close()


def test_second_process_is_told_at_once(tmp_path, hold):
    hold(tmp_path)
    start = time.monotonic()
    with (
        pytest.raises(UserError, match=r"Another process is using .*\n.*another folder") as caught,
        locked(tmp_path, "using"),
    ):
        pass
    assert str(tmp_path) in str(caught.value)
    assert time.monotonic() - start < 1
    with locked(tmp_path / "other", "using"):
        pass  # another folder's lock is another lock


def test_killed_process_leaves_no_lock(tmp_path, hold):
    holder = hold(tmp_path)
    holder.kill()
    holder.wait()
    assert (tmp_path / ".lock").exists()  # the file says nothing
    with locked(tmp_path, "using"):
        pass


def test_waiting_process_comes_next(tmp_path, hold):
    holder = hold(tmp_path)
    order = []

    def release():
        time.sleep(0.3)
        order.append("released")
        holder.stdin.close()

    thread = threading.Thread(target=release)
    thread.start()
    with locked(tmp_path, "using", wait=True):
        order.append("taken")
    thread.join()
    assert order == ["released", "taken"]


def test_lock_is_released_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path, "using"):
        _ = 1 / 0
    with locked(tmp_path, "using"), pytest.raises(UserError), locked(tmp_path, "using"):
        pass  # even the same process cannot hold it twice


def test_folder_is_made(tmp_path):
    with locked(tmp_path / "a" / "b", "using"):
        assert (tmp_path / "a" / "b").is_dir()


def test_an_error_before_anything_is_written_leaves_no_folder(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "new", "using"):
        raise ZeroDivisionError
    assert not (tmp_path / "new").exists()
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "kept", "using"):
        (tmp_path / "kept/result").touch()
        raise ZeroDivisionError
    (tmp_path / "mine").mkdir()
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "mine", "using"):
        raise ZeroDivisionError
    assert {path.name for path in tmp_path.iterdir()} == {"kept", "mine"}


def test_who_waits_for_a_folder_that_is_removed_makes_it_anew(tmp_path, monkeypatch):
    """The holder ends in an error and removes the folder while another waits: the other must not lock a lost file."""
    real, folder = files._acquire, tmp_path / "new"

    def acquire(file, message, wait):
        real(file, message, wait)
        if not acquired:
            acquired.append(1)
            (folder / ".lock").unlink()
            folder.rmdir()

    acquired: list = []
    monkeypatch.setattr(files, "_acquire", acquire)
    with locked(folder, "using", wait=True):
        assert (folder / ".lock").exists()
        with pytest.raises(UserError), locked(folder, "using"):
            pass
