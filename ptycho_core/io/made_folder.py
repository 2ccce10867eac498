"""Folders that a command makes for what it writes, and unmakes where nothing comes of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import OutputError
from .result_names import LOG_NAME

__all__ = ["as_output_error", "make_folder", "remove_made"]


def make_folder(folder: Path, made: list[Path]) -> None:
    """Make a folder and its parents, and put those that were not there into `made`, the innermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    with as_output_error(folder, "choose a folder that can be made and written with --out."):
        for path in reversed(missing):
            path.mkdir()
            made.insert(0, path)
        if not folder.is_dir():
            raise OutputError(f"{folder}: is a file; choose a folder with --out.")


def remove_made(made: Sequence[Path]) -> None:
    """Remove the folders that a failed command made, if it left no file in them but the log."""
    if not made:
        return
    folder = made[0]
    if any(path != folder / LOG_NAME and (path.is_symlink() or not path.is_dir()) for path in folder.rglob("*")):
        return
    with suppress(OSError):
        (folder / LOG_NAME).unlink(missing_ok=True)
        for root, _, _ in os.walk(folder, topdown=False):
            os.rmdir(root)
        for path in made[1:]:
            path.rmdir()


@contextmanager
def as_output_error(path: Path, end: str) -> Iterator[None]:
    """Say of what the operating system refuses in the block that `path` cannot be written, and `end`."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error}); {end}") from error
