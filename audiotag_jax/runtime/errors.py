"""The exceptions that carry a message for the person at the keyboard."""


class UserError(Exception):
    """Something the user can mend; `main` prints the message, one or two lines, without a traceback."""


class Diverged(UserError):
    """A training whose numbers are no longer finite."""


class Stopped(Exception):
    """The process was told to end, and has saved what it needs to continue."""
