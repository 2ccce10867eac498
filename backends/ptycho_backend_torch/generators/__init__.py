"""Generators: networks that map frames to object patches, looked up by name.

A generator is a module with ``forward(estimate, counts, shifted_probe, scale, mask, background, low_precision)``:
(B, C, N, N) complex estimate and counts, and (B, C, P, N, N) complex probe modes already shifted to each frame →
(B, C, N, N) complex patches. Its ``sweeps`` says how many parallel solver sweeps make the estimate; without any, the
estimate is the flat object. Its ``passes`` says how often it is asked in training, each time for what the merge of its
last answers gives. Weight names and shapes are those of ``ptycho_core.enginekit.architectures``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ptycho_core.config import TrainingConfig

from .cnn import Cnn
from .probe_unet import ProbeUNet
from .unrolled import Unrolled

__all__ = ["GENERATORS", "load_weights"]

GENERATORS: dict[str, Callable[[TrainingConfig, int], nn.Module]] = {
    "probe_unet": ProbeUNet,
    "unrolled": Unrolled,
    "cnn": Cnn,
}
"""Generator name → class, called with the config and the side N of a frame."""


def load_weights(generator: nn.Module, weights: Mapping[str, NDArray[np.float32]]) -> None:
    """Copy weights by canonical name into a generator, strictly."""
    state = {name: torch.from_numpy(np.array(value)) for name, value in weights.items()}
    generator.load_state_dict(state, strict=True)
