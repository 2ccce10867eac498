"""Applying a trained generator to a whole scan, a bounded number of frames at a time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptycho_core.config import InferenceConfig
from ptycho_core.enginekit import network_inference as networks_inference
from ptycho_core.enginekit.architectures import full_channels
from ptycho_core.enginekit.groups import Groups
from ptycho_core.enginekit.network_inference import bytes_kept, groups_at_once
from ptycho_core.enginekit.network_model import NetworkModel
from ptycho_core.runtime import Runtime

from . import physics
from .generators import GENERATORS, load_weights
from .hardware import choose_device, low_precision
from .sweeps import group_estimate, group_passes

__all__ = ["Chunk", "ScanPredictor"]


@dataclass(frozen=True)
class Chunk:
    """Some groups on the device.

    Attributes:
        groups: (b,) their numbers.
        counts: (b, C, N, N).
        shifted_probe: (b, C, P, N, N) complex.
        weights: (b, C, N, N) of the merge.
        counted: (b, C, 1, 1) 1 where a slot counts, else 0.
        index: (b·C·N·N,) pixels of the patches on the canvas of the scan.
        plan: the constants of solver sweeps.
    """

    groups: NDArray[np.int64]
    counts: Tensor
    shifted_probe: Tensor
    weights: Tensor
    counted: Tensor
    index: Tensor
    plan: physics.SolverPlan


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
        device = choose_device(runtime.accelerator)
        raw = data.scan.raw
        self.data, self.scale, self.device = data, scale, device
        generator = GENERATORS[model.config.network.generator](model.config, model.probe.shape[-1])
        load_weights(generator, model.weights)
        self.generator = generator.to(device=device, memory_format=torch.channels_last).eval().requires_grad_(False)
        self.passes = model.passes_for(config)
        self.sweeps = self.generator.sweeps + self.passes - 1
        self.reduced = low_precision(runtime.precision, device)
        self.probe = torch.from_numpy(data.scan.probe.copy()).to(device)
        self.mask = None if raw.mask is None else torch.from_numpy(raw.mask.copy()).to(device)
        self.background = None if raw.background is None else torch.from_numpy(raw.background.copy()).to(device)
        self.known = (self.scale, self.mask, self.background)
        self.step = groups_at_once(data, runtime, full_channels(model.config.network, raw.side))
        self.origin_px = data.canvas_origin_px.min(axis=0)
        height, width_px = (data.canvas_origin_px + data.canvas_shape).max(axis=0) - self.origin_px
        self.shape = (int(height), int(width_px))
        self._kept: list[Chunk] | None = None
        if self.sweeps and bytes_kept(data) <= networks_inference.BYTES_KEPT:
            self._kept = list(self._read())

    def chunks(self) -> Iterator[Chunk]:
        """A few groups after another: kept from sweep to sweep where the scan is small, else read again each time."""
        yield from self._read() if self._kept is None else self._kept

    def _read(self) -> Iterator[Chunk]:
        for start in range(0, self.data.n_groups, self.step):
            groups = np.arange(start, min(start + self.step, self.data.n_groups))
            counts = torch.from_numpy(self.data.read_counts(groups)).to(self.device)
            subpixel = torch.from_numpy(self.data.subpixel_px[groups]).to(self.device)
            shifted = physics.fourier_shift(self.probe, subpixel[..., None, :])
            corners = self.data.corners_px[groups] + (self.data.canvas_origin_px[groups] - self.origin_px)[:, None]
            yield Chunk(
                groups=groups,
                counts=counts,
                shifted_probe=shifted,
                weights=physics.mode_intensity(shifted),
                counted=torch.from_numpy(self.data.counted[groups][..., None, None].astype(np.float32)).to(self.device),
                index=physics.patch_index(
                    torch.from_numpy(corners.reshape(1, -1, 2)).to(self.device), self.data.scan.raw.side, self.shape
                ),
                plan=physics.SolverPlan(shifted, counts, self.mask, self.background, self.scale),
            )

    def _moved(self, chunk: Chunk, canvas: Tensor, learned: bool) -> Tensor:
        """Patches of a chunk after a solver sweep or a learned pass, before the merge."""
        patches = canvas.index_select(0, chunk.index).reshape(chunk.counts.shape)
        return self._asked(chunk, patches) if learned else chunk.plan.sweep(patches)

    def _asked(self, chunk: Chunk, estimate: Tensor) -> Tensor:
        """What the generator says of a chunk, before the merge."""
        patches: Tensor = self.generator(estimate, chunk.counts, chunk.shifted_probe, *self.known, self.reduced)
        return patches

    def _sweep(self, canvas: Tensor, learned: bool) -> Tensor:
        """One solver sweep or learned pass over all frames: canvas (H·W,) → canvas; each frame counts once."""
        numerator, denominator = torch.zeros_like(canvas), torch.zeros_like(canvas.real)
        for chunk in self.chunks():
            weights = chunk.weights * chunk.counted
            moved = self._moved(chunk, canvas, learned) * weights
            numerator.index_add_(0, chunk.index, moved.reshape(-1))
            denominator.index_add_(0, chunk.index, weights.reshape(-1))
        return physics.weighted_mean(numerator, denominator)

    def scan_estimate(self, on_sweep: Callable[[int], None]) -> Tensor:
        """Canvas (H·W,) of the scan after sweeps from the flat object, and all passes but the last."""
        canvas = torch.ones(self.shape[0] * self.shape[1], dtype=torch.complex64, device=self.device)
        for sweep in range(self.sweeps):
            canvas = self._sweep(canvas, learned=sweep >= self.generator.sweeps)
            on_sweep(sweep)
        return canvas

    def _alone(self, chunk: Chunk) -> Tensor:
        """Patches of a chunk with each group on a canvas of its own, before the last merge."""
        height, width = (int(n) for n in self.data.canvas_shape[chunk.groups].max(axis=0))
        corners = torch.from_numpy(self.data.corners_px[chunk.groups]).to(self.device)
        place = (chunk.weights, corners, (height, width))
        estimate = group_estimate(chunk.counts, chunk.shifted_probe, *place, *self.known, self.generator.sweeps)
        return group_passes(functools.partial(self._asked, chunk), estimate, *place, self.passes)

    def predict(
        self, canvas: Tensor | None
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.complex64], NDArray[np.float32]]]:
        """Predict all patches.

        Args:
            canvas: estimate of the scan (H·W,); None makes an estimate for each group alone.

        Yields:
            group numbers (b,), patches (b, C, N, N) complex64, weights (b, C, N, N).
        """
        for chunk in self.chunks():
            patches = self._alone(chunk) if canvas is None else self._moved(chunk, canvas, learned=True)
            yield chunk.groups, patches.cpu().numpy(), chunk.weights.cpu().numpy()
