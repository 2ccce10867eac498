"""Loss and gradients of some frames by hand (FM-10, FM-19, FM-21), on a device, a bounded number of frames at a time.

Nothing here is differentiated automatically: a gradient costs two more transforms of its waves, and no more memory.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ptycho_core.data.raw import RawData
from ptycho_core.physics.steps import DARK_COUNTS
from ptycho_core.protocol import Quantity

from . import physics

__all__ = ["Batch", "BatchGradient", "ScanPhysics", "computing_threads"]

_Found = TypeVar("_Found")

_CHUNK_BYTES = 2**20
"""Waves of one chunk on a processor: several arrays of this size are alive at once, and they should stay near it."""

_ACCELERATED_CHUNK_BYTES = 128 * 2**20
"""The same for an accelerator, which has to be given much to do at once."""


class _ProcessThreads:
    """How many threads an operation takes, which belongs to the process: jobs that overlap put back what was first.

    If each of two that overlap put back what it found, the one that ends last would put back what the other had set.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users, self._before = 0, 0

    @contextmanager
    def set_to(self, threads: int) -> Iterator[None]:
        """So many from here on, and as many as before the first once the last is done."""
        with self._lock:
            now = torch.get_num_threads()
            self._before = now if self._users == 0 else self._before
            self._users += 1
            if threads != now:
                torch.set_num_threads(threads)
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                back = self._before if self._users == 0 else now
                if torch.get_num_threads() != back:
                    torch.set_num_threads(back)


_process_threads = _ProcessThreads()


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

    def add(self, other: BatchGradient) -> None:
        """Add what the next frames say."""
        self.loss += other.loss
        for name in ("object", "probe", "light", "patch_light"):
            mine, more = getattr(self, name), getattr(other, name)
            if mine is not None:
                mine += more
        if other.positions is not None:
            self.positions = _joined(self.positions, other.positions)
        if other.gains is not None:
            self.gains = _joined(self.gains, other.gains)


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

    Several threads of a processor take chunks of frames of their own and add up apart: they wait for each other once a
    batch, not in every operation, and always in the same order.

    Args:
        raw: the scan.
        loss: ``poisson`` or ``amplitude``.
        device: where to compute.
        dtype: complex64 or complex128.
        threads: that compute, on a processor.
    """

    def __init__(self, raw: RawData, loss: str, device: torch.device, dtype: torch.dtype, threads: int) -> None:
        self.loss_name, self.device = loss, device
        self.propagator = physics.Propagator(raw.propagation, raw.side, dtype, device)
        layout = self.propagator.detector_layout
        self.mask = None if raw.mask is None else layout(torch.from_numpy(raw.mask.copy()).to(device))
        self.background = None
        if raw.background is not None:
            self.background = layout(torch.from_numpy(raw.background.copy()).to(dtype.to_real()).to(device))
        self.frequency = torch.fft.fftfreq(raw.side, dtype=dtype.to_real()).to(device)
        self.threads = threads if device.type == "cpu" else 1
        self._pool = ThreadPoolExecutor(self.threads, "step") if self.threads > 1 else None

    def gradient(self, obj: Tensor, probe: Tensor, batch: Batch, wanted: Collection[Quantity]) -> BatchGradient:
        """Loss of some frames and the gradients wanted, taken with dark counts, at scale 1 and divisor 1.

        Args:
            obj: (h, w) complex, what of the object the frames can reach.
            probe: (P, N, N) complex.
            batch: the frames.
            wanted: what to differentiate for.
        """
        spectrum = torch.fft.fft2(probe)
        total, *others = self._shared_out(batch, lambda share: self._sums(obj, probe, spectrum, share, wanted))
        for other in others:
            total.add(other)
        if total.probe is not None:
            total.probe = torch.fft.ifft2(total.probe)
        return total

    def loss(self, obj: Tensor, probe: Tensor, batch: Batch) -> Tensor:
        """Summed loss () of some frames, in double precision where the device has it; arguments as above."""
        spectrum = torch.fft.fft2(probe)
        first, *others = self._shared_out(batch, lambda share: self._loss(obj, probe, spectrum, share))
        return sum(others, first)

    def _shared_out(self, batch: Batch, work: Callable[[Batch], _Found]) -> list[_Found]:
        """What each thread says of its share of some frames, in the order of the frames."""
        n_threads = max(1, min(self.threads, len(batch)))
        ends = np.linspace(0, len(batch), n_threads + 1).astype(int).tolist()
        shares = [batch[slice(*bounds)] for bounds in pairwise(ends)]
        with computing_threads(self.device, 1):
            return [work(shares[0])] if self._pool is None else list(self._pool.map(work, shares))

    def _chunks(self, batch: Batch, probe: Tensor) -> Iterator[Batch]:
        size = _CHUNK_BYTES if self.device.type == "cpu" else _ACCELERATED_CHUNK_BYTES
        step = max(1, size // (probe.numel() * probe.element_size()))
        return (batch[slice(start, start + step)] for start in range(0, len(batch), step))

    def _sums(
        self, obj: Tensor, probe: Tensor, spectrum: Tensor, batch: Batch, wanted: Collection[Quantity]
    ) -> BatchGradient:
        """What a share of the frames says, with the spectrum of ∂L/∂P where that of the probe is wanted."""
        sums = BatchGradient(loss=torch.zeros((), dtype=_sum_dtype(self.device), device=self.device))
        if "object" in wanted:
            sums.object = torch.zeros_like(obj, memory_format=torch.contiguous_format)
        if "object" in wanted or "positions" in wanted:
            shape = (obj.shape[0], obj.shape[1])
            sums.light = physics.illumination(probe, batch.corners_px, shape, batch.intensities)
        if "probe" in wanted:
            sums.probe, sums.patch_light = torch.zeros_like(probe), torch.zeros_like(probe[0].real)
        for chunk in self._chunks(batch, probe):
            self._add(sums, obj, spectrum, chunk, wanted)
        return sums

    def _add(
        self, sums: BatchGradient, obj: Tensor, spectrum: Tensor, batch: Batch, wanted: Collection[Quantity]
    ) -> None:
        """Add a chunk of frames to the sums."""
        N = spectrum.shape[-1]
        patches = physics.extract(obj[None], batch.corners_px[None], N)[0]
        ramp = physics.shift_ramp(batch.subpixel_px, N)[:, None]
        shifted = torch.fft.ifft2(spectrum * ramp)
        arrived = self.propagator.to_detector(shifted * patches[:, None])
        rate = self._rate(arrived, batch.intensities)
        sums.loss += physics.LOSSES[self.loss_name](rate, batch.counts, self.mask, 1.0)
        if "frame_scale" in wanted:
            sums.gains = _joined(sums.gains, physics.frame_gains(rate, batch.counts, self.mask, self.background))
        if not set(wanted) - {"frame_scale"}:
            return
        slope = physics.free_slope(self.loss_name, rate.add_(DARK_COUNTS), batch.counts, self.mask).mul_(2)
        if batch.intensities is not None:
            slope *= batch.intensities[:, None, None]
        chi = self.propagator.from_detector(arrived.mul_(slope[:, None]))
        if sums.object is not None:
            physics.add_patches(sums.object, _over_modes(shifted.conj_physical_().mul_(chi)), batch.corners_px)
        if sums.probe is None and "positions" not in wanted:
            return
        if sums.patch_light is not None:
            sums.patch_light += physics.patch_light(patches, batch.intensities)
        back = torch.fft.fft2(chi.mul_(patches.conj_physical_()[:, None])).mul_(ramp.conj_physical_())
        if sums.probe is not None:
            sums.probe += back.sum(dim=0)
        if "positions" in wanted:
            sums.positions = _joined(sums.positions, self._position_gradient(back, spectrum))

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

    def _loss(self, obj: Tensor, probe: Tensor, spectrum: Tensor, batch: Batch) -> Tensor:
        """Summed loss () of a share of the frames."""
        wide, N = _sum_dtype(self.device), spectrum.shape[-1]
        total = torch.zeros((), dtype=wide, device=self.device)
        for chunk in self._chunks(batch, probe):
            shifted = torch.fft.ifft2(spectrum * physics.shift_ramp(chunk.subpixel_px, N)[:, None])
            patches = physics.extract(obj[None], chunk.corners_px[None], N)[0]
            rate = self._rate(self.propagator.to_detector(shifted.mul_(patches[:, None])), chunk.intensities)
            # what decides when to stop should not be rounded away beside the sum
            total += physics.LOSSES[self.loss_name](rate.to(wide), chunk.counts.to(wide), self.mask, 1.0)
        return total


def _sum_dtype(device: torch.device) -> torch.dtype:
    """What losses are summed in."""
    return torch.float32 if device.type == "mps" else torch.float64


def _over_modes(waves: Tensor) -> Tensor:
    """Σ_p of (J, P, N, N); a sum of one is a slow copy."""
    return waves[:, 0] if waves.shape[1] == 1 else waves.sum(dim=1)


def _joined(before: Tensor | None, more: Tensor) -> Tensor:
    return more if before is None else torch.cat([before, more])
