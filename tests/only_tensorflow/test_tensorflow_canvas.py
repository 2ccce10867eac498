"""A canvas on a device: windows of it, and what is left of it when it is dropped."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import tensorflow as tf

from ptycho_backend_tensorflow.canvas import Canvas
from ptycho_backend_tensorflow.tracing import traced

pytestmark = pytest.mark.tensorflow


def test_windows_are_read_and_written_across_runs_and_what_lies_beside_stays():
    rng = np.random.default_rng(4)
    wanted, patch = ((rng.normal(size=s) + 1j * rng.normal(size=s)).astype(np.complex64) for s in ((9, 150), (4, 100)))
    canvas = Canvas(wanted)
    canvas.write(tf.constant([3, 31, 4, 100]), tf.constant(patch))
    wanted[3:7, 31:131] = patch
    np.testing.assert_array_equal(canvas.whole(), wanted)
    np.testing.assert_array_equal(canvas.read(tf.constant([2, 60, 5, 80])), wanted[2:7, 60:140])


def test_a_canvas_that_is_dropped_takes_no_memory_though_a_traced_function_wrote_to_it():
    canvas = Canvas(np.ones((9, 150), np.complex64))
    rows, seen = canvas._rows, weakref.proxy(canvas)
    double = traced(lambda where: seen.write(where, 2 * seen.read(where)), signature=[tf.TensorSpec([4], tf.int32)])
    double(tf.constant([3, 31, 4, 100]))
    assert tf.shape(rows.read_value())[0] == 27
    del canvas
    assert tf.shape(rows.read_value())[0] == 0
