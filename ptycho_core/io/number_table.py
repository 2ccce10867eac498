"""Small files of numbers that lie beside a scan: positions, frame numbers, masks, backgrounds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..text import listed
from .guarded import in_child
from .regular import check_regular

__all__ = ["Table", "read_array", "read_numbers", "read_table"]

_MAX_BYTES = 2**28


@dataclass(frozen=True)
class Table:
    """Columns of a text file.

    Attributes:
        names: of the columns, as they stand above them; empty where there are none.
        values: (n, k) float64.
    """

    names: tuple[str, ...]
    values: NDArray[np.float64]


def _size_checked(path: Path) -> None:
    check_regular(path, what="a file of numbers")
    try:
        size = path.stat().st_size
    except (OSError, ValueError) as error:  # a name with a null character
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be read ({reason}); check its name.") from error
    if size > _MAX_BYTES:
        raise DataError(f"{path}: has {size} bytes; a file of numbers has {_MAX_BYTES} at most.")


def read_table(path: Path) -> Table:
    """Read a text file of numbers in columns, parted by commas, semicolons, tabs or blanks; ``#`` begins a comment.

    The names of the columns are in the last line above the numbers that has as many words as there are columns; what
    else stands there is a title.

    Raises:
        DataError: it cannot be read, or holds anything but numbers under some lines of text.
    """
    _size_checked(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: is no text file of numbers ({type(error).__name__}); give text with columns of numbers, or .npy."
        ) from error
    heads: list[str] = []
    rows: list[list[float]] = []
    for number, line in enumerate(lines, 1):
        words = line.split("#")[0].replace(",", " ").replace(";", " ").split()
        if not words:
            heads += [] if rows else [line.lstrip("# ")]
            continue
        try:
            rows.append([float(word) for word in words])
        except ValueError as error:
            if rows:
                raise DataError(
                    f"{path}: line {number} is {line.strip()[:60]!r}; it must hold numbers only."
                ) from error
            heads.append(line.split("#")[0])
    if not rows or any(len(row) != len(rows[0]) for row in rows):
        raise DataError(
            f"{path}: {len(rows)} lines of numbers, which differ in length; each line must have the same columns."
            if rows
            else f"{path}: holds no line of numbers; give text with columns of numbers."
        )
    values = np.array(rows, np.float64)
    names = (found for head in reversed(heads) if (found := _names(head, values.shape[1])))
    return Table(next(names, ()), values)


def _names(head: str, columns: int) -> tuple[str, ...]:
    """Names of the columns in the line above them, parted by marks or, where that gives another number, by blanks."""
    for marks in (r"[,;\t]+", r"[\s,;]+", r"\s{2,}"):
        names = tuple(filter(None, (part.strip(" \t\"'") for part in re.split(marks, head.strip()))))
        if len(names) == columns:
            return names
    return ()


def read_array(path: Path) -> NDArray[Any]:
    """One array from a file: ``.npy``, an NPZ with one array, or text.

    Raises:
        DataError: it cannot be read; HDF5 and images are read by ``io.planes``.
    """
    _size_checked(path)
    with path.open("rb") as stream:
        magic = stream.read(6)
    try:
        if magic == b"\x93NUMPY":
            return np.asarray(np.load(path, allow_pickle=False))
        if magic[:4] == b"PK\x03\x04":
            with np.load(path, allow_pickle=False) as archive:
                if len(archive.files) != 1:
                    raise DataError(f"{path}: holds {listed(archive.files)}; give a file with one array.")
                return np.asarray(archive[archive.files[0]])
    except DataError:
        raise
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: cannot be read ({error}); save it again with np.save.") from error
    return read_table(path).values


def read_numbers(path: Path, what: str) -> NDArray[np.int64]:
    """Whole numbers (n,) from a file.

    Args:
        path: the file.
        what: the option, for messages.

    Raises:
        DataError: it holds other numbers.
    """
    values = np.asarray(in_child(read_array, path, about=path)).ravel()
    if values.dtype.kind not in "iuf" or not np.array_equal(values, np.rint(values)):
        raise DataError(f"{path}: --{what} needs whole numbers; found {values.dtype} such as {values[:1].tolist()}.")
    return values.astype(np.int64)
