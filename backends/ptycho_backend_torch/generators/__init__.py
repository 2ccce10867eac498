"""Generators: networks that map frames to object patches, looked up by name.

A generator is a module with ``forward(counts, shifted_probe, scale, mask, background) -> patches``:
(B, C, N, N) counts, (B, C, P, N, N) complex probe modes already shifted to each frame → (B, C, N, N) complex patches.
Weight names and shapes are those of ``ptycho_core.architectures``.
"""

from __future__ import annotations

from collections.abc import Callable

from ptycho_core.config import TrainingConfig
from torch import nn

from .cnn import Cnn
from .probe_unet import ProbeUNet

__all__ = ["GENERATORS"]

GENERATORS: dict[str, Callable[[TrainingConfig, int], nn.Module]] = {"probe_unet": ProbeUNet, "cnn": Cnn}
"""Generator name → class, called with the config and the side N of a frame."""
