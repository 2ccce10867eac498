"""How an HDF5 file is opened for reading, in one place for headers and frames: locked, still written, or whole.

A program that writes a file holds a lock on it, or leaves a mark in it. Only a file that is written in SWMR mode
(single writer, multiple readers) can be read meanwhile, and what is read then is what lies there up to now.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import DataError

__all__ = ["open_h5"]

_HELD = ("unable to lock file", "already open for write", "already open for SWMR write")


@contextmanager
def open_h5(path: Path | str, follow: bool = False) -> Iterator[Any]:
    """Open an HDF5 file for reading, with the compression filters that detectors use.

    Args:
        path: the file.
        follow: read a file that is still being written, as far as it is there (SWMR).

    Yields:
        The ``h5py.File``. Its ``swmr_mode`` is True where the file is still being written.

    Raises:
        DataError: it is still being written, and `follow` is not asked for, or its writer lets nobody read meanwhile.
        OSError: it is no HDF5 file, or damaged.
    """
    import h5py
    import hdf5plugin  # noqa: F401  registers the compression filters detectors use

    # a disk that knows no locks is no reason not to read from it
    options: dict[str, Any] = {"locking": "best-effort"}
    try:
        file = h5py.File(path, "r", **options)
    except OSError as error:
        if not any(words in str(error) for words in _HELD):
            raise
        if not follow:
            raise DataError(
                f"{path}: is still being written, or its writer ended without closing it ({_why(error)}). Wait until "
                "it is closed, or read it up to its last whole frame with --follow."
            ) from error
        try:
            file = h5py.File(path, "r", swmr=True, **options)
        except OSError as second:
            raise DataError(
                f"{path}: is still being written by a program that lets nobody read meanwhile ({_why(second)}); "
                "--follow needs a file written in SWMR mode. Wait until it is closed, or copy it."
            ) from second
    with file:
        yield file


def _why(error: OSError) -> str:
    """The words of the library in parentheses, the advice to clear the marks of a file left out."""
    text = str(error)
    inner = text[text.find("(") + 1 :].rstrip(")") or text
    return inner.partition(" (may use")[0].partition(", errno")[0]
