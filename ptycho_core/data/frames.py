"""Where the frames of a scan live: in memory or on disk, as counts or as amplitudes.

A source hands out float32 photon counts for the frames asked for, and nothing else; squaring an amplitude and casting
happen here, once, never in the stored type (squaring uint16 values would overflow). Counts are whole again when they
were: a stored √k gives k itself, see :func:`rounding`. Sources on disk hold a path, not an open file, so that they can
be pickled to a worker process.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["ArrayFrames", "FrameSource", "Hdf5Frames", "NpzFrames", "SubsetFrames", "TransposedFrames", "rounding"]

_ROUNDINGS = 2.0
_BLOCK = 2**14  # values squared at once: what lies between stays in the cache


class FrameSource(Protocol):
    """Frames by number.

    ``shape`` is (M, N, N); ``read`` returns (n, N, N) float32 counts for n frame numbers, as a fresh array.
    """

    @property
    def shape(self) -> tuple[int, int, int]: ...  # noqa: D102

    def read(self, frame_numbers: NDArray[np.int64]) -> NDArray[np.float32]: ...  # noqa: D102


def rounding(dtype: DTypeLike) -> float:
    """How far from a whole number k, relative to k, the square of a root √k may lie that was stored rounded.

    It is 2 ε of the stored type: the root is off by ε/2, its square by ε, and by ε/2 more when it is rounded itself. A
    wider type may hold what was a float32 before, so ε is never below float32's. Float32 roots lead back to every k up
    to 2²² (neighbours share a root from there on), float64 ones to every k that float32 holds, float16 ones to 2⁸.

    Args:
        dtype: of the roots, or of squares that somebody stored.
    """
    half = np.dtype(dtype) == np.float16
    return _ROUNDINGS * float(np.finfo(np.float16 if half else np.float32).eps)


def _as_counts(values: NDArray[Any], measurement: str) -> NDArray[np.float32]:
    """Counts of stored values; squares that rounding alone can have kept from being whole numbers become whole."""
    if measurement != "amplitude":
        return np.array(values, dtype=np.float32)
    counts, stored = np.empty(values.size, dtype=np.float32), values.reshape(-1)
    wide, tolerance = np.result_type(values.dtype, np.float32), rounding(values.dtype)
    for start in range(0, values.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        with np.errstate(invalid="ignore", over="ignore"):  # bad pixels may hold anything
            squares = np.square(stored[block], dtype=wide)
            whole = np.rint(squares)
            squares -= whole
            squares *= np.abs(squares) > tolerance * whole
            np.add(whole, squares, out=counts[block], casting="same_kind")
    return counts.reshape(values.shape)


@dataclass(frozen=True)
class ArrayFrames:
    """Frames in memory; `values` is (M, N, N), counts or amplitudes as `measurement` says."""

    values: NDArray[Any]
    measurement: str = "counts"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(M, N, N)."""
        return self.values.shape

    def read(self, frame_numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        """Counts (n, N, N) float32 of the numbered frames."""
        return _as_counts(self.stored(frame_numbers), self.measurement)

    def stored(self, frame_numbers: NDArray[np.int64]) -> NDArray[Any]:
        """The numbered frames as they are stored, (n, N, N)."""
        return self.values[frame_numbers]


@dataclass(frozen=True)
class NpzFrames:
    """Frames in an uncompressed NPZ member, read through a memory map at `offset` bytes into the file.

    `axes` is the permutation that brings the stored axes to (M, N, N).
    """

    path: Path
    offset: int
    dtype: str
    stored_shape: tuple[int, int, int]
    fortran_order: bool = False
    axes: tuple[int, int, int] = (0, 1, 2)
    measurement: str = "counts"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(M, N, N)."""
        a, b, c = (self.stored_shape[i] for i in self.axes)
        return a, b, c

    def read(self, frame_numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        """Counts (n, N, N) float32 of the numbered frames."""
        return _as_counts(self.stored(frame_numbers), self.measurement)

    def stored(self, frame_numbers: NDArray[np.int64]) -> NDArray[Any]:
        """The numbered frames as they are stored, (n, N, N)."""
        order = "F" if self.fortran_order else "C"
        mapped = np.memmap(self.path, self.dtype, "r", self.offset, self.stored_shape, order)  # type: ignore[call-overload]
        return np.asarray(mapped.transpose(self.axes)[frame_numbers])


@dataclass(frozen=True)
class Hdf5Frames:
    """Frames in an HDF5 dataset of shape (M, N, N); the file is opened for each read and closed again."""

    path: Path
    dataset: str
    stored_shape: tuple[int, int, int]
    measurement: str = "counts"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(M, N, N)."""
        return self.stored_shape

    def read(self, frame_numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        """Counts (n, N, N) float32 of the numbered frames."""
        import h5py
        import hdf5plugin  # noqa: F401  registers the compression filters detectors use

        # h5py wants increasing, unique selections
        unique, inverse = np.unique(frame_numbers, return_inverse=True)
        with h5py.File(self.path, "r") as file:
            values = file[self.dataset][unique]
        return _as_counts(values[inverse], self.measurement)


@dataclass(frozen=True)
class SubsetFrames:
    """Some frames of another source, renumbered; `numbers` (M',) int64 are frame numbers of `base`."""

    base: FrameSource
    numbers: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(M', N, N)."""
        return (len(self.numbers), *self.base.shape[1:])

    def read(self, frame_numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        """Counts (n, N, N) float32 of the numbered frames."""
        return self.base.read(self.numbers[frame_numbers])


@dataclass(frozen=True)
class TransposedFrames:
    """Another source with the two axes of every frame exchanged."""

    base: FrameSource

    @property
    def shape(self) -> tuple[int, int, int]:
        """(M, N, N)."""
        M, height, width = self.base.shape
        return M, width, height

    def read(self, frame_numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        """Counts (n, N, N) float32 of the numbered frames."""
        return np.ascontiguousarray(self.base.read(frame_numbers).swapaxes(1, 2))
