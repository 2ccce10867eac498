"""``cnn``: the reference method's skip-free encoder and two decoders over a group's frames as channels.

It is here for comparison: it sees amplitudes only, knows nothing of the probe, and is tied to the group size it was
trained with.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ptycho_core.data.propagation import Propagation
from ptycho_core.enginekit.architectures import CnnSizes, cnn_filters

from .. import physics
from .layers import ConvBlock

__all__ = ["Cnn"]


class Cnn(nn.Module):
    """Encoder to 8×8, one decoder for amplitude, 2σ(z), and one for phase, π tanh(z)."""

    def __init__(self, sizes: CnnSizes, N: int, group_size: int) -> None:
        super().__init__()
        self.group_size = group_size
        encoder, decoder = cnn_filters(sizes, N)
        self.n_encoder, self.n_decoder = len(encoder), len(decoder)
        for level, width in enumerate(encoder):
            self.add_module(f"encoder{level}", ConvBlock(self.group_size if level == 0 else encoder[level - 1], width))
        for arm in ("amplitude", "phase"):
            for level, width in enumerate(decoder):
                self.add_module(f"{arm}{level}", ConvBlock(encoder[-1] if level == 0 else decoder[level - 1], width))
            head = nn.utils.skip_init(nn.Conv2d, decoder[-1], self.group_size, 3, padding=1)
            self.add_module(f"{arm}_head", head)

    def _decode(self, x: Tensor, arm: str) -> Tensor:
        for level in range(self.n_decoder):
            x = self.get_submodule(f"{arm}{level}")(x)
            x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
        return self.get_submodule(f"{arm}_head")(x)

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
        """Patches (B, C, N, N) complex; see the package for the arguments. `low_precision` is used in the layers."""
        x = physics.relative_amplitude(counts, shifted_probe, scale, mask, background)
        with torch.autocast(x.device.type, dtype=low_precision, enabled=low_precision is not None):
            x = x.contiguous(memory_format=torch.channels_last)
            for level in range(self.n_encoder):
                x = functional.max_pool2d(self.get_submodule(f"encoder{level}")(x), 2)
            amplitude, phase = self._decode(x, "amplitude"), self._decode(x, "phase")
        return torch.polar(2 * torch.sigmoid(amplitude.float()), math.pi * torch.tanh(phase.float()))
