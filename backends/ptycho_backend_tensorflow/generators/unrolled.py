"""``unrolled``: a learned solver, whose every pass corrects the solver's update of each frame before the merge.

One set of weights serves all passes. Its head starts at zero, so that the untrained network is the parallel solver.
"""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from .. import physics
from .probe_unet import ProbeUNet

__all__ = ["Unrolled"]


class Unrolled(ProbeUNet):
    """Asked in every pass, it sees Re, Im of Q − 1 and of u over its size, |P| and the weight of the merge (FM-20)."""

    def correction(
        self,
        weights: Mapping[str, tf.Tensor],
        estimate: tf.Tensor,
        update: tf.Tensor,
        shifted_probe: tf.Tensor,
        low_precision: tf.DType | None,
    ) -> tf.Tensor:
        """The network's answer to the update relative to its size, times that size."""
        weight = physics.relative_weight(shifted_probe)
        size = physics.weighted_size(update, weight)
        u = physics.times(update, 1.0 / size)
        seen = (
            tf.math.real(estimate) - 1, tf.math.imag(estimate), tf.math.real(u), tf.math.imag(u), tf.sqrt(weight),
            weight,
        )  # fmt: skip
        return physics.times(self.answer(seen, weights, low_precision), size)
