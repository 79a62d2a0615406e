"""Printing never fails: closed streams, readers that are gone, terminals without the characters."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from audiotag_jax.runtime import terminal
from audiotag_jax.runtime.progress import log
from audiotag_jax.runtime.terminal import print_line

ROOT = Path(__file__).parents[2]
SCRIPT = (
    "import sys\n"
    "from audiotag_jax.runtime.terminal import prepare_streams, print_line\n"
    "from audiotag_jax.runtime.progress import log\n"
    "prepare_streams()\n"
    "for _ in range(3): log('a → ö … 名\\udce9')\n"
    "print('x → y'); print_line('error: ö', sys.stderr)\n"
    "opened = open('/dev/null'); sys.exit(opened.fileno() if opened.fileno() > 2 else 1)"
)
PLAIN = "a -> \\xf6 ... \\u540d\\udce9"


def run(**options) -> subprocess.CompletedProcess:
    """The script's process; its exit status is the number of a file that it opens."""
    return subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, timeout=60, **options)


def test_an_ascii_terminal():
    done = run(capture_output=True, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert done.returncode > 2
    assert done.stdout.decode().splitlines() == [PLAIN] * 3 + ["x -> y"]
    assert done.stderr == b"error: \\xf6\n"


def test_a_latin1_terminal():
    done = run(capture_output=True, env=os.environ | {"PYTHONIOENCODING": "latin-1"})
    assert done.stdout.decode("latin-1").splitlines()[0] == PLAIN.replace(r"\xf6", "ö")


@pytest.mark.parametrize("number", [1, 2])
def test_a_closed_stream(number):
    """Nothing is printed there, and no file gets its number, which libraries would write to."""
    command = ["sh", "-c", f'exec "$0" -c "$1" {number}>&-', sys.executable, SCRIPT]
    assert subprocess.run(command, cwd=ROOT, timeout=60).returncode > 2


def test_a_broken_pipe():
    read, write = os.pipe()
    os.close(read)
    done = run(stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert done.returncode > 2
    assert done.stderr.decode().splitlines() == ["error: ö"]


def test_log_without_prepared_streams(monkeypatch):
    """As in a script of a user's own."""
    bytes_written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(bytes_written, encoding="ascii"))
    log("a → ö")
    assert bytes_written.getvalue() == b"a -> \\xf6\n"
    monkeypatch.setattr(sys, "stdout", None)
    log("nowhere")
    print_line("nowhere", None)


def test_the_handler_replaces_characters_of_encoding_alone():
    with pytest.raises(UnicodeDecodeError):
        terminal._in_plain_letters(UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"))
