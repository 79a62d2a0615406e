"""Downloading from an HTTP server on the loopback interface; no test uses the network."""

import functools
import hashlib
import http.server
import io
import re
import socket
import tarfile
import threading
import zipfile
from pathlib import Path

import pooch
import pytest
import requests

from audiotag_jax.datasets import sources
from audiotag_jax.datasets.download import (
    CHECKSUMS,
    PARTS,
    URBANSOUND8K,
    download_fsdkaggle2018,
    download_urbansound8k,
    needs_download,
)
from audiotag_jax.runtime.errors import UserError

CONTENT = {
    "FSDKaggle2018.meta/train_post_competition.csv": b"fname,label,manually_verified\na.wav,x,1\nb.wav,y,0\n",
    "FSDKaggle2018.meta/test_post_competition_scoring_clips.csv": b"fname,label,usage\nt.wav,x,Public\n",
    "FSDKaggle2018.audio_train/a.wav": b"a" * 1000,
    "FSDKaggle2018.audio_train/b.wav": b"b" * 1000,
    "FSDKaggle2018.audio_test/t.wav": b"t" * 1000,
}


@pytest.fixture
def served(tmp_path, monkeypatch):
    """Serves the three archives: their `folder`, the `url`, the `registry` of checksums, and the `requests` so far."""
    monkeypatch.setenv("NO_PROXY", "*")
    folder, requested = tmp_path / "served", []
    folder.mkdir()
    for part in PARTS:
        pack(folder / f"{part}.zip", {name: data for name, data in CONTENT.items() if name.startswith(part)})

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            requested.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield Served(folder, f"http://127.0.0.1:{server.server_port}/", requested)
    server.shutdown()
    server.server_close()


class Served:
    def __init__(self, folder, url, requested):
        self.folder, self.url, self.requests = folder, url, requested

    @property
    def registry(self):
        return {file.name: f"md5:{hashlib.md5(file.read_bytes()).hexdigest()}" for file in self.folder.iterdir()}


def pack(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)


def present(path):
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_download_writes_all_parts_and_no_other_files(tmp_path, served):
    path = tmp_path / "data"
    assert needs_download(path)
    path.mkdir()
    (path / ".DS_Store").touch()  # a file browser's
    assert needs_download(path)
    (path / ".DS_Store").unlink()
    download_fsdkaggle2018(path, served.url, served.registry)
    assert present(path) == CONTENT
    assert not needs_download(path)
    num_requests = len(served.requests)
    download_fsdkaggle2018(path, served.url, served.registry)
    assert len(served.requests) == num_requests


def test_archives_without_a_top_folder_are_unzipped(tmp_path, served):
    pack(served.folder / f"{PARTS[1]}.zip", {"t.wav": b"t" * 1000})
    download_fsdkaggle2018(tmp_path / "data", served.url, served.registry)
    assert present(tmp_path / "data") == CONTENT


def test_open_source_downloads_then_opens(tmp_path, served, monkeypatch):
    fetch = functools.partial(download_fsdkaggle2018, base_url=served.url, registry=served.registry)
    monkeypatch.setattr(sources, "download_fsdkaggle2018", fetch)
    source = sources.open_source("fsdkaggle2018", tmp_path / "data", num_folds=2)
    assert [clip.id for clip in source.clips] == ["t.wav", "a.wav", "b.wav"]
    assert all(Path(clip.path).is_file() for clip in source.clips)


def test_a_wrong_checksum_raises_and_complete_parts_are_kept(tmp_path, served):
    path, registry = tmp_path / "data", served.registry
    wrong = {**registry, f"{PARTS[-1]}.zip": "md5:" + "0" * 32}
    with pytest.raises(UserError, match="audio_train.zip is damaged, .*: its checksum is wrong"):
        download_fsdkaggle2018(path, served.url, wrong)
    assert needs_download(path)
    assert sorted(entry.name for entry in path.iterdir()) == [".download", PARTS[1], PARTS[0]]
    served.requests.clear()
    download_fsdkaggle2018(path, served.url, registry)
    assert present(path) == CONTENT
    assert {name.split(" ")[0] for name in served.requests} == {f"/{PARTS[-1]}.zip"}


def test_the_published_checksums_are_not_those_of_the_server(tmp_path, served):
    """The server here has whole archives, and would vouch for them itself; the pinned checksums refuse the first."""
    assert sorted(CHECKSUMS) == sorted(f"{part}.zip" for part in PARTS)
    assert all(re.fullmatch("md5:[0-9a-f]{32}", checksum) for checksum in CHECKSUMS.values())
    with pytest.raises(UserError, match="meta.zip is damaged, or is not what was published"):
        download_fsdkaggle2018(tmp_path / "data", served.url)
    assert needs_download(tmp_path / "data")


def test_an_interrupted_unzip_is_repeated(tmp_path, served, monkeypatch):
    path, extract = tmp_path / "data", zipfile.ZipFile.extract

    def interrupted(archive, member, target):
        if member.filename.endswith("b.wav"):
            raise KeyboardInterrupt
        return extract(archive, member, target)

    monkeypatch.setattr(zipfile.ZipFile, "extract", interrupted)
    with pytest.raises(KeyboardInterrupt):
        download_fsdkaggle2018(path, served.url, served.registry)
    assert not (path / PARTS[-1]).exists()
    assert (path / PARTS[0]).is_dir()
    monkeypatch.setattr(zipfile.ZipFile, "extract", extract)
    served.requests.clear()
    download_fsdkaggle2018(path, served.url, served.registry)
    assert present(path) == CONTENT
    assert served.requests == []  # the archive is not downloaded again


@pytest.mark.parametrize("name", ["../evil.txt", "/evil.txt", "FSDKaggle2018.meta/../../evil.txt", "..\\evil.txt"])
def test_archives_cannot_write_outside_their_folder(tmp_path, served, name):
    pack(served.folder / f"{PARTS[0]}.zip", {name: b"evil"})
    with pytest.raises(UserError, match="unsafe file name"):
        download_fsdkaggle2018(tmp_path / "data", served.url, served.registry)
    assert not list(tmp_path.rglob("evil*"))
    assert not (tmp_path / "data" / PARTS[0]).exists()


def test_a_file_that_is_no_archive_raises(tmp_path, served):
    (served.folder / f"{PARTS[0]}.zip").write_bytes(b"an error page")
    with pytest.raises(UserError, match="not a complete zip archive"):
        download_fsdkaggle2018(tmp_path / "data", served.url, served.registry)


def check_two_lines(caught, url, path):
    first, second = str(caught.value).splitlines()
    assert url in first
    assert "could not be reached" in first
    assert second == (
        f"Download the data to {path} by hand, or try the demo: `python main.py --config=configs/log_db.py:demo`"
    )


def test_refused_connections_and_missing_files_raise(tmp_path, served):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{unused.getsockname()[1]}/"
    for url in (closed, served.url + "nothing/here/"):
        with pytest.raises(UserError) as caught:
            download_fsdkaggle2018(tmp_path / "data", url, served.registry)
        check_two_lines(caught, url, tmp_path / "data")


@pytest.mark.parametrize(
    "error", [requests.ConnectionError("no route"), ValueError("not a repository"), KeyError("files")]
)
def test_an_unreachable_doi_raises(tmp_path, monkeypatch, error):
    def fail(self, name, downloader):
        raise error

    monkeypatch.setattr(pooch.Pooch, "fetch", fail)
    with pytest.raises(UserError) as caught:
        sources.open_source("fsdkaggle2018", tmp_path / "data")
    check_two_lines(caught, "doi:10.5281/zenodo.2552860/", tmp_path / "data")


def test_a_folder_that_cannot_be_written_raises(tmp_path, served):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write FSDKaggle2018 into"):
        download_fsdkaggle2018(tmp_path / "file", served.url, served.registry)


URBAN = {
    "audio/fold1/7-8-0-0.wav": b"a" * 1000,
    "audio/fold2/100032-3-0-0.wav": b"b" * 1000,
    "metadata/UrbanSound8K.csv": b"slice_file_name,fsID,fold,class\n7-8-0-0.wav,7,1,siren\n"
    b"100032-3-0-0.wav,100032,2,dog_bark\n",
}


def pack_tar(path, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("UrbanSound8K/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        archive.addfile(link)


def test_urbansound8k_is_downloaded_from_one_tar_archive(tmp_path, served, monkeypatch):
    archive = served.folder / "UrbanSound8K.tar.gz"
    pack_tar(archive, {f"UrbanSound8K/{name}": data for name, data in URBAN.items()} | {"UrbanSound8K/README": b"x"})
    fetch = functools.partial(download_urbansound8k, base_url=served.url, registry=served.registry)
    monkeypatch.setattr(sources, "download_urbansound8k", fetch)
    source = sources.open_source("urbansound8k", tmp_path / "data")
    assert [clip.id for clip in source.clips] == ["100032-3-0-0.wav", "7-8-0-0.wav"]
    assert present(tmp_path / "data") == URBAN
    assert not needs_download(tmp_path / "data", URBANSOUND8K)
    with pytest.raises(UserError, match="UrbanSound8K.tar.gz is damaged, or is not what was published"):
        download_urbansound8k(tmp_path / "other", served.url)
    pack_tar(archive, {"UrbanSound8K/../../evil.txt": b"evil"})
    with pytest.raises(UserError, match="unsafe file name"):
        download_urbansound8k(tmp_path / "evil", served.url, served.registry)
    pack_tar(archive, {"UrbanSound8K/audio/fold1/a.wav": b"a"})
    with pytest.raises(UserError, match="has no folder metadata"):
        download_urbansound8k(tmp_path / "no_table", served.url, served.registry)
    archive.write_bytes(archive.read_bytes()[:100])
    with pytest.raises(UserError, match="not a complete tar archive"):
        download_urbansound8k(tmp_path / "cut", served.url, served.registry)
    assert not list(tmp_path.rglob("evil.txt"))
