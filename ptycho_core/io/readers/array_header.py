"""What is known of an array in a file without its values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError, suggest

__all__ = ["ArrayHeader", "absent"]


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


def absent(path: Path, name: str, names: Iterable[str]) -> DataError:
    """The error for an array that is not there: which are, and the nearest name."""
    held = ", ".join(sorted(names)) or "nothing"
    return DataError(f"{path}: holds no array {name!r}. It holds: {held}.{suggest(name, names)}")
