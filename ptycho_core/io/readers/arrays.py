"""Arrays by name, whatever file they lie in: HDF5, NPZ, NPY, Zarr or MAT of version 5.

What a mapping names, what a draft of one lists, and what readers of bare arrays read is the same for all of them: a
shape, a type, a unit where the file states one, values, and a part of the values without the rest.
"""

from __future__ import annotations

import ast
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from ..candidate import Candidate
from ..h5_names import names_in
from ..h5_values import dataset_at, item_at, open_h5, units_of
from .array_header import ArrayHeader, absent
from .zarr_arrays import ZarrArrays, check_store

__all__ = [
    "ArrayFile",
    "ArrayHeader",
    "Hdf5Arrays",
    "Loaded",
    "MatArrays",
    "NpyArrays",
    "NpzArrays",
    "RawArray",
    "ZarrArrays",
    "arrays_of",
    "is_mat",
    "is_npy",
    "shape_in",
    "zarr_kind",
]

_MAT = b"MATLAB 5.0 MAT-file"
_NPY = b"\x93NUMPY"
_ZARR = ("zarr.json", ".zgroup", ".zarray")


class ArrayFile(Protocol):
    """Arrays by name; holds a path and no open file, so that it can be pickled to a worker."""

    @property
    def path(self) -> Path:
        """The file."""

    def headers(self) -> dict[str, ArrayHeader]:
        """Every array in it, by name, in the file's order."""

    def header(self, name: str) -> ArrayHeader:
        """One array; a name that is not there is a DataError with those that are."""

    def opened(self, name: str) -> Any:
        """Context manager of one array, whose parts are read as they are asked for by ``array[index]``."""

    def attribute(self, place: str, name: str) -> Any:
        """Attribute of a group or an array, or None where there is none; most containers have none at all."""


@dataclass(frozen=True)
class Hdf5Arrays:
    """Datasets of an HDF5 file, those behind links too; `follow` reads one that is still being written."""

    path: Path
    follow: bool = False

    def headers(self) -> dict[str, ArrayHeader]:
        """Every dataset that can be opened; a link that leads nowhere is named when it is asked for."""
        with open_h5(self.path, self.follow) as h5:
            return {name: _hdf5_header(h5[name]) for name, text in names_in(h5).shapes.items() if text.startswith("(")}

    def header(self, name: str) -> ArrayHeader:
        """One dataset."""
        with self.opened(name) as dataset:
            return _hdf5_header(dataset)

    @contextmanager
    def opened(self, name: str) -> Iterator[Any]:
        """One dataset, open."""
        with open_h5(self.path, self.follow) as h5:
            dataset = dataset_at(h5, name)
            if dataset is None:
                raise absent(self.path, name, self.headers())
            yield dataset

    def attribute(self, place: str, name: str) -> Any:
        """Attribute of a group or dataset, or None."""
        with open_h5(self.path, self.follow) as h5:
            item = item_at(h5, place) if place else h5
            return None if item is None else item.attrs.get(name)


def _hdf5_header(dataset: Any) -> ArrayHeader:
    return ArrayHeader(tuple(dataset.shape or ()), dataset.dtype, units_of(dataset))


@dataclass(frozen=True)
class NpzArrays:
    """Members of an NPZ; those that lie uncompressed are mapped from disk, others are loaded whole."""

    file: Candidate

    @property
    def path(self) -> Path:
        """The archive."""
        return self.file.path

    def headers(self) -> dict[str, ArrayHeader]:
        """Every member."""
        return {name: ArrayHeader(member.shape, member.dtype) for name, member in self.file.members.items()}

    def header(self, name: str) -> ArrayHeader:
        """One member."""
        if name not in self.file.members:
            raise absent(self.path, name, self.file.members)
        member = self.file.members[name]
        return ArrayHeader(member.shape, member.dtype)

    @contextmanager
    def opened(self, name: str) -> Iterator[Any]:
        """One member, mapped or loaded."""
        self.header(name)
        member = self.file.members[name]
        if member.offset is None or 0 in member.shape:
            yield self.file.load(name)
        else:
            order = "F" if member.fortran_order else "C"
            yield np.memmap(self.path, member.dtype, "r", member.offset, member.shape, order)  # type: ignore[call-overload]

    def attribute(self, place: str, name: str) -> Any:
        """None: such a file has no attributes."""
        return None


@dataclass(frozen=True)
class NpyArrays:
    """The one array of an NPY file, mapped from disk; it is called ``array``."""

    path: Path

    def headers(self) -> dict[str, ArrayHeader]:
        """The array."""
        with self.opened("array") as array:
            return {"array": ArrayHeader(array.shape, array.dtype)}

    def header(self, name: str) -> ArrayHeader:
        """The array."""
        if name != "array":
            raise absent(self.path, name, ["array"])
        return self.headers()["array"]

    @contextmanager
    def opened(self, name: str) -> Iterator[Any]:
        """The array, mapped."""
        try:
            array = np.lib.format.open_memmap(self.path, mode="r")  # never unpickles
        except (OSError, ValueError, EOFError, SyntaxError) as error:
            raise DataError(f"{self.path}: cannot be read ({error}); save it again with np.save.") from error
        yield array

    def attribute(self, place: str, name: str) -> Any:
        """None: such a file has no attributes."""
        return None


@dataclass(frozen=True)
class RawArray:
    """The values of one array in C order, mapped from disk at `offset` bytes into a file; it is called ``frames``."""

    path: Path
    of: ArrayHeader
    offset: int = 0

    def headers(self) -> dict[str, ArrayHeader]:
        """The array."""
        return {"frames": self.of}

    def header(self, name: str) -> ArrayHeader:
        """The array."""
        if name != "frames":
            raise absent(self.path, name, ["frames"])
        return self.of

    @contextmanager
    def opened(self, name: str) -> Iterator[Any]:
        """The array, mapped."""
        yield np.memmap(self.path, self.header(name).dtype, "r", self.offset, self.of.shape)

    def attribute(self, place: str, name: str) -> Any:
        """None: such a file has no attributes."""
        return None


@dataclass(frozen=True)
class MatArrays:
    """Variables of a MAT file of version 5 (up to 7), loaded whole: MATLAB compresses them as one stream."""

    path: Path

    def headers(self) -> dict[str, ArrayHeader]:
        """Every variable that is an array of numbers or text; fields of a structure as ``structure/field``."""
        return {name: ArrayHeader(values.shape, values.dtype) for name, values in self._all().items()}

    def header(self, name: str) -> ArrayHeader:
        """One variable."""
        with self.opened(name) as values:
            return ArrayHeader(values.shape, values.dtype)

    @contextmanager
    def opened(self, name: str) -> Iterator[Any]:
        """One variable."""
        found = self._all()
        if name not in found:
            raise absent(self.path, name, found)
        yield found[name]

    def loaded(self) -> Loaded:
        """Every variable, read once."""
        return Loaded(self.path, self._all())

    def unread(self) -> list[str]:
        """Variables that are no arrays of numbers or text: cells, objects, handles, arrays of structures."""
        unread: list[str] = []
        self._all(unread)
        return unread

    def _all(self, unread: list[str] | None = None) -> dict[str, NDArray[Any]]:
        from scipy.io import loadmat
        from scipy.io.matlab import MatlabFunction, MatlabObject, MatlabOpaque, MatReadError

        try:
            with warnings.catch_warnings():  # that a variable is an object is said by its name
                warnings.simplefilter("ignore")
                content = loadmat(self.path, struct_as_record=True, squeeze_me=False)
        except (OSError, ValueError, TypeError, MatReadError, NotImplementedError) as error:
            raise DataError(f"{self.path}: the MAT file cannot be read ({error}); save it again with -v7.3.") from error
        found: dict[str, NDArray[Any]] = {}
        others = [] if unread is None else unread
        for name, values in content.items():
            if isinstance(values, (MatlabFunction, MatlabObject, MatlabOpaque)):
                others.append(name)
            elif not name.startswith("__"):
                _unfold(name, np.asarray(values), found, others)
        return found

    def attribute(self, place: str, name: str) -> Any:
        """None: such a file has no attributes."""
        return None


def _unfold(name: str, values: NDArray[Any], found: dict[str, NDArray[Any]], others: list[str]) -> None:
    """Take a structure of one element apart; cells and arrays of structures are no arrays of numbers."""
    if values.dtype.names is not None and values.size == 1:
        for field in values.dtype.names:
            _unfold(f"{name}/{field}", np.asarray(values.ravel()[0][field]), found, others)
    elif values.dtype.kind in "OV":
        others.append(name)
    else:
        found[name] = values


@dataclass(frozen=True)
class Loaded:
    """Arrays in memory, of a file that gives them whole only."""

    path: Path
    values: dict[str, NDArray[Any]]

    def headers(self) -> dict[str, ArrayHeader]:
        """Every array."""
        return {name: ArrayHeader(values.shape, values.dtype) for name, values in self.values.items()}

    def header(self, name: str) -> ArrayHeader:
        """One array."""
        with self.opened(name) as values:
            return ArrayHeader(values.shape, values.dtype)

    @contextmanager
    def opened(self, name: str) -> Iterator[Any]:
        """One array."""
        if name not in self.values:
            raise absent(self.path, name, self.values)
        yield self.values[name]

    def attribute(self, place: str, name: str) -> Any:
        """None: such a file has no attributes."""
        return None


def _starts(path: Path, magic: bytes) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(len(magic)) == magic


def is_npy(file: Candidate) -> bool:
    """Whether a file is one NumPy array, by its first bytes."""
    return file.kind == "other" and _starts(file.path, _NPY)


def is_mat(file: Candidate) -> bool:
    """Whether a file is a MAT file of version 5 to 7, by its first bytes; those of version 7.3 are HDF5."""
    return file.kind == "other" and _starts(file.path, _MAT)


def zarr_kind(file: Candidate) -> str:
    """``folder`` or ``zip`` for a Zarr store, else an empty text."""
    if file.kind == "folder" and file.path.is_dir() and any((file.path / name).is_file() for name in _ZARR):
        return "folder"
    if file.kind == "npz" and not file.names and file.content is None and zipfile.is_zipfile(file.path):
        with zipfile.ZipFile(file.path) as archive:
            return "zip" if set(_ZARR) & set(archive.namelist()) else ""
    return ""


def arrays_of(file: Candidate, follow: bool = False) -> ArrayFile | None:
    """The arrays of an examined file, or None where it is no container of arrays.

    Args:
        file: an examined file.
        follow: whether an HDF5 file may still be being written.
    """
    kind = zarr_kind(file)
    if kind == "folder":
        check_store(file.path)
    if kind:
        return ZarrArrays(file.path)
    if file.kind == "hdf5":
        return Hdf5Arrays(file.path, follow)
    if file.kind == "npz":
        return NpzArrays(file)
    if is_npy(file):
        return NpyArrays(file.path)
    return MatArrays(file.path) if is_mat(file) else None


def shape_in(file: Candidate, name: str) -> tuple[int, ...]:
    """Shape of an array of an examined HDF5 or NPZ file, from what the examination noted; nothing is opened."""
    head, closed, _ = file.shapes.get(name, "()").partition(")")
    shape = ast.literal_eval(head + closed) if head.startswith("(") and closed else ()
    return tuple(int(n) for n in shape)
