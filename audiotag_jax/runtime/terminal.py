"""Standard streams on which printing never fails: closed ones, broken pipes, terminals that lack a character."""

import codecs
import contextlib
import io
import os
import sys
from typing import TextIO

_PLAIN = {"→": "->", "…": "...", "–": "-", "−": "-", "×": "x"}
_HANDLER = "audiotag_plain"


def prepare_streams() -> None:
    """Replaces closed standard streams by the null device, and characters that the others lack by plain ones.

    A closed one would be None, and its number that of the next file that is opened.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number: this one
    sys.stdout = sys.stdout or _open_null()
    sys.stderr = sys.stderr or _open_null()
    codecs.register_error(_HANDLER, _in_plain_letters)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def print_line(text: str, stream: TextIO | None) -> None:
    """Prints a line at once; one that nobody reads any more (a broken pipe) is discarded, as are all after it."""
    if stream is None:
        return
    try:
        try:
            stream.write(text + "\n")
        except UnicodeEncodeError:  # where nobody called `prepare_streams`
            codecs.register_error(_HANDLER, _in_plain_letters)
            encoding = stream.encoding or "ascii"
            stream.write(text.encode(encoding, _HANDLER).decode(encoding) + "\n")
        stream.flush()
    except BrokenPipeError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # also for what the exit would flush


def _open_null() -> TextIO:
    return open(os.devnull, "w")  # noqa: PTH123, SIM115


def _in_plain_letters(error: UnicodeError) -> tuple[str, int]:
    """Replaces what cannot be encoded (codec error handler): arrows and dashes by ASCII, others by escape sequences."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    return "".join(_PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode() for c in characters), error.end
