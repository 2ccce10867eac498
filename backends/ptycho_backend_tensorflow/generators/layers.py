"""Layers that both generators are made of: images (b, h, w, channels), kernels (out, in, 3, 3) as they are stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import tensorflow as tf

__all__ = ["conv", "conv_block", "doubled", "halved"]


def conv(x: tf.Tensor, weights: Mapping[str, tf.Tensor], name: str) -> tf.Tensor:
    """3×3 convolution with zero padding, in the precision of its input."""
    kernel = tf.cast(tf.transpose(weights[f"{name}.weight"], (2, 3, 1, 0)), x.dtype)
    # not a plain sum: TensorFlow knows this one, and has the gradient of the bias from that of the kernel
    return tf.nn.bias_add(tf.nn.conv2d(x, kernel, strides=1, padding="SAME"), tf.cast(weights[f"{name}.bias"], x.dtype))


def conv_block(x: tf.Tensor, weights: Mapping[str, tf.Tensor], name: str) -> tf.Tensor:
    """Two convolutions, each followed by ReLU."""
    for part in ("conv0", "conv1"):
        x = tf.nn.relu(conv(x, weights, f"{name}.{part}"))
    return x


def halved(x: tf.Tensor) -> tf.Tensor:
    """Largest value of every 2×2 pixels."""
    return tf.nn.max_pool2d(x, 2, 2, "VALID")


@tf.custom_gradient
def doubled(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """Every pixel as 2×2.

    Its gradient, the sum of 2×2 pixels, is written as pooling: TensorFlow's own, a sum over two axes in the middle,
    takes eight times as long on a CPU, a tenth of a whole training step.
    """
    b, h, w, channels = x.shape
    copies = tf.broadcast_to(x[:, :, None, :, None, :], (b, h, 2, w, 2, channels))

    def gradient(upstream: tf.Tensor) -> tf.Tensor:
        return 4 * tf.nn.avg_pool2d(upstream, 2, 2, "VALID")

    return tf.reshape(copies, (b, 2 * h, 2 * w, channels)), gradient
