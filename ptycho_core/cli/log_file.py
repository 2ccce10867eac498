"""The log file of a command: a record that helps, and never what a command fails by."""

from __future__ import annotations

import io
import logging
from pathlib import Path

__all__ = ["LogFile"]


class LogFile(logging.FileHandler):
    """A log file that goes on where a line cannot be written: a full disk costs lines and is told once.

    ``logging`` prints a traceback for every line that it cannot write, and its stream keeps such a line and fails with
    it again when it is closed. This one writes each line at once and holds nothing back.

    Attributes:
        lost: lines that could not be written.
    """

    def __init__(self, path: Path) -> None:
        """Begin, or go on with a file that is there.

        Raises:
            OSError: it cannot be opened.
        """
        self.lost = 0
        super().__init__(path, mode="a", encoding="utf-8", errors="backslashreplace")

    def _open(self) -> io.TextIOWrapper:
        raw = open(self.baseFilename, "ab", buffering=0)  # noqa: SIM115 (closed with the handler)
        # the type wants a buffered file; with write_through nothing is asked of it that a raw one lacks
        return io.TextIOWrapper(raw, encoding=self.encoding, errors=self.errors, write_through=True)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, and say on the next one that can be written how many could not."""
        lost, self.lost = self.lost, 0
        if lost:
            text = f"{lost} line(s) of this log could not be written"
            super().emit(logging.LogRecord(record.name, logging.WARNING, record.pathname, 0, text, None, None))
            self.lost = lost if self.lost else 0
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Count a line that could not be written."""
        self.lost += 1

    def close(self) -> None:
        """Close the file, whatever becomes of it."""
        try:
            super().close()
        except OSError:
            self.lost += 1
