"""Generators: networks that map frames to object patches, looked up by name.

A generator is called with its weights first, a mapping from the canonical names of
``ptycho_core.enginekit.architectures`` to tensors of the shapes listed there, then
``(estimate, counts, shifted_probe, scale, mask, background, propagation, low_precision)``: (B, C, N, N) complex
estimate and counts, and (B, C, P, N, N) complex probe modes already shifted to each frame → (B, C, N, N) complex
patches. It holds no arrays. Its record there has the solver sweeps that make its estimate, and how often it is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import tensorflow as tf

from ptycho_core.config import TrainingConfig
from ptycho_core.data.propagation import Propagation
from ptycho_core.enginekit.weights import network_of

from .cnn import Cnn
from .probe_unet import ProbeUNet
from .unrolled import Unrolled

__all__ = ["GENERATORS", "Generator", "build"]


class Generator(Protocol):
    """What every generator offers."""

    def __init__(self, sizes: Any, N: int, group_size: int) -> None: ...

    def __call__(
        self,
        weights: Mapping[str, tf.Tensor],
        estimate: tf.Tensor,
        counts: tf.Tensor,
        shifted_probe: tf.Tensor,
        scale: tf.Tensor | float,
        mask: tf.Tensor | None,
        background: tf.Tensor | None,
        propagation: Propagation,
        low_precision: tf.DType | None = None,
    ) -> tf.Tensor:
        """Patches (B, C, N, N) complex."""


GENERATORS: dict[str, type[Generator]] = {"probe_unet": ProbeUNet, "unrolled": Unrolled, "cnn": Cnn}
"""Generator name → class, called with its sizes, the side N of a frame and the size C of a group."""


def build(config: TrainingConfig, N: int) -> Generator:
    """The generator of a config, for frames of side N."""
    network = network_of(config.network)
    return GENERATORS[network.record.name](network.sizes, N, config.group_size)
