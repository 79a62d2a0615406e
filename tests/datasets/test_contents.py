"""Hashes of file contents, and their cache."""

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
def hashed(monkeypatch):
    """Records the paths that are hashed."""
    hashed, hash_of = [], contents.content_hash
    monkeypatch.setattr(contents, "content_hash", lambda path: hashed.append(path) or hash_of(path))
    return hashed


@pytest.fixture
def in_new_process(monkeypatch):
    """Calls `content_hashes` with an empty cache in memory, as in a new process."""

    def in_new_process(*arguments):
        monkeypatch.setattr(contents, "_process_cache", {})
        return content_hashes(*arguments)

    return in_new_process


def test_hashes_cover_all_bytes(files, tmp_path):
    missing, folder = str(tmp_path / "none.wav"), str(tmp_path)
    hashes = content_hashes([*files, missing, folder], tmp_path / "cache", 2)
    for path in files:
        assert hashes[path] == hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]
    assert (hashes[missing], hashes[folder]) == ("", "")


def test_files_are_hashed_once_and_again_when_they_change(files, tmp_path, hashed, in_new_process):
    first = in_new_process(files, tmp_path / "cache")
    assert sorted(hashed) == sorted(files)
    assert in_new_process(files, tmp_path / "cache") == first
    assert len(hashed) == 3
    with Path(files[0]).open("r+b") as file:  # one byte in the middle; the size stays
        file.seek(50_000)
        file.write(b"z")
    os.utime(files[0], ns=(0, 10**18))
    os.utime(files[1], ns=(0, 10**18))  # only touched
    second = in_new_process(files, tmp_path / "cache")
    assert hashed[3:] == files[:2]
    assert second[files[0]] != first[files[0]]
    assert (second[files[1]], second[files[2]]) == (first[files[1]], first[files[2]])
    assert in_new_process(files, tmp_path / "cache") == second
    assert len(hashed) == 5


def test_swapped_files_of_equal_size_and_date_are_detected(tmp_path, in_new_process):
    paths = [str(tmp_path / name) for name in ("a.wav", "b.wav")]
    for path in paths:
        Path(path).write_bytes(path[-5].encode() * 10)
        os.utime(path, ns=(0, 10**18))
    first = in_new_process(paths, tmp_path / "cache")
    Path(paths[0]).rename(tmp_path / "c.wav")
    Path(paths[1]).rename(paths[0])
    (tmp_path / "c.wav").rename(paths[1])
    second = in_new_process(paths, tmp_path / "cache")
    assert [second[path] for path in paths] == [first[path] for path in reversed(paths)]


def test_relative_paths_are_resolved_in_the_current_directory(tmp_path, monkeypatch):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.wav").write_text(name)
    found = []
    for name in ("one", "two"):
        monkeypatch.chdir(tmp_path / name)
        found.append(content_hashes(["a.wav"], tmp_path / "cache")["a.wav"])
    assert found == [hashlib.sha256(name.encode()).hexdigest()[:16] for name in ("one", "two")]


@pytest.mark.parametrize("damage", ["", "{", "[1]", '{"a.wav": 3}', "null", "no hashes"])
def test_a_damaged_cache_is_written_again(files, tmp_path, damage, hashed, in_new_process):
    first = in_new_process(files, tmp_path / "cache")
    cache = tmp_path / "cache" / FILE_NAME
    stamps = {path: [stamp, None] for path, (stamp, _) in json.loads(cache.read_text()).items()}
    cache.write_text(json.dumps(stamps) if damage == "no hashes" else damage)
    assert in_new_process(files, tmp_path / "cache") == first
    assert set(json.loads(cache.read_text())) >= set(files)
    assert in_new_process(files, tmp_path / "cache") == first
    assert len(hashed) == 6


def test_a_cache_that_cannot_be_written_is_ignored(files, tmp_path, hashed):
    (tmp_path / "file").write_text("not a folder")
    first = content_hashes(files, tmp_path / "file")
    assert content_hashes(files, tmp_path / "file") == first
    assert len(hashed) == 3
    assert (tmp_path / "file").read_text() == "not a folder"


def test_what_was_read_before_an_interruption_is_not_read_again(files, tmp_path, monkeypatch, in_new_process):
    hash_of, number = contents.content_hash, len(files) - 1

    def interrupted(path):
        if path == str(Path(files[number]).absolute()):
            raise KeyboardInterrupt
        return hash_of(path)

    with monkeypatch.context() as patched:
        patched.setattr(contents, "content_hash", interrupted)
        with pytest.raises(KeyboardInterrupt):
            in_new_process(files, tmp_path / "cache", 1)
    read = []
    monkeypatch.setattr(contents, "content_hash", lambda path: read.append(path) or hash_of(path))
    assert all(in_new_process(files, tmp_path / "cache", 1).values()) and len(read) == 1
