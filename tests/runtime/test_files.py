"""Atomic writes leave the new or the old file; locks exclude other processes and end with their owner."""

import errno
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
from audiotag_jax.runtime.files import locked, write_atomic, write_json, write_npz, write_together

ROOT = Path(__file__).parents[2]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_write_replaces_the_file_and_leaves_no_temporary_one(tmp_path):
    path = tmp_path / "a.bin"
    write_atomic(path, lambda file: file.write(b"first"))
    write_atomic(path, lambda file: file.write(b"2nd"))
    assert path.read_bytes() == b"2nd"
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_error_leaves_the_old_file_and_no_temporary_one(tmp_path, error):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def write(file):
        file.write(b"half")
        file.flush()
        assert path.read_bytes() == b"old"  # readers see the old file
        raise error

    with pytest.raises(error):
        write_atomic(path, write)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


def test_files_are_replaced_together_or_not_at_all(tmp_path, monkeypatch):
    """A disk that is full when the last of three files is to be put on it."""
    paths = [tmp_path / name for name in "abc"]
    for path in paths:
        path.write_bytes(b"old")
    write_together(paths, lambda *files: [file.write(b"new") for file in files])
    assert [path.read_bytes() for path in paths] == [b"new"] * 3
    calls = []

    def fsync(number):
        calls.append(number)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left"):
        write_together(paths, lambda *files: [file.write(b"newer") for file in files])
    assert [path.read_bytes() for path in paths] == [b"new"] * 3
    assert names(tmp_path) == ["a", "b", "c"]
    paths[2].unlink()
    paths[2].mkdir()
    with pytest.raises(UserError, match="c is a folder"):
        write_together(paths, lambda *files: None)
    assert paths[0].read_bytes() == b"new"


def test_error_in_the_first_write_leaves_no_file(tmp_path):
    with pytest.raises(ZeroDivisionError):
        write_atomic(tmp_path / "a.bin", lambda file: 1 / 0)
    assert names(tmp_path) == []


def test_missing_directory_raises(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"):
        write_json(tmp_path / "missing" / "a.json", {})


def test_json_is_written_indented(tmp_path):
    write_json(tmp_path / "a.json", {"b": [1, None]})
    assert (tmp_path / "a.json").read_text() == '{\n  "b": [\n    1,\n    null\n  ]\n}\n'


def test_npz_returns_the_same_arrays(tmp_path):
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
def start_lock_owner():
    """Starts a process that locks a directory; returns it once it has the lock."""
    owners = []

    def start(folder):
        code = (
            "import sys, pathlib, time\n"
            "from audiotag_jax.runtime.files import locked\n"
            "with locked(pathlib.Path(sys.argv[1]), 'using'):\n"
            "    print('locked', flush=True)\n"
            "    sys.stdin.read()\n"
        )
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        owner = subprocess.Popen([sys.executable, "-c", code, str(folder)], env=environment, **pipes)
        owners.append(owner)
        assert owner.stdout.readline() == "locked\n"
        return owner

    yield start
    for owner in owners:
        owner.kill()
        owner.wait()
        owner.stdin.close()
        owner.stdout.close()


def test_a_second_process_fails_at_once(tmp_path, start_lock_owner):
    start_lock_owner(tmp_path)
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


def test_lock_is_released_when_its_process_is_killed(tmp_path, start_lock_owner):
    owner = start_lock_owner(tmp_path)
    owner.kill()
    owner.wait()
    assert (tmp_path / ".lock").exists()  # the lock is on the open file, not its existence
    with locked(tmp_path, "using"):
        pass


def test_a_waiting_process_gets_the_lock_after_its_release(tmp_path, start_lock_owner):
    owner = start_lock_owner(tmp_path)
    order = []

    def release():
        time.sleep(0.3)
        order.append("released")
        owner.stdin.close()

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
        pass  # not even the same process can lock it twice


def test_lock_creates_the_directory(tmp_path):
    with locked(tmp_path / "a" / "b", "using"):
        assert (tmp_path / "a" / "b").is_dir()


def test_an_error_before_anything_is_written_removes_a_new_directory(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "new", "using"):
        raise ZeroDivisionError
    assert not (tmp_path / "new").exists()
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "kept", "using"):
        (tmp_path / "kept/result").touch()
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "warned", "using"):
        (tmp_path / "warned/log.txt").touch()
        raise ZeroDivisionError
    (tmp_path / "mine").mkdir()
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "mine", "using"):
        raise ZeroDivisionError
    assert {path.name for path in tmp_path.iterdir()} == {"kept", "mine"}


def test_a_waiting_process_recreates_a_removed_directory(tmp_path, monkeypatch):
    """The owner fails and removes the directory meanwhile: the waiting process must not lock the deleted file."""
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
