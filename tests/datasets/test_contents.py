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


@pytest.fixture
def anew(monkeypatch):
    """`content_hashes`, as a new process has it."""

    def anew(*arguments):
        monkeypatch.setattr(contents, "_known", {})
        return content_hashes(*arguments)

    return anew


def test_hashes_are_those_of_all_bytes(files, tmp_path):
    missing, folder = str(tmp_path / "none.wav"), str(tmp_path)
    hashes = content_hashes([*files, missing, folder], tmp_path / "memory", 2)
    for path in files:
        assert hashes[path] == hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]
    assert (hashes[missing], hashes[folder]) == ("", "")


def test_files_are_read_once_and_again_when_they_change(files, tmp_path, read, anew):
    first = anew(files, tmp_path / "memory")
    assert sorted(read) == sorted(files)
    assert anew(files, tmp_path / "memory") == first
    assert len(read) == 3
    with Path(files[0]).open("r+b") as file:  # one byte in the middle; the size stays
        file.seek(50_000)
        file.write(b"z")
    os.utime(files[0], ns=(0, 10**18))
    os.utime(files[1], ns=(0, 10**18))  # only touched
    second = anew(files, tmp_path / "memory")
    assert read[3:] == files[:2]
    assert second[files[0]] != first[files[0]]
    assert (second[files[1]], second[files[2]]) == (first[files[1]], first[files[2]])
    assert anew(files, tmp_path / "memory") == second
    assert len(read) == 5


def test_two_files_of_one_size_and_date_that_change_places_are_told_apart(tmp_path, anew):
    paths = [str(tmp_path / name) for name in ("a.wav", "b.wav")]
    for path in paths:
        Path(path).write_bytes(path[-5].encode() * 10)
        os.utime(path, ns=(0, 10**18))
    first = anew(paths, tmp_path / "memory")
    Path(paths[0]).rename(tmp_path / "c.wav")
    Path(paths[1]).rename(paths[0])
    (tmp_path / "c.wav").rename(paths[1])
    second = anew(paths, tmp_path / "memory")
    assert [second[path] for path in paths] == [first[path] for path in reversed(paths)]


def test_a_path_means_the_file_that_it_names_from_here(tmp_path, monkeypatch):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.wav").write_text(name)
    found = []
    for name in ("one", "two"):
        monkeypatch.chdir(tmp_path / name)
        found.append(content_hashes(["a.wav"], tmp_path / "memory")["a.wav"])
    assert found == [hashlib.sha256(name.encode()).hexdigest()[:16] for name in ("one", "two")]


@pytest.mark.parametrize("damage", ["", "{", "[1]", '{"a.wav": 3}', "null", "no hashes"])
def test_a_damaged_memory_is_made_anew(files, tmp_path, damage, read, anew):
    first = anew(files, tmp_path / "memory")
    memory = tmp_path / "memory" / FILE_NAME
    stamps = {path: [stamp, None] for path, (stamp, _) in json.loads(memory.read_text()).items()}
    memory.write_text(json.dumps(stamps) if damage == "no hashes" else damage)
    assert anew(files, tmp_path / "memory") == first
    assert set(json.loads(memory.read_text())) >= set(files)
    assert anew(files, tmp_path / "memory") == first
    assert len(read) == 6


def test_a_memory_that_cannot_be_written_is_done_without(files, tmp_path, read):
    (tmp_path / "file").write_text("not a folder")
    first = content_hashes(files, tmp_path / "file")
    assert content_hashes(files, tmp_path / "file") == first
    assert len(read) == 3
    assert (tmp_path / "file").read_text() == "not a folder"
