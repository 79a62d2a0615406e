"""What a folder's listing finds, and that it names what it leaves out."""

import os
from pathlib import Path

import pytest

from audiotag_jax.audio import files
from audiotag_jax.audio.files import audio_files, describe_left_out, list_sounds


def make(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def found(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in audio_files(root)]


@pytest.fixture
def no_pyav(monkeypatch):
    monkeypatch.setattr(files.ffmpeg, "is_installed", lambda: False)


@pytest.fixture
def pyav(monkeypatch):
    monkeypatch.setattr(files.ffmpeg, "is_installed", lambda: True)


def test_all_types_that_can_be_decoded_are_found(tmp_path, no_pyav):
    names = ["a.WAV", "b/c.caf", "b/d.w64", "e.flac", "f/g.mp3", "new\nline.ogg"]
    make(tmp_path, *names, "h.m4a", "i.txt", "noext", ".hidden.wav", ".cache/j.wav", "__MACOSX/b/k.wav")
    assert found(tmp_path) == sorted(names)
    (line,) = describe_left_out(list_sounds(tmp_path))
    assert line == (
        f"left out in {tmp_path}: 3 files of other types (1 .m4a, 1 .txt, 1 without a suffix); some can be decoded "
        "with PyAV: pip install av"
    )


def test_with_pyav_there_are_more_types(tmp_path, pyav):
    make(tmp_path, "a.wav", "b.m4a", "c.WebM", "d.txt")
    assert found(tmp_path) == ["a.wav", "b.m4a", "c.WebM"]
    assert list(describe_left_out(list_sounds(tmp_path))) == [f"left out in {tmp_path}: 1 file of other types (1 .txt)"]


def test_links_are_followed_and_loops_end(tmp_path):
    root = make(tmp_path / "root", "dog/a.wav", "rain/sub/b.wav")
    elsewhere = make(tmp_path / "elsewhere", "c.wav", "deep/d.wav")
    (root / "linked").symlink_to(elsewhere)
    (root / "rain/linked").symlink_to(elsewhere)
    (root / "rain/loop").symlink_to("..")
    (elsewhere / "deep/up").symlink_to(elsewhere)
    (root / "dog/self.wav").symlink_to("self.wav")
    (root / "dog/gone.wav").symlink_to("nowhere.wav")  # decoding reports it
    (root / "dog/linked.wav").symlink_to("a.wav")
    assert found(root) == [
        "dog/a.wav",
        "dog/gone.wav",
        "dog/linked.wav",
        "dog/self.wav",
        "linked/c.wav",
        "linked/deep/d.wav",
        "rain/linked/c.wav",
        "rain/linked/deep/d.wav",
        "rain/sub/b.wav",
    ]
    (line,) = describe_left_out(list_sounds(root))
    assert line == (
        f"left out in {root}: 3 links to a folder around it: linked/deep/up, rain/linked/deep/up, rain/loop"
    )


def test_named_pipes_are_left_out(tmp_path):
    make(tmp_path, "a.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    assert found(tmp_path) == ["a.wav"]
    (line,) = describe_left_out(list_sounds(tmp_path))
    assert line == f"left out in {tmp_path}: 1 named pipe, or the like: pipe.wav"


def test_folders_that_cannot_be_read_are_named(tmp_path, monkeypatch):
    """Root reads every folder, so the refusal is a fake."""
    make(tmp_path, "a.wav", *(f"secret{n}/b.wav" for n in range(5)))
    scandir = os.scandir

    def refuse(path):
        if "secret" in str(path):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert found(tmp_path) == ["a.wav"]
    (line,) = describe_left_out(list_sounds(tmp_path))
    assert line.endswith("5 folders that cannot be read: secret0, secret1, secret2 and 2 more")
