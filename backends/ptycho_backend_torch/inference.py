"""A trained generator bound to a scan and a device; the order of sweeps, passes and chunks is ``enginekit``'s."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptycho_core.enginekit.engine_threads import FixedThreads, Threads
from ptycho_core.enginekit.groups import Groups
from ptycho_core.enginekit.network_inference import Part, ScanLayout
from ptycho_core.enginekit.network_model import NetworkModel
from ptycho_core.enginekit.passes import learned_passes
from ptycho_core.runtime import Runtime

from . import physics
from .generators import build, load_weights
from .gradient import computing_threads
from .hardware import choose_device, low_precision
from .sweeps import group_agreed, group_estimate

__all__ = ["Chunk", "TorchScan"]


@dataclass(frozen=True)
class Chunk:
    """Some groups on the device.

    Attributes:
        groups: (b,) their numbers.
        counts: (b, C, N, N).
        shifted_probe: (b, C, P, N, N) complex.
        weights: (b, C, N, N) of the merge.
        counting: (b, C, N, N) the weights of the slots that count, 0 elsewhere.
        index: (b·C·N·N,) pixels of the patches on the canvas of the scan.
        plan: the constants of solver sweeps.
    """

    groups: NDArray[np.int64]
    counts: Tensor
    shifted_probe: Tensor
    weights: Tensor
    counting: Tensor
    index: Tensor
    plan: physics.SolverPlan


class TorchScan:
    """See ``enginekit.network_inference.ScanWork``; canvases are (H·W,), and all is called in inference mode.

    Args:
        model: trained.
        data: groups of frames.
        scale: s.
        passes: learned passes over the canvas of a group alone.
        runtime: frames at once, accelerator, precision.
        threads: of the operations, on a processor.

    Raises:
        ConfigError: the accelerator is not there.
    """

    def __init__(
        self, model: NetworkModel, data: Groups, scale: float, passes: int, runtime: Runtime, threads: Threads
    ) -> None:
        device, raw, network = choose_device(runtime.accelerator), data.scan.raw, model.network
        self.threads = threads if device.type == "cpu" else FixedThreads(1)
        self.data, self.device, self.passes, self.solver_sweeps = data, device, passes, network.sweeps
        self.layout = ScanLayout(data, runtime, network.channels(raw.side), filled=False)
        generator = build(model.config, model.probe.shape[-1])
        load_weights(generator, model.weights)
        self.generator = generator.to(device=device, memory_format=torch.channels_last).eval().requires_grad_(False)
        self.reduced = low_precision(runtime.precision, device)
        self.probe = torch.from_numpy(data.scan.probe.copy()).to(device)
        mask, background = (
            None if array is None else torch.from_numpy(array.copy()).to(device) for array in (raw.mask, raw.background)
        )
        self.known = (scale, mask, background, raw.propagation)
        self._numerator = torch.zeros_like(self.flat())
        self._denominator = torch.zeros_like(self._numerator.real)

    def flat(self) -> Tensor:
        """The flat canvas."""
        height, width = self.layout.shape
        return torch.ones(height * width, dtype=torch.complex64, device=self.device)

    def prepare(self, part: Part) -> Chunk:
        """Some groups on the device."""
        with self._working("prepare", part.groups):
            return self._prepare(part)

    @contextmanager
    def _working(self, kind: str, groups: NDArray[np.int64]) -> Iterator[None]:
        """Work on some groups with the threads that are chosen."""
        with self.threads.step(kind, len(groups)) as n_threads, computing_threads(self.device, n_threads):
            yield

    def _prepare(self, part: Part) -> Chunk:
        scale, mask, background, propagation = self.known
        counts = torch.from_numpy(self.data.read_counts(part.groups)).to(self.device)
        subpixel = torch.from_numpy(self.data.subpixel_px[part.groups]).to(self.device)
        shifted = physics.fourier_shift(self.probe, subpixel[..., None, :])
        weights = physics.mode_intensity(shifted)
        corners = torch.from_numpy(part.corners_px.reshape(1, -1, 2)).to(self.device)
        return Chunk(
            groups=part.groups,
            counts=counts,
            shifted_probe=shifted,
            weights=weights,
            counting=weights * torch.from_numpy(part.counting).to(self.device),
            index=physics.patch_index(corners, counts.shape[-1], self.layout.shape),
            plan=physics.SolverPlan(shifted, counts, mask, background, scale, propagation),
        )

    def weigh(self, chunk: Chunk) -> None:
        """Add weights."""
        self._denominator.index_add_(0, chunk.index, chunk.counting.reshape(-1))

    def add(self, chunk: Chunk, canvas: Tensor, learned: bool) -> None:
        """Add patches."""
        with self._working("pass" if learned else "sweep", chunk.groups):
            moved = self._moved(chunk, canvas, learned) * chunk.counting
            self._numerator.index_add_(0, chunk.index, moved.reshape(-1))

    def merged(self) -> Tensor:
        """The weighted mean."""
        canvas = physics.weighted_mean(self._numerator, self._denominator)
        self._numerator.zero_()
        return canvas

    def predict(self, chunk: Chunk, canvas: Tensor | None) -> tuple[NDArray[np.complex64], NDArray[np.float32]]:
        """Patches and weights."""
        with self._working("alone" if canvas is None else "predict", chunk.groups):
            patches = self._alone(chunk) if canvas is None else self._moved(chunk, canvas, learned=True)
        return patches.cpu().numpy(), chunk.weights.cpu().numpy()

    def _moved(self, chunk: Chunk, canvas: Tensor, learned: bool) -> Tensor:
        patches = canvas.index_select(0, chunk.index).reshape(chunk.counts.shape)
        return self._asked(chunk, patches) if learned else chunk.plan.sweep(patches)

    def _asked(self, chunk: Chunk, estimate: Tensor) -> Tensor:
        """What the generator says of a chunk, before the merge."""
        patches: Tensor = self.generator(estimate, chunk.counts, chunk.shifted_probe, *self.known, self.reduced)
        return patches

    def _alone(self, chunk: Chunk) -> Tensor:
        """Patches of a chunk with each group on a canvas of its own, before the last merge."""
        height, width = (int(n) for n in self.data.canvas_shape[chunk.groups].max(axis=0))
        corners = torch.from_numpy(self.data.corners_px[chunk.groups]).to(self.device)
        place = (chunk.weights, corners, (height, width))
        estimate = group_estimate(chunk.counts, chunk.shifted_probe, *place, *self.known, self.solver_sweeps)
        one = functools.partial(self._asked, chunk)
        return learned_passes(one, lambda patches: group_agreed(patches, *place), estimate, self.passes)
