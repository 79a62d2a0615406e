"""What libraries log, kept in a file of the work directory instead of on the screen."""

import logging
from pathlib import Path

FILE_NAME = "log.txt"


class LogFile(logging.Handler):
    """Appends warnings to `directory/log.txt`, once that directory is there; until then it keeps them.

    A command that makes no directory, or has no right to write to it, leaves no file.
    """

    def __init__(self, directory: Path):
        super().__init__(logging.WARNING)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self._directory = directory
        self._waiting: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._waiting.append(self.format(record) + "\n")
        if self._directory.is_dir():
            try:
                with (self._directory / FILE_NAME).open("a", encoding="utf-8", errors="replace") as file:
                    file.writelines(self._waiting)
            except OSError:
                return
            self._waiting.clear()


def log_to_file(directory: Path | None) -> None:
    """Sends what all libraries log, and Python's warnings, to a `LogFile` in place of the screen; None: nowhere."""
    handler = logging.NullHandler() if directory is None else LogFile(directory)
    logging.getLogger().handlers[:] = [handler]
    logging.captureWarnings(True)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # it complains of loops that an exit cuts off
