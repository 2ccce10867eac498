"""Generators: networks that map frames to object patches, looked up by name.

A generator is a module with ``forward(estimate, counts, shifted_probe, scale, mask, background, propagation,
low_precision)``: (B, C, N, N) complex estimate and counts, and (B, C, P, N, N) complex probe modes already shifted to
each frame → (B, C, N, N) complex patches. Its record in ``ptycho_core.enginekit.architectures`` has the names and
shapes of its weights, the solver sweeps that make its estimate, and how often it is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ptycho_core.config import TrainingConfig
from ptycho_core.enginekit.weights import network_of

from .cnn import Cnn
from .probe_unet import ProbeUNet
from .unrolled import Unrolled

__all__ = ["GENERATORS", "build", "load_weights"]

GENERATORS: dict[str, Callable[[Any, int, int], nn.Module]] = {
    "probe_unet": ProbeUNet,
    "unrolled": Unrolled,
    "cnn": Cnn,
}
"""Generator name → class, called with its sizes, the side N of a frame and the size C of a group."""


def build(config: TrainingConfig, N: int) -> nn.Module:
    """The generator of a config, for frames of side N."""
    network = network_of(config.network)
    return GENERATORS[network.record.name](network.sizes, N, config.group_size)


def load_weights(generator: nn.Module, weights: Mapping[str, NDArray[np.float32]]) -> None:
    """Copy weights by canonical name into a generator, strictly."""
    state = {name: torch.from_numpy(np.array(value)) for name, value in weights.items()}
    generator.load_state_dict(state, strict=True)
