"""Hashes of files: of all bytes, of nothing else, and taken once."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from audiotag_jax.datasets import contents
from audiotag_jax.datasets.contents import FILE_NAME, content_hashes


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / name for name in ("a.wav", "é b.wav", "empty.wav")]
    for path, data in zip(paths, (b"x" * 100_000, b"y", b""), strict=True):
        path.write_bytes(data)
    return [str(path) for path in paths]


@pytest.fixture
def read(monkeypatch):
    """The paths that were read, in turn."""
    taken, hash_of = [], contents._hash_of
    monkeypatch.setattr(contents, "_hash_of", lambda path: taken.append(path) or hash_of(path))
    return taken


def test_hashes_are_those_of_all_bytes(files, tmp_path):
    missing, folder = str(tmp_path / "none.wav"), str(tmp_path)
    hashes = content_hashes([*files, missing, folder], tmp_path / "memory", 2)
    for path in files:
        assert hashes[path] == hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]
    assert (hashes[missing], hashes[folder]) == ("", "")


def test_files_are_read_once_and_again_when_they_change(files, tmp_path, read):
    first = content_hashes(files, tmp_path / "memory")
    assert sorted(read) == sorted(files)
    assert content_hashes(files, tmp_path / "memory") == first
    assert len(read) == 3
    with Path(files[0]).open("r+b") as file:  # one byte in the middle; the size stays
        file.seek(50_000)
        file.write(b"z")
    os.utime(files[0], ns=(0, 10**18))
    os.utime(files[1], ns=(0, 10**18))  # only touched
    second = content_hashes(files, tmp_path / "memory")
    assert read[3:] == files[:2]
    assert second[files[0]] != first[files[0]]
    assert (second[files[1]], second[files[2]]) == (first[files[1]], first[files[2]])


@pytest.mark.parametrize("damage", ["", "{", "[1]", '{"a.wav": 3}', "null"])
def test_a_damaged_memory_is_made_anew(files, tmp_path, damage, read):
    first = content_hashes(files, tmp_path / "memory")
    memory = tmp_path / "memory" / FILE_NAME
    memory.write_text(damage)
    assert content_hashes(files, tmp_path / "memory") == first
    assert set(json.loads(memory.read_text())) >= set(files)
    assert content_hashes(files, tmp_path / "memory") == first
    assert len(read) == 6


def test_a_memory_that_cannot_be_written_is_done_without(files, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    assert content_hashes(files, tmp_path / "file") == content_hashes(files, tmp_path / "memory")
    assert (tmp_path / "file").read_text() == "not a folder"
