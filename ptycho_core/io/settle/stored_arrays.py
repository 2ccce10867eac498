"""The arrays of a file of positions behind one face: names, shapes, numbers, units, single numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from ..candidate import Candidate, examine
from ..readers.array_header import read_whole
from ..readers.arrays import ArrayFile, ArrayHeader, Loaded, arrays_of
from ..readers.product import number_in
from .named_axes import unit_in

__all__ = ["StoredArrays", "arrays_in"]

_MAGIC = (b"\x93NUMPY", b"MATLAB 5.0 MAT-file")
_PIXELS = ("px", "pixel", "pixels")


@dataclass(frozen=True)
class StoredArrays:
    """Arrays by name.

    Attributes:
        path: the file.
        kind: ``npz``, ``hdf5`` or ``other`` (NPY, MAT of version 5).
        headers: name → shape, type and unit.
        arrays: where they are read from.
        candidate: the file as it was examined.
    """

    path: Path
    kind: str
    headers: dict[str, ArrayHeader]
    arrays: ArrayFile
    candidate: Candidate

    @property
    def names(self) -> tuple[str, ...]:
        """Of the arrays."""
        return tuple(self.headers)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name → shape."""
        return {name: header.shape for name, header in self.headers.items()}

    @property
    def word(self) -> str:
        """What an array is called in such a file."""
        return {"hdf5": "dataset", "npz": "key"}.get(self.kind, "array")

    def numbers(self, name: str) -> NDArray[Any]:
        """Real numbers of an array.

        Raises:
            DataError: there is none of that name, or it holds anything else.
        """
        with self.arrays.opened(name.strip("/")) as array:
            values = read_whole(array, self.path, name)
        if values.dtype.kind not in "biuf":
            raise DataError(f"{self.path}: {name!r} holds {values.dtype} values; it must hold real numbers.")
        return values

    def unit(self, name: str) -> str:
        """Unit of an array, by its ``units`` attribute or its name; an empty text where neither says."""
        stated = self.arrays.header(name.strip("/")).unit
        if stated:
            return "px" if stated.lower() in _PIXELS else stated
        return unit_in(name.rsplit("/", 1)[-1])

    def scalar(self, name: str, of: str = "") -> float | None:
        """One number by its name: a dataset, key or attribute (of the file, or of `of`); None where it is not there."""
        return number_in(self.arrays, self.headers, name, of)


def arrays_in(path: Path) -> StoredArrays | None:
    """The arrays of a file, or None where it is text.

    Raises:
        DataError: it is missing, damaged, or of a kind that holds no arrays.
    """
    file = examine(path)
    if file is None:
        with path.open("rb") as stream:
            if not stream.read(20).startswith(_MAGIC):
                return None
        file = Candidate(path, "other", (), {})
    arrays = arrays_of(file)
    if arrays is None:
        raise DataError(f"{path}: is a {file.kind}; positions are read from text, NumPy, NPZ, MAT or HDF5.")
    if file.kind == "other":
        arrays = Loaded(path, {name: _whole(arrays, name) for name in arrays.headers()})
    return StoredArrays(path, file.kind, arrays.headers(), arrays, file)


def _whole(arrays: ArrayFile, name: str) -> NDArray[Any]:
    with arrays.opened(name) as array:
        return np.array(read_whole(array, arrays.path, name))
