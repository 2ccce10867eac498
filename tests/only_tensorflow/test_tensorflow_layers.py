"""Layers whose gradient is written by hand have that of their definition."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from ptycho_backend_tensorflow.generators.layers import doubled
from ptycho_backend_tensorflow.tracing import traced

pytestmark = pytest.mark.tensorflow


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(("dtype", "rtol"), [(tf.float32, 1e-6), (tf.bfloat16, 1e-2)])
def test_doubled_repeats_pixels_and_its_gradient_adds_them_up(dtype, rtol, compiled):
    rng = np.random.default_rng(3)
    x = tf.cast(rng.normal(size=(2, 3, 5, 4)), dtype)
    upstream = tf.cast(rng.uniform(1, 2, size=(2, 6, 10, 4)), dtype)

    def both(x: tf.Tensor, upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = doubled(x)
        return y, tape.gradient(y, x, output_gradients=upstream)

    y, gradient = traced(both, compiled=compiled)(x, upstream)
    np.testing.assert_array_equal(y, np.repeat(np.repeat(x, 2, axis=1), 2, axis=2))
    assert gradient.dtype == dtype
    wanted = tf.cast(upstream, tf.float64).numpy().reshape(2, 3, 2, 5, 2, 4).sum(axis=(2, 4))
    np.testing.assert_allclose(tf.cast(gradient, tf.float64), wanted, rtol=rtol)
