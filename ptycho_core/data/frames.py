"""Where the frames of a scan live: in memory or on disk, as counts or as amplitudes.

A source hands out float32 photon counts for the frames asked for, and nothing else; squaring an amplitude and casting
happen here, once, after the cast to float32 (squaring uint16 values first would overflow). Sources on disk hold a path,
not an open file, so that they can be pickled to a worker process.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["ArrayFrames", "FrameSource", "Hdf5Frames", "NpzFrames", "SubsetFrames", "TransposedFrames"]


class FrameSource(Protocol):
    """Frames by number.

    ``shape`` is (M, N, N); ``read`` returns (n, N, N) float32 counts for n frame numbers, as a fresh array.
    """

    @property
    def shape(self) -> tuple[int, int, int]: ...  # noqa: D102

    def read(self, frame_numbers: NDArray[np.int64]) -> NDArray[np.float32]: ...  # noqa: D102


def _as_counts(values: NDArray[Any], measurement: str) -> NDArray[np.float32]:
    counts = np.array(values, dtype=np.float32)
    if measurement == "amplitude":
        np.square(counts, out=counts)
    return counts


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
        return _as_counts(self.values[frame_numbers], self.measurement)


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
        order = "F" if self.fortran_order else "C"
        stored = np.memmap(self.path, self.dtype, "r", self.offset, self.stored_shape, order)  # type: ignore[call-overload]
        return _as_counts(stored.transpose(self.axes)[frame_numbers], self.measurement)


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
