"""The one exception that carries a message for the person at the keyboard."""


class UserError(Exception):
    """Something the user can mend; `main` prints the message, one or two lines, without a traceback."""
