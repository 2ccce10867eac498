"""Loss and gradients of some frames by hand (FM-10, FM-19, FM-21), on a device, a bounded number of frames at a time.

Nothing here is differentiated automatically: a gradient costs two more transforms of its waves, and no more memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from ptycho_core.data.raw import RawData
from ptycho_core.enginekit.engine_threads import FixedThreads, ProcessThreads, Threads
from ptycho_core.enginekit.team import Team
from ptycho_core.physics.steps import DARK_COUNTS
from ptycho_core.protocol import Quantity

from . import physics

__all__ = ["Batch", "BatchGradient", "ScanPhysics", "computing_threads"]

_Found = TypeVar("_Found")

_CHUNK_BYTES = 2**20
"""Waves of one chunk on a processor: several arrays of this size are alive at once, and they should stay near it."""

_ACCELERATED_CHUNK_BYTES = 128 * 2**20
"""The same for an accelerator, which has to be given much to do at once."""


_process_threads = ProcessThreads(torch.get_num_threads, torch.set_num_threads)


@contextmanager
def computing_threads(device: torch.device, threads: int) -> Iterator[None]:
    """Let each operation take so many threads of a processor, and then as many as before."""
    if device.type != "cpu":
        yield
        return
    with _process_threads.set_to(threads):
        yield


@dataclass
class BatchGradient:
    """What some frames (J,) say.

    Attributes:
        loss: () summed over the good pixels of the frames, without the dark counts of a step.
        object: (h, w) complex ∂L/∂O, or None when not asked for.
        probe: (P, N, N) complex ∂L/∂P, or None.
        light: (h, w) real W of the object's step, with `object` or `positions`.
        patch_light: (N, N) real V of the probe's step, with `probe`.
        positions: (J, 2) real ∂L/∂δ (y, x), or None.
        gains: (J,) real of FM-27, or None.
    """

    loss: Tensor
    object: Tensor | None = None
    probe: Tensor | None = None
    light: Tensor | None = None
    patch_light: Tensor | None = None
    positions: Tensor | None = None
    gains: Tensor | None = None

    def take(self, part: _Part) -> None:
        """Add what a part of the frames says; parts come in the order of the frames."""
        if part.light is not None:
            self.light = part.light
        if part.loss is None:
            return
        self.loss += part.loss
        if self.object is not None and part.patches is not None:
            physics.add_patches(self.object, part.patches, part.corners_px)
        if self.probe is not None and self.patch_light is not None:
            self.probe += part.probe
            self.patch_light += part.patch_light
        if part.positions is not None:
            self.positions = _joined(self.positions, part.positions)
        if part.gains is not None:
            self.gains = _joined(self.gains, part.gains)


@dataclass(frozen=True)
class _Part:
    """What a chunk of frames (j,) says, or what light reaches the object.

    Attributes:
        corners_px: (j, 2) of the frames.
        loss: () summed.
        patches: (j, N, N) complex of ∂L/∂O, frame by frame.
        probe: (P, N, N) complex spectrum of ∂L/∂P.
        patch_light: (N, N) real V.
        positions: (j, 2) real ∂L/∂δ.
        gains: (j,) real.
        light: (h, w) real W.
    """

    corners_px: Tensor
    loss: Tensor | None = None
    patches: Tensor | None = None
    probe: Tensor | None = None
    patch_light: Tensor | None = None
    positions: Tensor | None = None
    gains: Tensor | None = None
    light: Tensor | None = None


@dataclass(frozen=True)
class Batch:
    """Some frames and where they are.

    Attributes:
        corners_px: (J, 2) int64 integer corners (y, x) on the object they are asked with.
        subpixel_px: (J, 2) real sub-pixel rest (y, x).
        counts: (J, N, N) in the layout of the propagator.
        intensities: (J,) real intensity w_j of each frame, or None where all are 1.
    """

    corners_px: Tensor
    subpixel_px: Tensor
    counts: Tensor
    intensities: Tensor | None = None

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, part: slice) -> Batch:
        weights = None if self.intensities is None else self.intensities[part]
        return Batch(self.corners_px[part], self.subpixel_px[part], self.counts[part], weights)


class ScanPhysics:
    """The physics of one scan on a device.

    Several threads of a processor take chunks of frames: they wait for each other once a batch, asleep, and not in
    every operation. What they find is added up in the order of the frames, so their number changes no bit of it.

    Args:
        raw: the scan.
        loss: ``poisson`` or ``amplitude``.
        device: where to compute.
        dtype: complex64 or complex128.
        threads: that compute, on a processor.
    """

    def __init__(self, raw: RawData, loss: str, device: torch.device, dtype: torch.dtype, threads: Threads) -> None:
        self.loss_name, self.device = loss, device
        self.propagator = physics.Propagator(raw.propagation, raw.side, dtype, device)
        layout = self.propagator.detector_layout
        self.mask = None if raw.mask is None else layout(torch.from_numpy(raw.mask.copy()).to(device))
        self.background = None
        if raw.background is not None:
            self.background = layout(torch.from_numpy(raw.background.copy()).to(dtype.to_real()).to(device))
        self.frequency = torch.fft.fftfreq(raw.side, dtype=dtype.to_real()).to(device)
        self.threads: Threads = threads if device.type == "cpu" else FixedThreads(1)
        self._team = Team(self.threads.most, "step")

    def gradient(self, obj: Tensor, probe: Tensor, batch: Batch, wanted: Collection[Quantity]) -> BatchGradient:
        """Loss of some frames and the gradients wanted, taken with dark counts, at scale 1 and divisor 1.

        Args:
            obj: (h, w) complex, what of the object the frames can reach.
            probe: (P, N, N) complex.
            batch: the frames.
            wanted: what to differentiate for.
        """
        spectrum = torch.fft.fft2(probe)
        total = BatchGradient(loss=torch.zeros((), dtype=_sum_dtype(self.device), device=self.device))
        if "object" in wanted:
            total.object = torch.zeros_like(obj, memory_format=torch.contiguous_format)
        if "probe" in wanted:
            total.probe, total.patch_light = torch.zeros_like(probe), torch.zeros_like(probe[0].real)
        parts = [partial(self._part, obj, spectrum, chunk, wanted) for chunk in self._chunks(batch, probe)]
        if "object" in wanted or "positions" in wanted:
            shape = (obj.shape[0], obj.shape[1])
            parts.insert(0, lambda: _Part(batch.corners_px, light=_light(probe, batch, shape)))
        self._shared_out(parts, total.take, (probe.shape, *sorted(wanted)), len(batch))
        if total.probe is not None:
            total.probe = torch.fft.ifft2(total.probe)
        return total

    def loss(self, obj: Tensor, probe: Tensor, batch: Batch) -> Tensor:
        """Summed loss () of some frames, in double precision where the device has it; arguments as above."""
        spectrum = torch.fft.fft2(probe)
        total = torch.zeros((), dtype=_sum_dtype(self.device), device=self.device)
        parts = [partial(self._loss, obj, spectrum, chunk) for chunk in self._chunks(batch, probe)]
        self._shared_out(parts, total.add_, (probe.shape,), len(batch))
        return total

    def _shared_out(
        self, parts: list[Callable[[], _Found]], take: Callable[[_Found], object], kind: Hashable, size: int
    ) -> None:
        """Have threads work on parts of a batch of some size, and take what they find in the order of the parts."""
        with self.threads.step((self.loss_name, kind), size) as n_threads, computing_threads(self.device, 1):
            self._team.each(parts, lambda part: part(), lambda _, found: take(found), n_threads)

    def _chunks(self, batch: Batch, probe: Tensor) -> Iterator[Batch]:
        size = _CHUNK_BYTES if self.device.type == "cpu" else _ACCELERATED_CHUNK_BYTES
        step = max(1, size // (probe.numel() * probe.element_size()))
        return (batch[slice(start, start + step)] for start in range(0, len(batch), step))

    def _part(self, obj: Tensor, spectrum: Tensor, batch: Batch, wanted: Collection[Quantity]) -> _Part:
        """What a chunk of frames says."""
        N = spectrum.shape[-1]
        patches = physics.extract(obj[None], batch.corners_px[None], N)[0]
        ramp = physics.shift_ramp(batch.subpixel_px, N)[:, None]
        shifted = torch.fft.ifft2(spectrum * ramp)
        arrived = self.propagator.to_detector(shifted * patches[:, None])
        rate = self._rate(arrived, batch.intensities)
        part = _Part(batch.corners_px, loss=physics.LOSSES[self.loss_name](rate, batch.counts, self.mask, 1.0))
        if "frame_scale" in wanted:
            part = replace(part, gains=physics.frame_gains(rate, batch.counts, self.mask, self.background))
        if not set(wanted) - {"frame_scale"}:
            return part
        slope = physics.free_slope(self.loss_name, rate.add_(DARK_COUNTS), batch.counts, self.mask).mul_(2)
        if batch.intensities is not None:
            slope *= batch.intensities[:, None, None]
        chi = self.propagator.from_detector(arrived.mul_(slope[:, None]))
        if "object" in wanted:
            part = replace(part, patches=_over_modes(shifted.conj_physical_().mul_(chi)))
        if "probe" not in wanted and "positions" not in wanted:
            return part
        seen = physics.patch_light(patches, batch.intensities) if "probe" in wanted else None
        back = torch.fft.fft2(chi.mul_(patches.conj_physical_()[:, None])).mul_(ramp.conj_physical_())
        if "probe" in wanted:
            part = replace(part, probe=back.sum(dim=0), patch_light=seen)
        if "positions" in wanted:
            part = replace(part, positions=self._position_gradient(back, spectrum))
        return part

    def _rate(self, arrived: Tensor, intensities: Tensor | None) -> Tensor:
        """λ_j = w_j Σ_p |A_jp|² + b (J, N, N) of waves A (J, P, N, N) at the detector (FM-5, FM-27)."""
        rate = physics.mode_intensity(arrived)
        if intensities is not None:
            rate *= intensities[:, None, None]
        return rate if self.background is None else rate.add_(self.background)

    def _position_gradient(self, back: Tensor, spectrum: Tensor) -> Tensor:
        """Σ_p Re⟨χ Q*, ∂(S P_p)⟩ by Parseval, from the spectra (J, P, N, N) of S†(χ Q*) and (P, N, N) of the probe."""
        # Re⟨a, −2πi f b⟩ = −2π f Im(a b*) pixel by pixel
        product = _over_modes(back * spectrum.conj()).imag * (-2 * math.pi / spectrum.shape[-1] ** 2)
        return torch.stack([product.sum(dim=2) @ self.frequency, product.sum(dim=1) @ self.frequency], dim=1)

    def _loss(self, obj: Tensor, spectrum: Tensor, batch: Batch) -> Tensor:
        """Summed loss () of a chunk of frames."""
        wide, N = _sum_dtype(self.device), spectrum.shape[-1]
        shifted = torch.fft.ifft2(spectrum * physics.shift_ramp(batch.subpixel_px, N)[:, None])
        patches = physics.extract(obj[None], batch.corners_px[None], N)[0]
        rate = self._rate(self.propagator.to_detector(shifted.mul_(patches[:, None])), batch.intensities)
        # what decides when to stop should not be rounded away beside the sum
        return physics.LOSSES[self.loss_name](rate.to(wide), batch.counts.to(wide), self.mask, 1.0)


def _light(probe: Tensor, batch: Batch, shape: tuple[int, int]) -> Tensor:
    """W (h, w) real of a batch on an object of a shape."""
    return physics.illumination(probe, batch.corners_px, shape, batch.intensities)


def _sum_dtype(device: torch.device) -> torch.dtype:
    """What losses are summed in."""
    return torch.float32 if device.type == "mps" else torch.float64


def _over_modes(waves: Tensor) -> Tensor:
    """Σ_p of (J, P, N, N); a sum of one is a slow copy."""
    return waves[:, 0] if waves.shape[1] == 1 else waves.sum(dim=1)


def _joined(before: Tensor | None, more: Tensor) -> Tensor:
    return more if before is None else torch.cat([before, more])
