"""Where the frames of a scan live: in memory or on disk, as counts or as amplitudes.

A source hands out float32 photon counts for the frames asked for, and nothing else; squaring an amplitude and casting
happen here, once, never in the stored type (squaring uint16 values would overflow). Counts are whole again when they
were: a stored √k gives k itself, see :func:`rounding`. Sources on disk hold a path, not an open file, so that they can
be pickled to a worker process.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .h5_file import open_h5

__all__ = [
    "ArrayFrames",
    "CentredFrames",
    "ConcatenatedFrames",
    "FrameSource",
    "Hdf5Frames",
    "NpzFrames",
    "OffsetFrames",
    "SubsetFrames",
    "TransposedFrames",
    "WindowedFrames",
    "as_counts",
    "cut_window",
    "rounding",
]

_ROUNDINGS = 2.0
_AT_ONCE_BYTES = 2**26
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


def as_counts(values: NDArray[Any], measurement: str) -> NDArray[np.float32]:
    """Counts, a copy, of stored values of any shape; `measurement` is ``counts`` or ``amplitude``.

    Squares that rounding alone can have kept from being whole numbers become whole.
    """
    if measurement != "amplitude":
        return np.array(values, dtype=np.float32)
    # a negative amplitude is none; its square would hide that
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
            if wide.kind == "f":
                np.negative(counts[block], out=counts[block], where=stored[block] < 0)
    return counts.reshape(values.shape)


@dataclass(frozen=True)
class ArrayFrames:
    """Frames in memory; `values` is (M, N, N), counts or amplitudes as `measurement` says."""

    values: NDArray[Any] = field(repr=False)
    measurement: str = "counts"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(M, N, N)."""
        return self.values.shape

    def read(self, frame_numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        """Counts (n, N, N) float32 of the numbered frames."""
        return as_counts(self.stored(frame_numbers), self.measurement)

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
        return as_counts(self.stored(frame_numbers), self.measurement)

    def stored(self, frame_numbers: NDArray[np.int64]) -> NDArray[Any]:
        """The numbered frames as they are stored, (n, N, N)."""
        order = "F" if self.fortran_order else "C"
        mapped = np.memmap(self.path, self.dtype, "r", self.offset, self.stored_shape, order)  # type: ignore[call-overload]
        return np.asarray(mapped.transpose(self.axes)[frame_numbers])


@dataclass(frozen=True)
class Hdf5Frames:
    """Frames in an HDF5 dataset; the file is opened for each read and closed again.

    `stored_shape` is that of the dataset; frames are counted along `frame_axes`, the last fastest, and `image_axes` are
    the (y, x) of a frame. What other axes there are have one entry: (M, N, N) by default, (1, M, N, N) with frames
    along axis 1, (Ny, Nx, H, W) with frames along (0, 1). `follow` reads a file that is still being written.
    """

    path: Path
    dataset: str
    stored_shape: tuple[int, ...]
    measurement: str = "counts"
    frame_axes: tuple[int, ...] = (0,)
    image_axes: tuple[int, int] = (1, 2)
    follow: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """(M, H, W)."""
        y, x = self.image_axes
        return (
            math.prod(self.stored_shape[axis] for axis in self.frame_axes),
            self.stored_shape[y],
            self.stored_shape[x],
        )

    def read(self, frame_numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        """Counts (n, H, W) float32 of the numbered frames."""
        return as_counts(self.stored(frame_numbers), self.measurement)

    def stored(self, frame_numbers: NDArray[np.int64]) -> NDArray[Any]:
        """The numbered frames as they are stored, (n, H, W)."""
        # h5py wants increasing, unique selections
        unique, inverse = np.unique(frame_numbers, return_inverse=True)
        with open_h5(self.path, self.follow) as file:
            dataset = file[self.dataset]
            values = np.empty((len(unique), *self.shape[1:]), dataset.dtype)
            if self.frame_axes == (0,) and self.image_axes == (1, 2) and len(self.stored_shape) == 3:
                chosen = _run(unique)
                if isinstance(chosen, slice) or (dataset.chunks or (1,))[0] > 1:  # a piece of many is unpacked once
                    read = np.asarray(dataset[chosen])
                    return read if np.array_equal(unique, frame_numbers) else read[inverse]
                for row, number in enumerate(unique):  # a list of numbers takes h5py ten times as long
                    dataset.read_direct(values, np.s_[int(number)], np.s_[row])
                return values[inverse]
            for row, places in enumerate(np.stack(np.unravel_index(unique, self._counted), axis=-1)):
                values[row] = self._one(dataset, places)
        return values[inverse]

    @property
    def _counted(self) -> tuple[int, ...]:
        return tuple(self.stored_shape[axis] for axis in self.frame_axes)

    def _one(self, dataset: Any, places: NDArray[np.int64]) -> NDArray[Any]:
        index: list[Any] = [0] * len(self.stored_shape)
        for axis in self.image_axes:
            index[axis] = slice(None)
        for axis, place in zip(self.frame_axes, places, strict=True):
            index[axis] = int(place)
        frame = np.asarray(dataset[tuple(index)])
        return frame if self.image_axes[0] < self.image_axes[1] else frame.T


def _run(numbers: NDArray[np.int64]) -> Any:
    """Increasing numbers as a slice where they are consecutive: much faster to select than a list."""
    if len(numbers) and numbers[-1] - numbers[0] + 1 == len(numbers):
        return slice(int(numbers[0]), int(numbers[-1]) + 1)
    return numbers


@dataclass(frozen=True)
class ConcatenatedFrames:
    """Sources one after another, of one frame size."""

    parts: tuple[FrameSource, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(M, H, W)."""
        _, height, width = self.parts[0].shape
        return sum(part.shape[0] for part in self.parts), height, width

    def read(self, frame_numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        """Counts (n, H, W) float32 of the numbered frames."""
        numbers = np.asarray(frame_numbers)
        out = np.empty((len(numbers), *self.shape[1:]), np.float32)
        start = 0
        for part in self.parts:
            inside = (numbers >= start) & (numbers < start + part.shape[0])
            if inside.any():
                out[inside] = part.read(numbers[inside] - start)
            start += part.shape[0]
        return out


@dataclass(frozen=True)
class CentredFrames:
    """Another source whose zero frequency is at the corner, with it moved to (N/2, N/2)."""

    base: FrameSource

    @property
    def shape(self) -> tuple[int, int, int]:
        """(M, H, W)."""
        return self.base.shape

    def read(self, frame_numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        """Counts (n, H, W) float32 of the numbered frames."""
        return np.fft.fftshift(self.base.read(frame_numbers), axes=(1, 2))


@dataclass(frozen=True)
class OffsetFrames:
    """Another source with a number added to every value, and 0 where that is still less; NaN stays NaN."""

    base: FrameSource
    offset: float

    @property
    def shape(self) -> tuple[int, int, int]:
        """(M, H, W)."""
        return self.base.shape

    def read(self, frame_numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        """Counts (n, H, W) float32 of the numbered frames."""
        values = self.base.read(frame_numbers) + np.float32(self.offset)
        return np.asarray(np.maximum(values, np.float32(0)))


@dataclass(frozen=True)
class WindowedFrames:
    """A square window of another source's frames, what lies outside of them 0, then binned, as frames are read.

    Pixel (i, j) of a frame is the sum of the good pixels of rows ``top + i·bin`` to ``top + (i+1)·bin`` (likewise
    columns), times the number of its pixels over that of the good ones, so that a gap costs light and no level.

    Attributes:
        base: (M, H, W).
        top: first row of the window in the frames of `base`; negative where it begins before them.
        left: first column.
        side: N of what comes out.
        bin: pixels binned along each axis.
        good: (H, W) bool good pixels of `base`, or None for all.
        gain: stored values are divided by it, which makes them photons.
    """

    base: FrameSource
    top: int
    left: int
    side: int
    bin: int = 1
    good: NDArray[np.bool_] | None = None
    gain: float = 1.0

    @property
    def shape(self) -> tuple[int, int, int]:
        """(M, N, N)."""
        return self.base.shape[0], self.side, self.side

    def read(self, frame_numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        """Counts (n, N, N) float32 of the numbered frames; 0 in pixels without a good one."""
        at_once = max(1, _AT_ONCE_BYTES // (4 * max(math.prod(self.base.shape[1:]), (self.side * self.bin) ** 2)))
        if len(frame_numbers) <= at_once:  # what comes out may be far smaller than what is read for it
            return self._window(frame_numbers)
        out = np.empty((len(frame_numbers), self.side, self.side), np.float32)
        for start in range(0, len(out), at_once):
            out[start : start + at_once] = self._window(frame_numbers[start : start + at_once])
        return out

    def _window(self, frame_numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        counts = self.base.read(frame_numbers)
        if self.good is not None and self.bin > 1:
            counts[:, ~self.good] = 0.0
        window = cut_window(counts, self.top, self.left, self.side * self.bin)
        if self.bin > 1:
            window = _binned(window, self.bin)
            window *= self._level()
        if self.gain != 1.0:
            window /= np.float32(self.gain)
        return window

    def good_pixels(self) -> NDArray[np.bool_]:
        """(N, N) bool: pixels of which at least half are good and on the detector."""
        return np.asarray(self._share() >= 0.5)

    def _share(self) -> NDArray[np.float32]:
        """Part of each pixel's own pixels that are good and on the detector, (N, N)."""
        height, width = self.base.shape[1:]
        good = np.ones((height, width), np.float32) if self.good is None else self.good.astype(np.float32)
        window = cut_window(good[None], self.top, self.left, self.side * self.bin)
        return np.asarray(_binned(window, self.bin)[0] / np.float32(self.bin**2))

    def _level(self) -> NDArray[np.float32]:
        share = self._share()
        return np.where(share > 0, 1 / np.maximum(share, 1e-6), 0).astype(np.float32)


def cut_window(planes: NDArray[Any], top: int, left: int, side: int) -> NDArray[Any]:
    """A square window of some planes (n, H, W), 0 where it reaches beyond them: (n, side, side), contiguous."""
    height, width = planes.shape[1:]
    if top == 0 and left == 0 and (height, width) == (side, side):
        return planes
    out = np.zeros((len(planes), side, side), planes.dtype)
    low_y, high_y = max(top, 0), min(top + side, height)
    low_x, high_x = max(left, 0), min(left + side, width)
    if low_y < high_y and low_x < high_x:
        out[:, low_y - top : high_y - top, low_x - left : high_x - left] = planes[:, low_y:high_y, low_x:high_x]
    return out


def _binned(planes: NDArray[np.float32], bin: int) -> NDArray[np.float32]:
    """Sums of squares of bin × bin pixels, (n, N, N)."""
    n, side = len(planes), planes.shape[-1] // bin
    return np.asarray(planes.reshape(n, side, bin, side, bin).sum(axis=(2, 4), dtype=np.float32))


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
