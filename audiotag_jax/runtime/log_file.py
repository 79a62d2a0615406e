"""Writes the log records of libraries to a file of the work directory instead of the terminal."""

import logging
from pathlib import Path

FILE_NAME = "log.txt"


class LogFile(logging.Handler):
    """Appends warnings to `directory/log.txt`, and buffers them until that directory exists.

    A command that creates no directory, or cannot write to it, leaves no file.
    """

    def __init__(self, directory: Path):
        super().__init__(logging.WARNING)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self._directory = directory
        self._buffer: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        """Drops what TFDS warns of at every dataset that is named by a hash."""
        return super().filter(record) and not record.getMessage().startswith("Using custom data configuration")

    def emit(self, record: logging.LogRecord) -> None:
        self._buffer.append(self.format(record) + "\n")
        if self._directory.is_dir():
            try:
                with (self._directory / FILE_NAME).open("a", encoding="utf-8", errors="replace") as file:
                    file.writelines(self._buffer)
            except OSError:
                return
            self._buffer.clear()


def log_to_file(directory: Path | None) -> None:
    """Redirects the log of all libraries and Python's warnings to a `LogFile`; discards them if `directory` is None."""
    handler = logging.NullHandler() if directory is None else LogFile(directory)
    logging.getLogger().handlers[:] = [handler]
    logging.captureWarnings(True)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # logs an error for each event loop that an exit interrupts
