"""Applying a trained generator to a whole scan, a bounded number of frames at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ptycho_core.config import InferenceConfig
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.networks import inference as networks_inference
from ptycho_core.networks.inference import bytes_kept, groups_at_once
from ptycho_core.networks.model import NetworkModel

from . import physics
from .generators import GENERATORS
from .hardware import choose_devices, low_precision, xla_wins
from .network import constant
from .sweeps import group_estimate

__all__ = ["Chunk", "ScanPredictor"]


@dataclass(frozen=True)
class Chunk:
    """Some groups on the device. All chunks of a scan have as many, the last filled up, so that one trace serves all.

    Attributes:
        groups: (b,) their numbers; the first of them again where a chunk was filled up.
        n_real: how many of them are there in their own right.
        counts: (b, C, N, N).
        shifted_probe: (b, C, P, N, N) complex.
        weights: (b, C, N, N) of the merge.
        counted: (b, C, 1, 1) 1 where a slot counts, else 0.
        corners_px: (1, b·C, 2) corners on the canvas of the scan.
    """

    groups: NDArray[np.int64]
    n_real: int
    counts: tf.Tensor
    shifted_probe: tf.Tensor
    weights: tf.Tensor
    counted: tf.Tensor
    corners_px: tf.Tensor


class ScanPredictor:
    """A generator bound to a scan and a device.

    Args:
        model: trained.
        data: groups of frames.
        scale: s.
        config: batch size, accelerator, precision.

    Raises:
        ConfigError: the accelerator is not there.
    """

    def __init__(self, model: NetworkModel, data: PtychoDataContainer, scale: float, config: InferenceConfig) -> None:
        raw = data.raw
        (self.device,) = choose_devices(config.accelerator)
        self.data, self.scale = data, scale
        self.generator = GENERATORS[model.config.model.generator](model.config, model.probe.shape[-1])
        self.sweeps = self.generator.sweeps
        self.reduced = low_precision(config.precision, self.device)
        self.step = min(groups_at_once(data, config, model.channels(raw.side)), data.n_groups)
        self.origin_px = data.canvas_origin_px.min(axis=0)
        height, width = (data.canvas_origin_px + data.canvas_shape).max(axis=0) - self.origin_px
        self.shape = (int(height), int(width))
        with tf.device(self.device):
            self.weights = {name: tf.constant(value) for name, value in model.weights.items()}
            self.probe, self.mask, self.background = (
                tf.constant(data.probe),
                constant(raw.mask),
                constant(raw.background),
            )
        self._sweep = tf.function(self._swept_sums, jit_compile=xla_wins(self.device, None))
        self._network = tf.function(self._patches)
        self._kept: list[Chunk] | None = None
        if self.sweeps and bytes_kept(data) <= networks_inference.BYTES_KEPT:
            self._kept = list(self._read())

    def chunks(self) -> Iterator[Chunk]:
        """A few groups after another: kept from sweep to sweep where the scan is small, else read again each time."""
        yield from self._read() if self._kept is None else self._kept

    def _read(self) -> Iterator[Chunk]:
        data = self.data
        for start in range(0, data.n_groups, self.step):
            real = np.arange(start, min(start + self.step, data.n_groups))
            groups = np.concatenate([real, np.full(self.step - len(real), real[0])])
            counted = data.counted[groups] & (np.arange(self.step) < len(real))[:, None]
            corners = data.corners_px[groups] + (data.canvas_origin_px[groups] - self.origin_px)[:, None]
            with tf.device(self.device):
                shifted = physics.fourier_shift(self.probe, tf.constant(data.subpixel_px[groups])[..., None, :])
                yield Chunk(
                    groups=groups,
                    n_real=len(real),
                    counts=tf.constant(data.read_group_counts(groups)),
                    shifted_probe=shifted,
                    weights=physics.mode_intensity(shifted),
                    counted=tf.constant(counted[..., None, None].astype(np.float32)),
                    corners_px=tf.constant(corners.reshape(1, -1, 2)),
                )

    def _cut(self, canvas: tf.Tensor, corners_px: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
        """Patches of a chunk from the canvas of the scan (1, H, W)."""
        return tf.reshape(physics.extract(canvas, corners_px, like.shape[-1]), like.shape)

    def _swept_sums(
        self,
        canvas: tf.Tensor,
        counts: tf.Tensor,
        shifted_probe: tf.Tensor,
        weights: tf.Tensor,
        corners_px: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """What a chunk adds to numerator and denominator of the canvas after a sweep."""
        plan = physics.SolverPlan(shifted_probe, counts, self.mask, self.background, self.scale)
        moved = physics.times(plan.sweep(self._cut(canvas, corners_px, counts)), weights)
        flat = (1, -1, *counts.shape[-2:])
        return (
            physics.accumulate(tf.reshape(moved, flat), corners_px, self.shape),
            physics.accumulate(tf.reshape(weights, flat), corners_px, self.shape),
        )

    def scan_estimate(self, on_sweep: Callable[[int], None]) -> tf.Tensor:
        """Canvas (1, H, W) of the scan after the generator's sweeps from the flat object; each frame counts once."""
        with tf.device(self.device):
            canvas = tf.ones((1, *self.shape), tf.complex64)
        for sweep in range(self.sweeps):
            with tf.device(self.device):
                sums = [
                    self._sweep(
                        canvas, chunk.counts, chunk.shifted_probe, chunk.weights * chunk.counted, chunk.corners_px
                    )
                    for chunk in self.chunks()
                ]
                canvas = physics.weighted_mean(*(tf.add_n(parts) for parts in zip(*sums, strict=True)))
            on_sweep(sweep)
        return canvas

    def _patches(self, estimate: tf.Tensor, counts: tf.Tensor, shifted_probe: tf.Tensor) -> tf.Tensor:
        return self.generator(
            self.weights, estimate, counts, shifted_probe, self.scale, self.mask, self.background, self.reduced
        )

    def _estimate_of(self, chunk: Chunk) -> tf.Tensor:
        """An estimate for each group alone, each on a canvas of its own."""
        height, width = (int(n) for n in self.data.canvas_shape[chunk.groups].max(axis=0))
        return group_estimate(
            chunk.counts, chunk.shifted_probe, chunk.weights, tf.constant(self.data.corners_px[chunk.groups]),
            (height, width), self.scale, self.mask, self.background, self.sweeps,
        )  # fmt: skip

    def predict(
        self, canvas: tf.Tensor | None
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.complex64], NDArray[np.float32]]]:
        """Predict all patches.

        Args:
            canvas: estimate of the scan (1, H, W); None makes an estimate for each group alone.

        Yields:
            group numbers (b,), patches (b, C, N, N) complex64, weights (b, C, N, N).
        """
        for chunk in self.chunks():
            with tf.device(self.device):
                if canvas is None:
                    estimate = self._estimate_of(chunk)
                else:
                    estimate = self._cut(canvas, chunk.corners_px, chunk.counts)
                patches = self._network(estimate, chunk.counts, chunk.shifted_probe)
            n = chunk.n_real
            yield chunk.groups[:n], patches.numpy()[:n], chunk.weights.numpy()[:n]
