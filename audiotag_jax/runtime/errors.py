"""Exceptions whose message is meant for the user, and those that files raise."""

import zipfile
import zlib

# What `np.load` and the reading of an array raise where the file is missing, damaged, or lacks the array.
NPZ_ERRORS = (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


class UserError(Exception):
    """An error that the user can fix; `main` prints the message, one or two lines, without a traceback."""


class Diverged(UserError):
    """Training has diverged: its loss, gradients or logits are not finite."""


class Stopped(Exception):
    """The process has received SIGTERM and saved what it needs to resume."""
