"""Frames cut lazily out of an array of any order of axes, in a file of any container."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.frames import ArrayFrames
from .arrays import ArrayFile, ArrayHeader, Loaded

__all__ = ["Layout", "StoredFrames", "stored_frames"]


@dataclass(frozen=True)
class Layout:
    """Which axes of an array are what.

    Attributes:
        shape: of the array.
        frame_axes: axes along which frames are counted, the last fastest.
        image_axes: the (y, x) of a frame.
        fixed: index along every other axis, as (axis, index).
    """

    shape: tuple[int, ...]
    frame_axes: tuple[int, ...]
    image_axes: tuple[int, int]
    fixed: tuple[tuple[int, int], ...] = ()

    @property
    def counted(self) -> tuple[int, ...]:
        """Frames along each of the axes that count them."""
        return tuple(self.shape[axis] for axis in self.frame_axes)

    @property
    def frames(self) -> tuple[int, int, int]:
        """(M, H, W)."""
        y, x = self.image_axes
        return math.prod(self.counted), self.shape[y], self.shape[x]


@dataclass(frozen=True)
class StoredFrames:
    """Frames of one array; the file is opened for each read and closed again.

    Attributes:
        arrays: the file.
        name: of the array.
        layout: its axes.
        measurement: ``counts`` or ``amplitude``.
        flipped: whether rows, and columns, are turned round.
        shifted: whether zero frequency is moved from the corner to (H // 2, W // 2).
    """

    arrays: ArrayFile
    name: str
    layout: Layout
    measurement: str = "counts"
    flipped: tuple[bool, bool] = (False, False)
    shifted: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """(M, H, W)."""
        return self.layout.frames

    def read(self, frame_numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        """Counts (n, H, W) float32 of the numbered frames."""
        stored = self.stored(frame_numbers)
        return ArrayFrames(stored, self.measurement).read(np.arange(len(stored)))

    def stored(self, frame_numbers: NDArray[np.int64]) -> NDArray[Any]:
        """The numbered frames as they are stored, (n, H, W), turned and shifted."""
        unique, inverse = np.unique(np.asarray(frame_numbers, np.int64), return_inverse=True)
        with self.arrays.opened(self.name) as array:
            values = np.empty((len(unique), *self.shape[1:]), array.dtype)
            start = 0
            for stop in (*_ends_of_runs(unique, self.layout.counted[-1]), len(unique)):
                if stop > start:
                    values[start:stop] = self._run(array, int(unique[start]), stop - start)
                    start = stop
        values = values[inverse]
        rows, columns = (slice(None, None, -1) if flip else slice(None) for flip in self.flipped)
        values = values[:, rows, columns]
        return np.fft.fftshift(values, axes=(1, 2)) if self.shifted else values

    def _run(self, array: Any, first: int, n: int) -> NDArray[Any]:
        """Frames first, first + 1, …, which follow each other along the last of their axes."""
        *outer, start = (int(i) for i in np.unravel_index(first, self.layout.counted))
        index: list[Any] = [slice(None)] * len(self.layout.shape)
        for axis, place in zip(self.layout.frame_axes[:-1], outer, strict=True):
            index[axis] = place
        for axis, place in self.layout.fixed:
            index[axis] = place
        last = self.layout.frame_axes[-1]
        index[last] = slice(start, start + n)
        kept = [axis for axis in range(len(index)) if isinstance(index[axis], slice)]
        block = np.asarray(array[tuple(index)])
        return block.transpose([kept.index(axis) for axis in (last, *self.layout.image_axes)])


def _ends_of_runs(numbers: NDArray[np.int64], along: int) -> list[int]:
    """Where increasing numbers leave a gap, or step onto the next line of `along` frames."""
    return [int(i) + 1 for i in np.flatnonzero((np.diff(numbers) > 1) | (numbers[1:] % along == 0))]


@dataclass(frozen=True)
class Reshaped:
    """An array of a file as if it had another shape, in C order, of which whole frames are read.

    Attributes:
        arrays: the file.
        name: of the array.
        stored: its shape in the file.
        shape: (M, H, W), as many values.
    """

    arrays: ArrayFile
    name: str
    stored: tuple[int, ...]
    shape: tuple[int, int, int]

    @property
    def path(self) -> Path:
        """The file."""
        return self.arrays.path

    @property
    def dtype(self) -> np.dtype[Any]:
        """As stored."""
        return self.header(self.name).dtype

    def headers(self) -> dict[str, ArrayHeader]:
        """The one array."""
        return {self.name: self.header(self.name)}

    def header(self, name: str) -> ArrayHeader:
        """The array with its new shape."""
        inside = self.arrays.header(name)
        return ArrayHeader(self.shape, inside.dtype, inside.unit)

    def opened(self, name: str) -> Any:
        """The array, of which ``[start:stop]`` are frames."""
        return _Opened(self, self.arrays.opened(name))

    def attribute(self, place: str, name: str) -> Any:
        """Attribute of a group or an array, or None."""
        return self.arrays.attribute(place, name)


class _Opened:
    """Context of a reshaped array, and the array in it."""

    def __init__(self, whole: Reshaped, inner: Any) -> None:
        self._whole, self._inner = whole, inner
        self._array: Any = None

    def __enter__(self) -> _Opened:
        self._array = self._inner.__enter__()
        self.dtype = self._array.dtype
        return self

    def __exit__(self, *error: Any) -> Any:
        return self._inner.__exit__(*error)

    def __getitem__(self, index: tuple[Any, ...]) -> NDArray[Any]:
        frames = index[0]
        _, height, width = self._whole.shape
        per_row = math.prod(self._whole.stored[1:])  # values behind one step along the first stored axis
        low, high = frames.start * height * width, frames.stop * height * width
        first, last = low // per_row, -(-high // per_row)
        values = np.asarray(self._array[first:last]).reshape(-1)
        values = values[low - first * per_row : high - first * per_row]
        return np.asarray(values.reshape(-1, height, width)[(slice(None), *index[1:])])


def stored_frames(
    arrays: ArrayFile,
    name: str,
    layout: Layout,
    measurement: str,
    flipped: tuple[bool, bool] = (False, False),
    shifted: bool = False,
) -> StoredFrames:
    """Frames of an array: read from disk as they are needed, or from memory where the file gives it whole only."""
    with arrays.opened(name) as array:
        if type(array) is np.ndarray:  # no memory map, which is a class of its own
            arrays = Loaded(arrays.path, {name: array})
    return StoredFrames(arrays, name, layout, measurement, flipped, shifted)
