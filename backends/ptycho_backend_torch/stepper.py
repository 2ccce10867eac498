"""The stepper: object, probe and momentum of one scan on a device, moved by the formulas of ``physics``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.data.results import Image
from ptycho_core.enginekit.engine_threads import FixedThreads, Threads
from ptycho_core.enginekit.frame_store import KEPT_BYTES, FrameStore, filled
from ptycho_core.enginekit.state import Start, finish, level_of
from ptycho_core.physics.corrections import support_mask
from ptycho_core.protocol import Constraints, Quantity, StepLengths
from ptycho_core.runtime import Runtime

from . import physics
from .gradient import Batch, ScanPhysics, computing_threads
from .hardware import choose_device

__all__ = ["TorchStepper"]


@dataclass(frozen=True)
class _Kept:
    """A state put aside on the device; positions and intensities are few and stay on the host."""

    object: Tensor
    probe: Tensor
    positions: Any
    intensities: NDArray[np.float64]


def _kept_bytes(device: torch.device) -> int:
    """Counts that may stay on a device: half of what a GPU has free."""
    return torch.cuda.mem_get_info(device)[0] // 2 if device.type == "cuda" else KEPT_BYTES


def _put_counts(
    propagator: physics.Propagator, device: torch.device, real: torch.dtype, counts: NDArray[np.float32]
) -> Tensor:
    """Counts (n, N, N) on a device, as they are computed with."""
    frames = torch.from_numpy(counts)
    if device.type == "cuda":
        frames = frames.pin_memory()
    return propagator.detector_layout(frames.to(device, non_blocking=True)).to(real)


def _picked(kept: Tensor, rows: NDArray[np.int64]) -> Tensor:
    return kept.index_select(0, torch.from_numpy(rows).to(kept.device))


class TorchStepper:
    """See ``protocol.Stepper``; the reference is that of the NumPy engine.

    Positions and intensities, a few numbers a frame, are kept on the host: they cross with every batch, and what is
    as large as the object never does.

    Args:
        image: to start from.
        scan: its scan.
        loss: ``poisson`` or ``amplitude``.
        runtime: ``accelerator``, ``precision`` and ``threads`` are read.
        threads: what chooses their number; None takes ``runtime.threads``, or as many as PyTorch would.
    """

    def __init__(
        self, image: Image, scan: PtychoDataContainer, loss: str, runtime: Runtime, threads: Threads | None = None
    ) -> None:
        start = Start.of(image, scan, np.complex128 if runtime.precision == "64" else np.complex64)
        self.scan, self.loss_name, self.scale = scan, loss, start.scale
        self.device = choose_device(runtime.accelerator)
        if threads is None:
            threads = FixedThreads(runtime.threads or torch.get_num_threads())
        self.object, self.probe = self._put(start.object), self._put(start.probe)
        self.velocity = torch.zeros_like(self.object)
        self.positions, self.intensities = start.positions, start.intensities
        self.physics = ScanPhysics(scan.raw, loss, self.device, self.object.dtype, threads)
        self.store = FrameStore(
            scan,
            partial(_put_counts, self.physics.propagator, self.device, self.object.dtype.to_real()),
            _kept_bytes(self.device),
            join=partial(filled, empty=Tensor.new_empty),
            pick=_picked,
        )
        self._level: tuple[float, Tensor] | None = None
        self._kept_pixels: tuple[float, Tensor] | None = None

    def prepare(self, frames: NDArray[np.int64]) -> None:
        """See ``Stepper``."""
        self.store.prepare(frames)

    def begin(self) -> None:
        """See ``Stepper``."""
        self.velocity.zero_()

    def step(self, frames: NDArray[np.int64], lengths: StepLengths, wanted: Collection[Quantity]) -> Tensor:
        """See ``Stepper``."""
        self._level = None
        corners, rest = self.positions.corners(frames)
        low, high = corners.min(axis=0), corners.max(axis=0) + self.scan.raw.side
        box = (slice(low[0], high[0]), slice(low[1], high[1]))
        obj, batch = self.object[box], self._batch(frames, corners - low, rest)
        with computing_threads(self.device, 1):
            got = self.physics.gradient(obj, self.probe, batch, wanted)
            if got.positions is not None and got.light is not None:
                level = physics.lit_level(obj, got.light)
                self._move(frames, batch, got.positions, level, lengths, common="object" in wanted)
            if got.probe is not None and got.patch_light is not None:
                self.probe += lengths.probe * physics.probe_step(got.probe, got.patch_light, self.loss_name)
            if got.gains is not None:
                self.intensities[frames] *= got.gains.cpu().numpy().astype(np.float64) ** (lengths.object / 2)
            if got.object is not None and got.light is not None:
                self._advance(obj, self.velocity[box], got.object, got.light, lengths)
        return got.loss

    def _move(
        self,
        frames: NDArray[np.int64],
        batch: Batch,
        slope: Tensor,
        level: Tensor,
        lengths: StepLengths,
        *,
        common: bool,
    ) -> None:
        """Move frames by the slopes (J, 2) of their loss and the level () of the object."""
        if batch.intensities is not None:
            slope = slope / batch.intensities[:, None]
        step = physics.position_step(slope, self.probe, level, self.loss_name)
        self.positions.move(frames, step.cpu().numpy(), lengths, common=common)

    def _advance(self, obj: Tensor, velocity: Tensor, gradient: Tensor, light: Tensor, lengths: StepLengths) -> None:
        """Step of what of the object the frames reach, (h, w) each, with its momentum."""
        step = physics.object_step(gradient, light, self.loss_name)
        if lengths.least_squares:
            step *= physics.least_squares_length(step, gradient, light, self.loss_name)
        step *= lengths.object
        velocity *= lengths.momentum
        velocity += step
        obj += step.add_(velocity, alpha=lengths.momentum)

    def settle(self, constraints: Constraints) -> None:
        """See ``Stepper``."""
        self._level = None
        if constraints.support is not None:
            self.probe *= self._support(constraints.support)
        if constraints.power is not None:
            factor = (constraints.power / physics.mode_intensity(self.probe).sum()).sqrt()
            self.probe *= factor
            self.object /= factor
        if len(self.probe) > 1:
            self.probe = physics.orthogonalise(self.probe)

    def loss(self, frames: NDArray[np.int64]) -> float:
        """See ``Stepper``."""
        if not len(frames):
            return 0.0
        corners, rest = self.positions.corners(frames)
        low, high = corners.min(axis=0), corners.max(axis=0) + self.scan.raw.side
        box = (slice(low[0], high[0]), slice(low[1], high[1]))
        with computing_threads(self.device, 1):
            gain_squared, lit = self._shown()
            shown, probe = self.object[box] * lit[box], self.probe * gain_squared**0.5
            return float(self.physics.loss(shown, probe, self._batch(frames, corners - low, rest)))

    def snapshot(self) -> _Kept:
        """See ``Stepper``."""
        return _Kept(self.object.clone(), self.probe.clone(), self.positions.copy(), self.intensities.copy())

    def restore(self, snapshot: _Kept) -> None:
        """See ``Stepper``."""
        self._level = None
        self.object, self.probe = snapshot.object.clone(), snapshot.probe.clone()
        self.positions.restore(snapshot.positions)
        self.intensities = snapshot.intensities.copy()

    def arrays(self) -> dict[str, NDArray[Any]]:
        """See ``Stepper``."""
        parts = {"object": self.object, "probe": self.probe}
        made: dict[str, NDArray[Any]] = {
            name: torch.view_as_real(part).cpu().numpy().copy() for name, part in parts.items()
        }
        return made | {"intensities": self.intensities.copy()} | self.positions.arrays()

    def take(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """See ``Stepper``."""
        self._level = None
        for name in ("object", "probe"):
            parts = torch.from_numpy(np.array(arrays[name], order="C")).contiguous()
            setattr(self, name, torch.view_as_complex(parts).to(self.object.dtype).to(self.device))
        self.intensities = np.array(arrays["intensities"])
        self.positions.restore((arrays["positions_px"], arrays["position_map"]))

    def image(self) -> Image:
        """See ``Stepper``."""
        return finish(
            self.scan,
            self.object.cpu().numpy(),
            self.probe.cpu().numpy(),
            self.positions,
            scale=self.scale,
            gain_squared=self._shown()[0],
            intensities=self.intensities,
        )

    def _put(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.array(array, order="C")).to(self.device)

    def _batch(self, frames: NDArray[np.int64], corners_px: NDArray[np.int64], rest: NDArray[np.float32]) -> Batch:
        real = self.object.dtype.to_real()
        weights = None
        if not (self.intensities == 1).all():
            weights = torch.from_numpy(self.intensities[frames]).to(real).to(self.device)
        return Batch(self._put(corners_px), self._put(rest).to(real), self.store.get(frames), weights)

    def _support(self, radius_px: float) -> Tensor:
        """Pixels of the probe that are kept, (N, N) bool."""
        if self._kept_pixels is None or self._kept_pixels[0] != radius_px:
            self._kept_pixels = (radius_px, self._put(support_mask(self.probe.shape[-1], radius_px)))
        return self._kept_pixels[1]

    def _shown(self) -> tuple[float, Tensor]:
        """g² and the pixels (H, W) that training frames reach: of all frames, so reckoned once for each state."""
        if self._level is None:
            corners = self._put(self.positions.corners(self.scan.train_frames)[0])
            lit = physics.reached(corners, self.scan.raw.side, _shape(self.object))
            self._level = level_of(self.scan, self._expected), lit
        return self._level

    def _expected(self) -> float:
        """Σ of all training frames' counts that the object and the probe expect (FM-21)."""
        frames = self.scan.train_frames
        corners = self._put(self.positions.corners(frames)[0])
        weights = torch.from_numpy(self.intensities[frames]).to(self.object.dtype.to_real()).to(self.device)
        light = physics.illumination(self.probe, corners, _shape(self.object), weights)
        return float(physics.expected_total(self.object, light))


def _shape(obj: Tensor) -> tuple[int, int]:
    return obj.shape[0], obj.shape[1]
