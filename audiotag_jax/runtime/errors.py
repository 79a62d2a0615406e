"""Exceptions whose message is meant for the user."""


class UserError(Exception):
    """An error that the user can fix; `main` prints the message, one or two lines, without a traceback."""


class Diverged(UserError):
    """Training has diverged: its loss, gradients or logits are not finite."""


class Stopped(Exception):
    """The process has received SIGTERM and saved what it needs to resume."""
