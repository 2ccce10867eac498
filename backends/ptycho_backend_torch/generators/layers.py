"""Layers that both generators are made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["ConvBlock"]


class ConvBlock(nn.Module):
    """Two 3×3 convolutions with zero padding, each followed by ReLU."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.conv0 = nn.utils.skip_init(nn.Conv2d, n_in, n_out, 3, padding=1)
        self.conv1 = nn.utils.skip_init(nn.Conv2d, n_out, n_out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(b, n_in, h, w) → (b, n_out, h, w)."""
        return torch.relu_(self.conv1(torch.relu_(self.conv0(x))))
