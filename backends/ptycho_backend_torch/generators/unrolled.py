"""``unrolled``: a learned solver, whose every pass corrects the solver's update of each frame before the merge.

One set of weights serves all passes. Its head starts at zero, so that the untrained network is the parallel solver.
"""

from __future__ import annotations

from torch import Tensor

from ptycho_core.config import TrainingConfig
from ptycho_core.networks.architectures import UNROLLED_FEATURES

from .. import physics
from .probe_unet import CorrectingUNet

__all__ = ["Unrolled"]


class Unrolled(CorrectingUNet):
    """Asked in every pass, it sees Re, Im of Q − 1 and of u, |P| and the weight of the merge (FM-20)."""

    def __init__(self, config: TrainingConfig, N: int) -> None:
        super().__init__(config, UNROLLED_FEATURES)

    def features(self, estimate: Tensor, update: Tensor, shifted_probe: Tensor) -> list[Tensor]:
        """Estimate, update, and how the frame is lit."""
        weight = physics.relative_weight(shifted_probe)
        return [estimate.real - 1.0, estimate.imag, update.real, update.imag, weight.sqrt(), weight]
