"""Applying a trained generator to a whole scan, a bounded number of frames at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ptycho_core.config import InferenceConfig
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.networks import inference as networks_inference
from ptycho_core.networks.architectures import full_channels
from ptycho_core.networks.inference import bytes_kept, groups_at_once
from ptycho_core.networks.model import NetworkModel

from . import physics
from .generators import GENERATORS
from .hardware import Work, choose_hardware
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
        counting: (b, C, N, N) the weights of the slots that count, 0 elsewhere.
        plan: the constants of solver sweeps.
        corners_px: (1, b·C, 2) corners on the canvas of the scan.
    """

    groups: NDArray[np.int64]
    n_real: int
    counts: tf.Tensor
    shifted_probe: tf.Tensor
    weights: tf.Tensor
    counting: tf.Tensor
    plan: physics.SolverPlan
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
        self.data, self.scale = data, scale
        self.generator = GENERATORS[model.config.model.generator](model.config, model.probe.shape[-1])
        self.sweeps = self.generator.sweeps
        work = Work(data.frame_indices.size * raw.side**2, 0, self.sweeps)
        hardware = choose_hardware(config.accelerator, config.precision, work)
        (self.device,), self.reduced = hardware.devices, hardware.low_precision
        self.step = min(groups_at_once(data, config, full_channels(model.config.model, raw.side)), data.n_groups)
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
        self._sweep = tf.function(self._swept_sums, autograph=False, jit_compile=hardware.compile_sweeps)
        self._estimate = tf.function(self._group_estimate, autograph=False, jit_compile=hardware.compile_sweeps)
        self._prepared = tf.function(self._arrays, autograph=False)
        self._network = tf.function(self._patches, autograph=False)
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
                chunk = self._prepared(
                    tf.constant(data.read_group_counts(groups)),
                    tf.constant(data.subpixel_px[groups]),
                    tf.constant(counted[..., None, None].astype(np.float32)),
                )
                yield Chunk(groups, len(real), *chunk, tf.constant(corners.reshape(1, -1, 2)))

    def _arrays(self, counts: tf.Tensor, subpixel_px: tf.Tensor, counted: tf.Tensor) -> tuple[Any, ...]:
        """Counts, shifted probe, weights, counting and plan of a chunk."""
        shifted = physics.fourier_shift(self.probe, subpixel_px[..., None, :])
        weights = physics.mode_intensity(shifted)
        plan = physics.SolverPlan.of(shifted, counts, self.mask, self.background, self.scale)
        return counts, shifted, weights, weights * counted, plan

    def _cut(self, canvas: tf.Tensor, corners_px: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
        """Patches of a chunk from the canvas of the scan (1, H, W)."""
        return tf.reshape(physics.extract(canvas, corners_px, like.shape[-1]), like.shape)

    def _swept_sums(
        self, canvas: tf.Tensor, plan: physics.SolverPlan, weights: tf.Tensor, corners_px: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """What a chunk adds to numerator and denominator of the canvas after a sweep."""
        moved = physics.times(plan.sweep(self._cut(canvas, corners_px, weights)), weights)
        flat = (1, -1, *weights.shape[-2:])
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
                sums = [tf.zeros_like(canvas), tf.zeros_like(tf.math.real(canvas))]
                for chunk in self.chunks():
                    more = self._sweep(canvas, chunk.plan, chunk.counting, chunk.corners_px)
                    sums = [total + part for total, part in zip(sums, more, strict=True)]
                canvas = physics.weighted_mean(*sums)
            on_sweep(sweep)
        return canvas

    def _patches(self, estimate: tf.Tensor, counts: tf.Tensor, shifted_probe: tf.Tensor) -> tf.Tensor:
        return self.generator(
            self.weights, estimate, counts, shifted_probe, self.scale, self.mask, self.background, self.reduced
        )

    def _group_estimate(
        self, counts: tf.Tensor, shifted_probe: tf.Tensor, weights: tf.Tensor, corners_px: tf.Tensor
    ) -> tf.Tensor:
        """An estimate for each group alone, on canvases that would hold any group of the scan."""
        height, width = self.data.canvas_shape.max(axis=0)
        return group_estimate(
            counts, shifted_probe, weights, corners_px, (int(height), int(width)), self.scale, self.mask,
            self.background, self.sweeps,
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
                    corners = tf.constant(self.data.corners_px[chunk.groups])
                    estimate = self._estimate(chunk.counts, chunk.shifted_probe, chunk.weights, corners)
                else:
                    estimate = self._cut(canvas, chunk.corners_px, chunk.counts)
                patches = self._network(estimate, chunk.counts, chunk.shifted_probe)
            n = chunk.n_real
            yield chunk.groups[:n], patches.numpy()[:n], chunk.weights.numpy()[:n]
