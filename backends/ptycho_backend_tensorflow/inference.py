"""A trained generator bound to a scan and a device; the order of sweeps, passes and chunks is ``enginekit``'s."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ptycho_core.enginekit.groups import Groups
from ptycho_core.enginekit.network_inference import Part, ScanLayout
from ptycho_core.enginekit.network_model import NetworkModel
from ptycho_core.enginekit.passes import learned_passes
from ptycho_core.runtime import Runtime

from . import physics
from .generators import build
from .hardware import Work, choose_hardware
from .network import Known, constant
from .options import options_of
from .sweeps import group_agreed, group_estimate
from .tracing import traced

__all__ = ["Chunk", "TensorflowScan"]


@dataclass(frozen=True)
class Chunk:
    """Some groups on the device. All chunks of a scan have as many, so that one trace serves all.

    Attributes:
        groups: (b,) their numbers.
        counts: (b, C, N, N).
        shifted_probe: (b, C, P, N, N) complex.
        weights: (b, C, N, N) of the merge.
        counting: (b, C, N, N) the weights of the slots that count, 0 elsewhere.
        plan: the constants of solver sweeps.
        window_px: corner (y, x) on the canvas of the scan of the window in which these groups lie.
        corners_px: (1, b·C, 2) corners in that window.
    """

    groups: NDArray[np.int64]
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

    def add(self, canvas: tf.Variable, window: tf.Tensor) -> None:
        """Add what fills the window to a canvas (H, W)."""
        part = self.part(canvas, window.shape)
        part.assign(part + window)


class TensorflowScan:
    """See ``enginekit.network_inference.ScanWork``; canvases are (H, W).

    Args:
        model: trained.
        data: groups of frames.
        scale: s.
        passes: learned passes over the canvas of a group alone.
        runtime: frames at once, accelerator, precision.

    Raises:
        ConfigError: the accelerator is not there.
    """

    def __init__(self, model: NetworkModel, data: Groups, scale: float, passes: int, runtime: Runtime) -> None:
        raw, network = data.scan.raw, model.network
        self.data, self.scale, self.passes, self.solver_sweeps = data, scale, passes, network.sweeps
        self.generator = build(model.config, model.probe.shape[-1])
        work = Work(data.frame_indices.size * raw.side**2, 0, network.sweeps)
        jit = options_of(model.config).jit
        hardware = choose_hardware(runtime.accelerator, runtime.precision, work, jit=jit)
        (self.device,), self.reduced = hardware.devices, hardware.low_precision
        self.layout = ScanLayout(data, runtime, network.channels(raw.side), filled=True)
        self.window, (height, width) = self.layout.window, data.canvas_shape.max(axis=0)
        self.group_shape = (int(height), int(width))
        with tf.device(self.device):
            self.weights = {name: tf.constant(value) for name, value in model.weights.items()}
            self.probe = tf.constant(data.scan.probe)
            self.known = Known(constant(raw.mask), constant(raw.background), raw.propagation)
            self._numerator = tf.Variable(tf.zeros(self.layout.shape, tf.complex64))
            self._denominator = tf.Variable(tf.zeros(self.layout.shape))
        self._sweep = traced(self._swept_sum, compiled=hardware.compile_sweeps)
        self._estimate = traced(self._group_estimate, compiled=hardware.compile_sweeps)
        self._alone = traced(self._group_patches)
        self._prepared = traced(self._arrays)
        self._network = traced(self._patches)
        self._pass = traced(self._passed_sum)

    def flat(self) -> tf.Tensor:
        """The flat canvas."""
        with tf.device(self.device):
            return tf.ones(self.layout.shape, tf.complex64)

    def prepare(self, part: Part) -> Chunk:
        """Some groups on the device."""
        with tf.device(self.device):
            arrays = self._prepared(
                tf.constant(self.data.read_counts(part.groups)),
                tf.constant(self.data.subpixel_px[part.groups]),
                tf.constant(part.counting),
            )
            corners = part.corners_px.reshape(1, -1, 2) - part.window_px
            return Chunk(part.groups, *arrays, part.window_px, tf.constant(corners))

    def weigh(self, chunk: Chunk) -> None:
        """Add weights."""
        with tf.device(self.device):
            chunk.add(self._denominator, self._sum(chunk.counting, chunk.corners_px))

    def add(self, chunk: Chunk, canvas: tf.Tensor, learned: bool) -> None:
        """Add patches."""
        with tf.device(self.device):
            before, place = chunk.part(canvas, self.window), (chunk.counting, chunk.corners_px)
            if learned:
                swept = self._pass(before, chunk.counts, chunk.shifted_probe, *place)
            else:
                swept = self._sweep(before, chunk.plan, *place)
            chunk.add(self._numerator, swept)

    def merged(self) -> tf.Tensor:
        """The weighted mean."""
        with tf.device(self.device):
            canvas = physics.weighted_mean(self._numerator, self._denominator)
            self._numerator.assign(tf.zeros_like(canvas))
            return canvas

    def predict(self, chunk: Chunk, canvas: tf.Tensor | None) -> tuple[NDArray[np.complex64], NDArray[np.float32]]:
        """Patches and weights."""
        with tf.device(self.device):
            if canvas is None:
                corners = tf.constant(self.data.corners_px[chunk.groups])
                seen = (chunk.counts, chunk.shifted_probe, chunk.weights, corners)
                patches = self._alone(self._estimate(*seen), *seen)
            else:
                estimate = self._cut(chunk.part(canvas, self.window), chunk.corners_px, chunk.counts)
                patches = self._network(estimate, chunk.counts, chunk.shifted_probe)
            return patches.numpy(), chunk.weights.numpy()

    def _arrays(self, counts: tf.Tensor, subpixel_px: tf.Tensor, counted: tf.Tensor) -> tuple[Any, ...]:
        """Counts, shifted probe, weights, counting and plan of a chunk."""
        shifted = physics.fourier_shift(self.probe, subpixel_px[..., None, :])
        weights, known = physics.mode_intensity(shifted), self.known
        plan = physics.SolverPlan.of(shifted, counts, known.mask, known.background, self.scale, known.propagation)
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

    def _patches(self, estimate: tf.Tensor, counts: tf.Tensor, shifted_probe: tf.Tensor) -> tf.Tensor:
        return self.generator(self.weights, estimate, counts, shifted_probe, self.scale, *self.known, self.reduced)

    def _group_estimate(
        self, counts: tf.Tensor, shifted_probe: tf.Tensor, weights: tf.Tensor, corners_px: tf.Tensor
    ) -> tf.Tensor:
        """An estimate for each group alone, on canvases that would hold any group of the scan."""
        return group_estimate(
            counts, shifted_probe, weights, corners_px, self.group_shape, self.scale, *self.known, self.solver_sweeps
        )

    def _group_patches(
        self,
        estimate: tf.Tensor,
        counts: tf.Tensor,
        shifted_probe: tf.Tensor,
        weights: tf.Tensor,
        corners_px: tf.Tensor,
    ) -> tf.Tensor:
        """Patches of groups on canvases of their own, before the last merge."""

        def one(estimate: tf.Tensor) -> tf.Tensor:
            return self._patches(estimate, counts, shifted_probe)

        place = (weights, corners_px, self.group_shape)
        return learned_passes(one, lambda patches: group_agreed(patches, *place), estimate, self.passes)
