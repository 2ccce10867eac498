"""``probe_unet``: a solver's estimate of each patch, and a U-net that corrects it.

The network sees the estimate and the update that the physics of the frame's own probe asks for, and predicts what to
change besides. Its head starts at zero, so that the first prediction is the solver's own.
"""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from ptycho_core.config import TrainingConfig

from .. import physics
from .layers import conv, conv_block, doubled, halved

__all__ = ["ProbeUNet"]


class ProbeUNet:
    """U-net with skips over estimate and update of a frame (FM-16); the head is a complex correction."""

    def __init__(self, config: TrainingConfig, N: int) -> None:
        self.depth, self.sweeps = config.model.depth, config.model.sweeps

    def body(self, x: tf.Tensor, weights: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """(b, N, N, 4) features → (b, N, N, width)."""
        skips: list[tf.Tensor] = []
        for level in range(self.depth):
            x = conv_block(x, weights, f"encoder{level}")
            skips.append(x)
            x = halved(x)
        x = conv_block(x, weights, f"encoder{self.depth}")
        for level in reversed(range(self.depth)):
            x = conv_block(tf.concat([doubled(x), skips[level]], axis=-1), weights, f"decoder{level}")
        return x

    def __call__(
        self,
        weights: Mapping[str, tf.Tensor],
        estimate: tf.Tensor,
        counts: tf.Tensor,
        shifted_probe: tf.Tensor,
        scale: tf.Tensor | float,
        mask: tf.Tensor | None,
        background: tf.Tensor | None,
        low_precision: tf.DType | None = None,
    ) -> tf.Tensor:
        """Patches (B, C, N, N) complex, Q + ρ u + net(Q − 1, u); see the package for the arguments.

        `low_precision` is used in the body only.
        """
        update = physics.solver_update(estimate, shifted_probe, counts, mask, background, scale)
        parts = (tf.math.real(estimate) - 1, tf.math.imag(estimate), tf.math.real(update), tf.math.imag(update))
        B, C, N = estimate.shape[:3]
        x = tf.reshape(tf.stack(parts, axis=-1), (B * C, N, N, len(parts)))
        if low_precision is not None:
            x = tf.cast(x, low_precision)
        x = tf.cast(self.body(x, weights), tf.float32)
        residual = tf.reshape(conv(x, weights, "head"), (B, C, N, N, 2))
        return physics.swept(estimate, update) + tf.complex(residual[..., 0], residual[..., 1])
