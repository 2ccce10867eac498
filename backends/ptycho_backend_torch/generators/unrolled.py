"""``unrolled``: a learned solver, whose every pass corrects the solver's update of each frame before the merge.

One set of weights serves all passes. Its head starts at zero, so that the untrained network is the parallel solver.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ptycho_core.enginekit.architectures import UNROLLED_FEATURES

from .. import physics
from .probe_unet import ProbeUNet

__all__ = ["Unrolled"]


class Unrolled(ProbeUNet):
    """Asked in every pass, it sees Re, Im of Q − 1 and of u over its size, |P| and the weight of the merge (FM-20)."""

    n_features = UNROLLED_FEATURES

    def correction(
        self, estimate: Tensor, update: Tensor, shifted_probe: Tensor, low_precision: torch.dtype | None
    ) -> Tensor:
        """The network's answer to the update relative to its size, times that size."""
        weight = physics.relative_weight(shifted_probe)
        size = physics.weighted_size(update, weight)
        u = update / size
        seen = [estimate.real - 1.0, estimate.imag, u.real, u.imag, weight.sqrt(), weight]
        return size * self.answer(seen, low_precision)
