"""Applying a trained generator to a whole scan, a bounded number of frames at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ptycho_core.config import InferenceConfig
from ptycho_core.data.container import PtychoDataContainer

from . import physics
from .hardware import choose_device, low_precision
from .sweeps import group_estimate

__all__ = ["Chunk", "ScanPredictor", "groups_at_once"]

_BYTES = 384 * 2**20
_BYTES_PER_PIXEL_AND_CHANNEL = 40


def groups_at_once(data: PtychoDataContainer, config: InferenceConfig, width: int) -> int:
    """Groups in a step: as many as `batch_size` frames fill, fewer where their activations would not fit."""
    C, N, P = data.group_size, data.raw.side, len(data.probe)
    per_frame = N * N * (_BYTES_PER_PIXEL_AND_CHANNEL * width + 80 * P)
    return max(1, min(config.batch_size // C, _BYTES // (per_frame * C)))


@dataclass(frozen=True)
class Chunk:
    """Some groups on the device: numbers, counts (b, C, N, N), shifted probe (b, C, P, N, N), weights (b, C, N, N)."""

    groups: NDArray[np.int64]
    counts: Tensor
    shifted_probe: Tensor
    weights: Tensor


class ScanPredictor:
    """A generator bound to a scan and a device.

    Args:
        generator: trained; it is moved to the device asked for.
        data: groups of frames.
        scale: s.
        config: batch size, accelerator, precision.
        width: channels of the widest full-resolution layer, for the memory estimate.

    Raises:
        ConfigError: the accelerator is not there.
    """

    def __init__(
        self, generator: nn.Module, data: PtychoDataContainer, scale: float, config: InferenceConfig, width: int
    ) -> None:
        device = choose_device(config.accelerator)
        raw = data.raw
        self.data, self.scale, self.device = data, scale, device
        self.generator = generator.to(device=device, memory_format=torch.channels_last).eval()
        self.reduced = low_precision(config.precision, device)
        self.probe = torch.from_numpy(data.probe.copy()).to(device)
        self.mask = None if raw.mask is None else torch.from_numpy(raw.mask.copy()).to(device)
        self.background = None if raw.background is None else torch.from_numpy(raw.background.copy()).to(device)
        self.step = groups_at_once(data, config, width)
        self.origin_px = data.canvas_origin_px.min(axis=0)
        height, width_px = (data.canvas_origin_px + data.canvas_shape).max(axis=0) - self.origin_px
        self.shape = (int(height), int(width_px))

    def chunks(self) -> Iterator[Chunk]:
        """Read and shift a few groups after another."""
        for start in range(0, self.data.n_groups, self.step):
            groups = np.arange(start, min(start + self.step, self.data.n_groups))
            counts = torch.from_numpy(self.data.read_group_counts(groups)).to(self.device)
            subpixel = torch.from_numpy(self.data.subpixel_px[groups]).to(self.device)
            shifted = physics.fourier_shift(self.probe, subpixel[..., None, :])
            yield Chunk(groups, counts, shifted, physics.probe_weights(shifted))

    def scan_corners(self, groups: NDArray[np.int64]) -> Tensor:
        """Corners (1, b·C, 2) of the patches of some groups on the canvas of the scan."""
        corners = self.data.corners_px[groups] + (self.data.canvas_origin_px[groups] - self.origin_px)[:, None]
        return torch.from_numpy(corners.reshape(1, -1, 2)).to(self.device)

    def _sweep(self, canvas: Tensor) -> Tensor:
        """One parallel solver sweep over all frames: canvas (1, H, W) → canvas; each frame counts once."""
        numerator, denominator = torch.zeros_like(canvas), torch.zeros_like(canvas.real)
        N = self.data.raw.side
        for chunk in self.chunks():
            corners = self.scan_corners(chunk.groups)
            patches = physics.extract(canvas, corners, N).reshape(chunk.counts.shape)
            update = physics.solver_update(
                patches, chunk.shifted_probe, chunk.counts, self.mask, self.background, self.scale
            )
            counted = torch.from_numpy(self.data.counted[chunk.groups].copy()).to(self.device)
            weights = chunk.weights * counted[..., None, None]
            moved = (patches + physics.RELAXATION * update) * weights
            physics.add_patches(numerator, moved.reshape(1, -1, N, N), corners)
            physics.add_patches(denominator, weights.reshape(1, -1, N, N), corners)
        return physics.weighted_mean(numerator, denominator)

    def scan_estimate(self, on_sweep: Callable[[int], None]) -> Tensor:
        """Canvas (1, H, W) of the scan after the generator's sweeps from the flat object."""
        canvas = torch.ones((1, *self.shape), dtype=torch.complex64, device=self.device)
        for sweep in range(self.generator.sweeps):
            canvas = self._sweep(canvas)
            on_sweep(sweep)
        return canvas

    def predict(self, canvas: Tensor | None) -> Iterator[tuple[NDArray[np.int64], NDArray[np.complex64], Tensor]]:
        """Predict all patches.

        Args:
            canvas: estimate of the scan (1, H, W); None makes an estimate for each group alone.

        Yields:
            group numbers (b,), patches (b, C, N, N) complex64, weights (b, C, N, N).
        """
        known = (self.scale, self.mask, self.background)
        N = self.data.raw.side
        for chunk in self.chunks():
            if canvas is not None:
                estimate = physics.extract(canvas, self.scan_corners(chunk.groups), N).reshape(chunk.counts.shape)
            else:
                height, width = (int(n) for n in self.data.canvas_shape[chunk.groups].max(axis=0))
                corners = torch.from_numpy(self.data.corners_px[chunk.groups]).to(self.device)
                estimate = group_estimate(
                    chunk.counts, chunk.shifted_probe, chunk.weights, corners, (height, width), *known,
                    self.generator.sweeps,
                )  # fmt: skip
            patches = self.generator(estimate, chunk.counts, chunk.shifted_probe, *known, self.reduced)
            yield chunk.groups, patches.cpu().numpy(), chunk.weights
