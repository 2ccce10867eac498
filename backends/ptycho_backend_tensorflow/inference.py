"""Applying a trained generator to a whole scan, a bounded number of frames at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ptycho_core.config import InferenceConfig
from ptycho_core.enginekit import network_inference as networks_inference
from ptycho_core.enginekit.architectures import full_channels
from ptycho_core.enginekit.groups import Groups
from ptycho_core.enginekit.network_inference import bytes_kept, groups_at_once
from ptycho_core.enginekit.network_model import NetworkModel
from ptycho_core.runtime import Runtime

from . import physics
from .generators import GENERATORS
from .hardware import Work, choose_hardware
from .network import constant
from .sweeps import group_estimate, group_passes
from .tracing import traced

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
        window_px: corner (y, x) on the canvas of the scan of the window in which these groups lie.
        corners_px: (1, b·C, 2) corners in that window.
    """

    groups: NDArray[np.int64]
    n_real: int
    counts: tf.Tensor
    shifted_probe: tf.Tensor
    weights: tf.Tensor
    counting: tf.Tensor
    plan: physics.SolverPlan
    window_px: tuple[int, int]
    corners_px: tf.Tensor

    def part(self, canvas: tf.Tensor | tf.Variable, shape: tuple[int, int]) -> tf.Tensor:
        """The window, of a shape that all chunks share, of a canvas (H, W)."""
        (y, x), (height, width) = self.window_px, shape
        return canvas[y : y + height, x : x + width]


class ScanPredictor:
    """A generator bound to a scan and a device.

    Args:
        model: trained.
        data: groups of frames.
        scale: s.
        config: passes over the canvas.
        runtime: frames at once, accelerator, precision.

    Raises:
        ConfigError: the accelerator is not there.
    """

    def __init__(
        self, model: NetworkModel, data: Groups, scale: float, config: InferenceConfig, runtime: Runtime
    ) -> None:
        raw = data.scan.raw
        self.data, self.scale = data, scale
        self.generator = GENERATORS[model.config.network.generator](model.config, model.probe.shape[-1])
        self.passes = model.passes_for(config)
        self.sweeps = self.generator.sweeps + self.passes - 1
        work = Work(data.frame_indices.size * raw.side**2, 0, self.generator.sweeps)
        hardware = choose_hardware(runtime.accelerator, runtime.precision, work)
        (self.device,), self.reduced = hardware.devices, hardware.low_precision
        self.step = min(groups_at_once(data, runtime, full_channels(model.config.network, raw.side)), data.n_groups)
        self.origin_px = data.canvas_origin_px.min(axis=0)
        height, width = (data.canvas_origin_px + data.canvas_shape).max(axis=0) - self.origin_px
        self.shape = (int(height), int(width))
        self.corners_px = data.corners_px + (data.canvas_origin_px - self.origin_px)[:, None]
        # a chunk is swept in the window where its groups lie, so that a sweep's work grows with the frames alone
        starts = range(0, data.n_groups, self.step)
        spans = [np.ptp(self.corners_px[start : start + self.step], axis=(0, 1)) for start in starts]
        height, width = np.max(spans, axis=0) + raw.side
        self.window = (int(height), int(width))
        with tf.device(self.device):
            self.weights = {name: tf.constant(value) for name, value in model.weights.items()}
            self.probe, self.mask, self.background = (
                tf.constant(data.scan.probe),
                constant(raw.mask),
                constant(raw.background),
            )
        self._sweep = traced(self._swept_sum, compiled=hardware.compile_sweeps)
        self._estimate = traced(self._group_estimate, compiled=hardware.compile_sweeps)
        self._alone = traced(self._group_patches)
        self._prepared = traced(self._arrays)
        self._network = traced(self._patches)
        self._pass = traced(self._passed_sum)
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
            corners = self.corners_px[groups].reshape(1, -1, 2)
            window = np.minimum(corners.min(axis=(0, 1)), np.subtract(self.shape, self.window))
            with tf.device(self.device):
                arrays = self._prepared(
                    tf.constant(data.read_counts(groups)),
                    tf.constant(data.subpixel_px[groups]),
                    tf.constant(counted[..., None, None].astype(np.float32)),
                )
                chunk = Chunk(
                    groups, len(real), *arrays, (int(window[0]), int(window[1])), tf.constant(corners - window)
                )
            yield chunk

    def _arrays(self, counts: tf.Tensor, subpixel_px: tf.Tensor, counted: tf.Tensor) -> tuple[Any, ...]:
        """Counts, shifted probe, weights, counting and plan of a chunk."""
        shifted = physics.fourier_shift(self.probe, subpixel_px[..., None, :])
        weights = physics.mode_intensity(shifted)
        plan = physics.SolverPlan.of(shifted, counts, self.mask, self.background, self.scale)
        return counts, shifted, weights, weights * counted, plan

    def _cut(self, window: tf.Tensor, corners_px: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
        """Patches of a chunk from its window (h, w)."""
        return tf.reshape(physics.extract(window[None], corners_px, like.shape[-1]), like.shape)

    def _sum(self, patches: tf.Tensor, corners_px: tf.Tensor) -> tf.Tensor:
        """Patches of a chunk added up in its window (h, w)."""
        flat = tf.reshape(patches, (1, -1, *patches.shape[-2:]))
        return physics.accumulate(flat, corners_px, self.window)[0]

    def _swept_sum(
        self, window: tf.Tensor, plan: physics.SolverPlan, weights: tf.Tensor, corners_px: tf.Tensor
    ) -> tf.Tensor:
        """What a chunk adds to the numerator of its window after a sweep."""
        moved = plan.sweep(self._cut(window, corners_px, weights))
        return self._sum(physics.times(moved, weights), corners_px)

    def _passed_sum(
        self, window: tf.Tensor, counts: tf.Tensor, shifted_probe: tf.Tensor, weights: tf.Tensor, corners_px: tf.Tensor
    ) -> tf.Tensor:
        """What a chunk adds to the numerator of its window after a learned pass."""
        patches = self._patches(self._cut(window, corners_px, weights), counts, shifted_probe)
        return self._sum(physics.times(patches, weights), corners_px)

    def _moved_sum(self, chunk: Chunk, canvas: tf.Tensor, learned: bool) -> tf.Tensor:
        """The same after a solver sweep or a learned pass."""
        before, place = chunk.part(canvas, self.window), (chunk.counting, chunk.corners_px)
        if learned:
            return self._pass(before, chunk.counts, chunk.shifted_probe, *place)
        return self._sweep(before, chunk.plan, *place)

    def scan_estimate(self, on_sweep: Callable[[int], None]) -> tf.Tensor:
        """Canvas (H, W) of the scan after sweeps from the flat object, and all passes but the last.

        Each frame counts once.
        """
        with tf.device(self.device):
            canvas = tf.ones(self.shape, tf.complex64)
            numerator, denominator = tf.Variable(tf.zeros_like(canvas)), tf.Variable(tf.zeros(self.shape))
        for sweep in range(self.sweeps):
            for chunk in self.chunks():
                with tf.device(self.device):
                    swept = self._moved_sum(chunk, canvas, learned=sweep >= self.generator.sweeps)
                    chunk.part(numerator, self.window).assign(chunk.part(numerator, self.window) + swept)
                    if sweep == 0:  # weights are the same in every sweep
                        weights = self._sum(chunk.counting, chunk.corners_px)
                        chunk.part(denominator, self.window).assign(chunk.part(denominator, self.window) + weights)
            with tf.device(self.device):
                canvas = physics.weighted_mean(numerator, denominator)
                numerator.assign(tf.zeros_like(canvas))
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
            self.background, self.generator.sweeps,
        )  # fmt: skip

    def _group_patches(
        self,
        estimate: tf.Tensor,
        counts: tf.Tensor,
        shifted_probe: tf.Tensor,
        weights: tf.Tensor,
        corners_px: tf.Tensor,
    ) -> tf.Tensor:
        """Patches of groups on canvases of their own, before the last merge."""
        height, width = self.data.canvas_shape.max(axis=0)

        def one(estimate: tf.Tensor) -> tf.Tensor:
            return self._patches(estimate, counts, shifted_probe)

        return group_passes(one, estimate, weights, corners_px, (int(height), int(width)), self.passes)

    def predict(
        self, canvas: tf.Tensor | None
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.complex64], NDArray[np.float32]]]:
        """Predict all patches.

        Args:
            canvas: estimate of the scan (H, W); None makes an estimate for each group alone.

        Yields:
            group numbers (b,), patches (b, C, N, N) complex64, weights (b, C, N, N).
        """
        for chunk in self.chunks():
            with tf.device(self.device):
                if canvas is None:
                    corners = tf.constant(self.data.corners_px[chunk.groups])
                    seen = (chunk.counts, chunk.shifted_probe, chunk.weights, corners)
                    patches = self._alone(self._estimate(*seen), *seen)
                else:
                    estimate = self._cut(chunk.part(canvas, self.window), chunk.corners_px, chunk.counts)
                    patches = self._network(estimate, chunk.counts, chunk.shifted_probe)
            n = chunk.n_real
            yield chunk.groups[:n], patches.numpy()[:n], chunk.weights.numpy()[:n]
