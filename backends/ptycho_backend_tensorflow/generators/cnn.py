"""``cnn``: the reference method's skip-free encoder and two decoders over a group's frames as channels.

It is here for comparison: it sees amplitudes only, knows nothing of the probe, and is tied to the group size it was
trained with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import tensorflow as tf

from ptycho_core.data.propagation import Propagation
from ptycho_core.enginekit.architectures import CnnSizes, cnn_filters

from .. import physics
from .layers import conv, conv_block, doubled, halved

__all__ = ["Cnn"]


class Cnn:
    """Encoder to 8×8, one decoder for amplitude, 2σ(z), and one for phase, π tanh(z)."""

    def __init__(self, sizes: CnnSizes, N: int, group_size: int) -> None:
        encoder, decoder = cnn_filters(sizes, N)
        self.n_encoder, self.n_decoder = len(encoder), len(decoder)

    def _decode(self, x: tf.Tensor, weights: Mapping[str, tf.Tensor], arm: str) -> tf.Tensor:
        """Real values (b, C, N, N) of one arm."""
        for level in range(self.n_decoder):
            x = doubled(conv_block(x, weights, f"{arm}{level}"))
        return tf.transpose(tf.cast(conv(x, weights, f"{arm}_head"), tf.float32), (0, 3, 1, 2))

    def __call__(
        self,
        weights: Mapping[str, tf.Tensor],
        estimate: tf.Tensor,
        counts: tf.Tensor,
        shifted_probe: tf.Tensor,
        scale: tf.Tensor | float,
        mask: tf.Tensor | None,
        background: tf.Tensor | None,
        propagation: Propagation,
        low_precision: tf.DType | None = None,
    ) -> tf.Tensor:
        """Patches (B, C, N, N) complex; see the package for the arguments. `low_precision` is used in the layers."""
        shown = physics.relative_amplitude(counts, shifted_probe, scale, mask, background)
        x = tf.transpose(shown, (0, 2, 3, 1))
        if low_precision is not None:
            x = tf.cast(x, low_precision)
        for level in range(self.n_encoder):
            x = halved(conv_block(x, weights, f"encoder{level}"))
        amplitude = 2 * tf.sigmoid(self._decode(x, weights, "amplitude"))
        phase = math.pi * tf.tanh(self._decode(x, weights, "phase"))
        return tf.complex(amplitude * tf.cos(phase), amplitude * tf.sin(phase))
