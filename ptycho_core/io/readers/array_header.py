"""What is known of an array in a file without its values."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError, suggest
from ...limits import MEGABYTE, limits_at_work
from ...text import listed

__all__ = ["ArrayHeader", "absent", "read_whole"]


@dataclass(frozen=True)
class ArrayHeader:
    """What is known of an array without its values.

    Attributes:
        shape: as stored.
        dtype: as stored.
        unit: text of its ``units`` attribute, or empty.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    unit: str = ""


def read_whole(array: Any, path: Path, name: str) -> NDArray[Any]:
    """All values of an array of any container, compared with what may be read whole before they are asked for.

    Raises:
        DataError: it states more.
    """
    if type(array) is np.ndarray:  # in memory already
        return array
    most, shape = limits_at_work().array_bytes, tuple(array.shape or ())
    n_bytes = math.prod(shape) * int(np.dtype(array.dtype).itemsize)
    if n_bytes > most:
        raise DataError(
            f"{path}: {name!r} is {shape} {array.dtype}, {n_bytes / MEGABYTE:.4g} MB; at most {most / MEGABYTE:.4g} MB "
            "are read at once. If it does hold that much, allow more with --max_memory (Limits.memory_mb)."
        )
    return np.asarray(array[()] if shape == () else array[...])


def absent(path: Path, name: str, names: Iterable[str]) -> DataError:
    """The error for an array that is not there: which are, and the nearest name."""
    held = listed(sorted(names)) or "nothing"
    return DataError(f"{path}: holds no array {name!r}. It holds: {held}.{suggest(name, names)}")
