"""Generators: networks that map frames to object patches, looked up by name.

A generator is called with its weights first, a mapping from the canonical names of
``ptycho_core.enginekit.architectures`` to tensors of the shapes listed there, then
``(estimate, counts, shifted_probe, scale, mask, background, low_precision)``: (B, C, N, N) complex estimate and
counts, and (B, C, P, N, N) complex probe modes already shifted to each frame → (B, C, N, N) complex patches. It holds
no arrays. Its ``sweeps`` says how many parallel solver sweeps make the estimate; without any, the estimate is the flat
object. Its ``passes`` says how often it is asked in training, each time for what the merge of its last answers gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import tensorflow as tf

from ptycho_core.config import TrainingConfig

from .cnn import Cnn
from .probe_unet import ProbeUNet
from .unrolled import Unrolled

__all__ = ["GENERATORS", "Generator"]


class Generator(Protocol):
    """What every generator offers."""

    sweeps: int
    passes: int

    def __init__(self, config: TrainingConfig, N: int) -> None: ...

    def __call__(
        self,
        weights: Mapping[str, tf.Tensor],
        estimate: tf.Tensor,
        counts: tf.Tensor,
        shifted_probe: tf.Tensor,
        scale: tf.Tensor | float,
        mask: tf.Tensor | None,
        background: tf.Tensor | None,
        low_precision: tf.DType | None = None,
    ) -> tf.Tensor:
        """Patches (B, C, N, N) complex."""


GENERATORS: dict[str, type[Generator]] = {"probe_unet": ProbeUNet, "unrolled": Unrolled, "cnn": Cnn}
"""Generator name → class, called with the config and the side N of a frame."""
