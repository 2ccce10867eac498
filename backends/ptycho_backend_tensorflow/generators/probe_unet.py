"""``probe_unet``: a solver's estimate of each patch, and a U-net that corrects it once.

The network sees the estimate and the update that the physics of the frame's own probe asks for, and predicts what to
change besides. Its head starts at zero, so that the first prediction is the solver's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tensorflow as tf

from ptycho_core.data.propagation import Propagation
from ptycho_core.enginekit.architectures import ProbeUnetSizes

from .. import physics
from .layers import conv, conv_block, doubled, halved

__all__ = ["ProbeUNet"]


class ProbeUNet:
    """U-net with skips over estimate and update of a frame; the head is a complex correction of its sweep (FM-16)."""

    def __init__(self, sizes: ProbeUnetSizes, N: int, group_size: int) -> None:
        self.depth = sizes.depth

    def body(self, x: tf.Tensor, weights: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """(b, N, N, features) → (b, N, N, width)."""
        skips: list[tf.Tensor] = []
        for level in range(self.depth):
            x = conv_block(x, weights, f"encoder{level}")
            skips.append(x)
            x = halved(x)
        x = conv_block(x, weights, f"encoder{self.depth}")
        for level in reversed(range(self.depth)):
            x = conv_block(tf.concat([doubled(x), skips[level]], axis=-1), weights, f"decoder{level}")
        return x

    def answer(
        self, features: Sequence[tf.Tensor], weights: Mapping[str, tf.Tensor], low_precision: tf.DType | None
    ) -> tf.Tensor:
        """Real images (B, C, N, N) of each frame → (B, C, N, N) complex."""
        B, C, N = features[0].shape[:3]
        x = tf.reshape(tf.stack(features, axis=-1), (B * C, N, N, len(features)))
        if low_precision is not None:
            x = tf.cast(x, low_precision)
        x = tf.cast(self.body(x, weights), tf.float32)
        return tf.complex(*tf.unstack(tf.reshape(conv(x, weights, "head"), (B, C, N, N, 2)), axis=-1))

    def correction(
        self,
        weights: Mapping[str, tf.Tensor],
        estimate: tf.Tensor,
        update: tf.Tensor,
        shifted_probe: tf.Tensor,
        low_precision: tf.DType | None,
    ) -> tf.Tensor:
        """What is added to the solver's own sweep: (B, C, N, N) complex, from Re, Im of Q − 1 and of u."""
        seen = (tf.math.real(estimate) - 1, tf.math.imag(estimate), tf.math.real(update), tf.math.imag(update))
        return self.answer(seen, weights, low_precision)

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
        """Patches (B, C, N, N) complex, Q + ρ u + net; see the package for the arguments.

        `low_precision` is used in the body only.
        """
        update = physics.solver_update(estimate, shifted_probe, counts, mask, background, scale, propagation)
        net = self.correction(weights, estimate, update, shifted_probe, low_precision)
        return physics.swept(estimate, update) + net
