"""A canvas on the device of which windows are read and written in place."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

__all__ = ["Canvas", "Window"]

_RUN = 64
"""Pixels that lie together. TensorFlow reads and writes rows of a variable in place, but copies all of one that was
written in part before it cuts a rectangle out of it; so the canvas is rows of this length, and a window is some."""

Tensor = tf.Tensor


class Window(NamedTuple):
    """A rectangle of a canvas: whole runs, so a little wider than what it was made for.

    Attributes:
        origin_px: (y, x) of its corner.
        shape: (h, w).
    """

    origin_px: tuple[int, int]
    shape: tuple[int, int]


class Canvas:
    """An array (H, W) complex64, on the device that is current when it is made.

    Args:
        values: (H, W) complex64 to begin with.
    """

    def __init__(self, values: Tensor | NDArray[Any]) -> None:
        self.shape = (int(values.shape[0]), int(values.shape[1]))
        self._runs = math.ceil(self.shape[1] / _RUN)
        self._rows = tf.Variable(self._cut(values), trainable=False)

    def _cut(self, values: Tensor | NDArray[Any]) -> Tensor:
        wide = tf.pad(tf.convert_to_tensor(values), [[0, 0], [0, self._runs * _RUN - self.shape[1]]])
        return tf.reshape(wide, [-1, _RUN])

    def window(self, low: NDArray[np.int64], high: NDArray[np.int64]) -> Window:
        """The least window that holds a rectangle from `low` (y, x) to before `high`."""
        (top, left), (bottom, right) = low.tolist(), high.tolist()
        first, last = left // _RUN, math.ceil(right / _RUN)
        return Window((top, first * _RUN), (bottom - top, (last - first) * _RUN))

    def _index(self, window: Tensor) -> Tensor:
        """Rows (n,) of a window, (4,) int32: y, x, h, w."""
        y, x, height, width = tf.unstack(window)
        rows = (y + tf.range(height))[:, None] * self._runs
        return tf.reshape(rows + x // _RUN + tf.range(width // _RUN), [-1])

    def read(self, window: Tensor) -> Tensor:
        """The values (h, w) of a window, (4,) int32: y, x, h, w."""
        return tf.reshape(tf.gather(self._rows, self._index(window)), window[2:])

    def write(self, window: Tensor, values: Tensor) -> None:
        """Put values (h, w) in a window."""
        update = tf.IndexedSlices(tf.reshape(values, [-1, _RUN]), self._index(window))
        self._rows.scatter_update(update)

    def whole(self) -> Tensor:
        """All values (H, W)."""
        return tf.reshape(self._rows, [self.shape[0], -1])[:, : self.shape[1]]

    def assign(self, values: Tensor | NDArray[Any]) -> None:
        """Take other values (H, W)."""
        self._rows.assign(self._cut(values))

    def fill(self, value: complex) -> None:
        """Take one value everywhere."""
        self._rows.assign(tf.fill(self._rows.shape, tf.constant(value, self._rows.dtype)))

    def scale(self, factor: complex) -> None:
        """Multiply all values with a number."""
        self._rows.assign(self._rows * tf.constant(factor, self._rows.dtype))
