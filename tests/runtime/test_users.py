"""Ids without an entry get one; the others keep theirs."""

import grp
import os
import pwd

import pytest
from etils import epath

from audiotag_jax.runtime.users import name_unknown_users


@pytest.fixture
def no_entries(monkeypatch):
    """As in a container under an arbitrary id."""

    def missing(number):
        raise KeyError(f"uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", missing)
    monkeypatch.setattr(grp, "getgrgid", missing)


def test_ids_without_an_entry_have_their_number_as_name(no_entries, tmp_path):
    (tmp_path / "a").write_text("four")
    with pytest.raises(KeyError):
        epath.Path(tmp_path / "a").stat()  # as TFDS asks for the size of what it has written
    name_unknown_users()
    name_unknown_users()
    stat = epath.Path(tmp_path / "a").stat()
    assert (stat.length, stat.owner, stat.group) == (4, str(os.getuid()), str(os.getgid()))


def test_known_ids_keep_their_entries(monkeypatch):
    before = pwd.getpwuid(0), grp.getgrgid(0)
    monkeypatch.setattr(pwd, "getpwuid", pwd.getpwuid)
    monkeypatch.setattr(grp, "getgrgid", grp.getgrgid)
    name_unknown_users()
    assert (pwd.getpwuid(0), grp.getgrgid(0)) == before
