"""A canvas on the device of which windows are read and written in place."""

from __future__ import annotations

import math
import weakref
from typing import Any

import tensorflow as tf
from numpy.typing import NDArray

__all__ = ["Canvas"]

_RUN = 64
"""Pixels that lie together. TensorFlow reads and writes rows of a variable in place, but copies all of one that was
written in part before it cuts a rectangle out of it; so the canvas is rows of this length, and a window is some."""

Tensor = tf.Tensor


def _let_go(handle: Tensor) -> None:
    """Free the memory of a variable: traced functions that wrote to it keep its handle until cycles are collected."""
    with tf.init_scope():
        tf.raw_ops.AssignVariableOp(resource=handle, value=tf.zeros([0, _RUN], tf.complex64))


class Canvas:
    """An array (H, W) complex64, on the device that is current when it is made; dropped, it takes no memory.

    Args:
        values: (H, W) complex64 to begin with.
    """

    def __init__(self, values: Tensor | NDArray[Any]) -> None:
        self.shape = (int(values.shape[0]), int(values.shape[1]))
        self._runs = math.ceil(self.shape[1] / _RUN)
        self._rows = tf.Variable(self._cut(values), trainable=False)
        weakref.finalize(self, _let_go, self._rows.handle).atexit = False

    def _cut(self, values: Tensor | NDArray[Any]) -> Tensor:
        wide = tf.pad(tf.convert_to_tensor(values), [[0, 0], [0, self._runs * _RUN - self.shape[1]]])
        return tf.reshape(wide, [-1, _RUN])

    def _runs_of(self, window: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rows (n,) of the variable that hold a window, their width together, and where in it the window begins."""
        y, x, height, width = tf.unstack(window)
        first, last = x // _RUN, -(-(x + width) // _RUN)
        rows = (y + tf.range(height))[:, None] * self._runs + tf.range(first, last)
        return tf.reshape(rows, [-1]), (last - first) * _RUN, x - first * _RUN

    def read(self, window: Tensor) -> Tensor:
        """The values (h, w) of a window, (4,) int32: y, x, h, w."""
        rows, wide, left = self._runs_of(window)
        return tf.reshape(tf.gather(self._rows, rows), [window[2], wide])[:, left : left + window[3]]

    def write(self, window: Tensor, values: Tensor) -> None:
        """Put values (h, w) in a window, and leave what lies beside it in the same runs."""
        rows, wide, left = self._runs_of(window)
        beside = tf.reshape(tf.gather(self._rows, rows), [window[2], wide])
        merged = tf.concat([beside[:, :left], values, beside[:, left + window[3] :]], axis=1)
        self._rows.scatter_update(tf.IndexedSlices(tf.reshape(merged, [-1, _RUN]), rows))

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
