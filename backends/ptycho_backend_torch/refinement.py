"""Loss and gradients of some frames for refining, by automatic differentiation through the engine's physics."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ptycho_core.data.raw import RawData
from ptycho_core.enginekit.descent import CHUNK_BYTES, BatchGradient, Quantity

from . import physics

__all__ = ["TorchGradient"]


class TorchGradient:
    """See ``enginekit.descent.ScanGradient``; frames go to the device a bounded number at a time.

    Args:
        raw: the scan.
        loss: ``poisson`` or ``amplitude``.
        device: where to compute.
    """

    def __init__(self, raw: RawData, loss: str, device: torch.device) -> None:
        self.raw, self.loss, self.device = raw, physics.LOSSES[loss], device
        self.background = None if raw.background is None else torch.from_numpy(raw.background.copy()).to(device)
        self.mask = None if raw.mask is None else torch.from_numpy(raw.mask.copy()).to(device)

    def _leaf(self, array: NDArray[Any], differentiate: bool) -> torch.Tensor:
        return torch.from_numpy(np.array(array)).to(self.device).requires_grad_(differentiate)

    def __call__(
        self,
        frames: NDArray[np.int64],
        corners_px: NDArray[np.int64],
        subpixel_px: NDArray[np.float32],
        obj: NDArray[Any],
        probe: NDArray[Any],
        wanted: Collection[Quantity],
        dark_counts: float = 0.0,
    ) -> BatchGradient:
        """Loss and gradients; see ``ScanGradient``."""
        leaves = {
            "object": self._leaf(obj, "object" in wanted),
            "probe": self._leaf(probe, "probe" in wanted),
            "positions": self._leaf(subpixel_px, "positions" in wanted),
        }
        total, step = 0.0, max(1, CHUNK_BYTES // probe.nbytes)
        with torch.inference_mode(mode=False), torch.set_grad_enabled(bool(wanted)):
            for start in range(0, len(frames), step):
                part = slice(start, start + step)
                corners = torch.from_numpy(corners_px[part]).to(self.device)[None]
                patches = physics.extract(leaves["object"][None], corners, self.raw.side)
                rest = leaves["positions"][part][None]
                rate = physics.expected_counts(patches, leaves["probe"], rest, 1.0, self.background)
                counts = torch.from_numpy(self.raw.read_counts(frames[part])).to(self.device)[None]
                if not wanted:  # what decides when to stop should not be rounded away beside the sum
                    rate, counts = (value.double() if value.device.type != "mps" else value for value in (rate, counts))
                if wanted:
                    torch.autograd.backward(self.loss(rate + dark_counts, counts, self.mask, 1.0))
                total += float(self.loss(rate.detach(), counts, self.mask, 1.0))
        found = {name: None if leaf.grad is None else leaf.grad.cpu().numpy() for name, leaf in leaves.items()}
        return BatchGradient(loss=total, object=found["object"], probe=found["probe"], positions=found["positions"])
