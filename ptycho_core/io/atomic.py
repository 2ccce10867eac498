"""Atomic output: every file is written under a temporary name, flushed to disk and renamed.

A killed process leaves the old file or the new one, never a half of either.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import OutputError

__all__ = ["atomic_path", "ensure_output_folder", "write_bytes", "write_text"]


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block ends well, remove it otherwise.

    Raises:
        OutputError: the folder is missing or cannot be written.
    """
    target = Path(path)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=f".partial{target.suffix}", dir=target.parent)
        os.close(handle)
    except OSError as error:
        raise OutputError(
            f"{target}: cannot write there ({error.strerror}); choose a folder that exists and is writable."
        ) from error
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes private files; a result is shared like any other file
        os.replace(temporary, target)
    except OutputError:
        raise  # of a file written inside this block: it names the culprit already
    except OSError as error:
        raise OutputError(f"{target}: writing failed ({error.strerror or error}); nothing was replaced.") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path | str, content: bytes) -> None:
    """Write a file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path | str, content: str) -> None:
    """Write a UTF-8 text file atomically."""
    write_bytes(path, content.encode("utf-8"))


def ensure_output_folder(path: Path | str) -> Path:
    """Make an output folder, and prove that it can be written, before hours are spent on its content.

    Raises:
        OutputError: it cannot be made or written.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(
            f"{folder}: the output folder cannot be written ({error.strerror}); choose another with --out."
        ) from error
    return folder
