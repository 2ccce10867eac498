"""``probe_unet``: a solver's estimate of each patch, and a U-net that corrects it once.

The network sees the estimate and the update that the physics of the frame's own probe asks for, and predicts what to
change besides. Its head starts at zero, so that the first prediction is the solver's own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ptycho_core.data.propagation import Propagation
from ptycho_core.enginekit.architectures import PROBE_UNET_FEATURES, ProbeUnetSizes, probe_unet_widths

from .. import physics
from .layers import ConvBlock

__all__ = ["ProbeUNet"]


class ProbeUNet(nn.Module):
    """U-net with skips over estimate and update of a frame; the head is a complex correction of its sweep (FM-16)."""

    n_features = PROBE_UNET_FEATURES

    def __init__(self, sizes: ProbeUnetSizes, N: int, group_size: int) -> None:
        super().__init__()
        widths, self.depth = probe_unet_widths(sizes), sizes.depth
        for level, width in enumerate(widths):
            n_in = self.n_features if level == 0 else widths[level - 1]
            self.add_module(f"encoder{level}", ConvBlock(n_in, width))
        for level in range(self.depth):
            self.add_module(f"decoder{level}", ConvBlock(widths[level + 1] + widths[level], widths[level]))
        self.head = nn.utils.skip_init(nn.Conv2d, widths[0], 2, 3, padding=1)

    def body(self, x: Tensor) -> Tensor:
        """(b, n_features, N, N) → (b, width, N, N)."""
        skips: list[Tensor] = []
        for level in range(self.depth):
            x = self.get_submodule(f"encoder{level}")(x)
            skips.append(x)
            x = functional.max_pool2d(x, 2)
        x = self.get_submodule(f"encoder{self.depth}")(x)
        for level in reversed(range(self.depth)):
            x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
            x = self.get_submodule(f"decoder{level}")(torch.cat([x, skips[level]], dim=1))
        return x

    def answer(self, features: list[Tensor], low_precision: torch.dtype | None) -> Tensor:
        """Real images (B, C, N, N) of each frame → (B, C, N, N) complex."""
        x = torch.stack(features, dim=-3)
        x = x.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, dtype=low_precision, enabled=low_precision is not None):
            x = self.body(x)
        x = self.head(x.float()).unflatten(0, features[0].shape[:2])
        return torch.complex(x[:, :, 0], x[:, :, 1])

    def correction(
        self, estimate: Tensor, update: Tensor, shifted_probe: Tensor, low_precision: torch.dtype | None
    ) -> Tensor:
        """What is added to the solver's own sweep: (B, C, N, N) complex, from Re, Im of Q − 1 and of u."""
        return self.answer([estimate.real - 1.0, estimate.imag, update.real, update.imag], low_precision)

    def forward(
        self,
        estimate: Tensor,
        counts: Tensor,
        shifted_probe: Tensor,
        scale: Tensor | float,
        mask: Tensor | None,
        background: Tensor | None,
        propagation: Propagation,
        low_precision: torch.dtype | None = None,
    ) -> Tensor:
        """Patches (B, C, N, N) complex, Q + ρ u + net; see the package for the arguments.

        `low_precision` is used in the body only.
        """
        update = physics.solver_update(estimate, shifted_probe, counts, mask, background, scale, propagation)
        return physics.swept(estimate, update) + self.correction(estimate, update, shifted_probe, low_precision)
