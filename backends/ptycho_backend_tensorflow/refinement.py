"""Loss and gradients of some frames for refining, by automatic differentiation through the engine's physics."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ptycho_core.data.raw import RawData
from ptycho_core.enginekit.descent import CHUNK_BYTES, BatchGradient, Quantity

from . import physics
from .network import constant
from .tracing import traced

__all__ = ["TensorflowGradient"]

_NAMES: tuple[Quantity, ...] = ("object", "probe", "positions")


class TensorflowGradient:
    """See ``enginekit.descent.ScanGradient``; frames go to the device a bounded number at a time.

    Args:
        raw: the scan.
        loss: ``poisson`` or ``amplitude``.
        device: where to compute.
    """

    def __init__(self, raw: RawData, loss: str, device: str) -> None:
        self.raw, self.loss, self.device = raw, physics.LOSSES[loss], device
        with tf.device(device):
            self.background, self.mask = constant(raw.background), constant(raw.mask)
        self._functions: dict[tuple[Quantity, ...], Any] = {}

    def _evaluate(self, wanted: tuple[Quantity, ...]) -> Any:
        """The traced function that answers one kind of question."""

        def evaluate(
            obj: tf.Tensor, probe: tf.Tensor, rest: tf.Tensor, corners: tf.Tensor, counts: tf.Tensor, dark: tf.Tensor
        ) -> tuple[tf.Tensor, list[tf.Tensor]]:
            leaves = dict(zip(_NAMES, (obj, probe, rest), strict=True))
            sources = [leaves[name] for name in wanted]
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(sources)
                patches = physics.extract(obj[None], corners[None], self.raw.side)
                rate = physics.expected_counts(patches, probe, rest[None], 1.0, self.background)
                if not wanted:  # what decides when to stop should not be rounded away beside the sum
                    rate, counts = tf.cast(rate, tf.float64), tf.cast(counts, tf.float64)
                value = self.loss(rate + dark if wanted else rate, counts[None], self.mask, 1.0)
            told = self.loss(rate, counts[None], self.mask, 1.0) if wanted else value
            return told, [tf.convert_to_tensor(g) for g in tape.gradient(value, sources)] if wanted else []

        if wanted not in self._functions:
            self._functions[wanted] = traced(evaluate)
        return self._functions[wanted]

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
        asked = tuple(name for name in _NAMES if name in wanted)
        evaluate, step = self._evaluate(asked), max(1, CHUNK_BYTES // probe.nbytes)
        total, sums, positions = 0.0, {"object": np.zeros_like(obj), "probe": np.zeros_like(probe)}, []
        with tf.device(self.device):
            canvas, modes, dark = tf.constant(obj), tf.constant(probe), tf.constant(dark_counts, tf.float32)
            for start in range(0, len(frames), step):
                part = slice(start, start + step)
                counts = tf.constant(self.raw.read_counts(frames[part]))
                rest, corners = tf.constant(subpixel_px[part]), tf.constant(corners_px[part])
                value, found = evaluate(canvas, modes, rest, corners, counts, dark)
                total += float(value)
                for name, gradient in zip(asked, found, strict=True):
                    if name == "positions":
                        positions.append(gradient.numpy())
                    else:
                        sums[name] += gradient.numpy()
        return BatchGradient(
            loss=total,
            object=sums["object"] if "object" in asked else None,
            probe=sums["probe"] if "probe" in asked else None,
            positions=np.concatenate(positions) if "positions" in asked else None,
        )
