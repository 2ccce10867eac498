"""Loss and gradients of some frames by hand (FM-10, FM-19), a bounded number of frames at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from ptycho_core.data.raw import RawData
from ptycho_core.enginekit.engine_threads import FixedThreads, Threads
from ptycho_core.enginekit.frame_store import FrameStore
from ptycho_core.enginekit.team import Team
from ptycho_core.enginekit.threads import SLEEPING, ThreadChooser
from ptycho_core.physics.corrections import frame_gains
from ptycho_core.physics.likelihood import amplitude_loss, loss_slope, poisson_loss
from ptycho_core.physics.patches import extract
from ptycho_core.physics.steps import patch_light
from ptycho_core.protocol import Quantity

from .physics import Propagator, mode_intensity, shift_ramp

__all__ = ["LOSSES", "BatchGradient", "NumpyGradient"]

LOSSES = {"poisson": poisson_loss, "amplitude": amplitude_loss}

_CHUNK_BYTES = 2**20
"""Waves of one chunk: several arrays of this size are alive at once, and they should stay near the processor."""


@dataclass
class BatchGradient:
    """What some frames say.

    Attributes:
        loss: summed over the good pixels of the frames, without the dark counts of a step.
        object: (H, W) complex ∂L/∂O, or None when not asked for.
        probe: (P, N, N) complex ∂L/∂P in the object's plane, or None.
        patch_light: (N, N) real Σ_j w_j |Q_j|², with `probe`.
        positions: (J, 2) float64 ∂L/∂δ (y, x), or None.
        gains: (J,) float64 of FM-27, or None.
    """

    loss: float
    object: NDArray[Any] | None = None
    probe: NDArray[Any] | None = None
    patch_light: NDArray[Any] | None = None
    positions: NDArray[np.float64] | None = None
    gains: NDArray[np.float64] | None = None


@dataclass
class _Chunk:
    """What a chunk of frames adds: to ∂L/∂O frame by frame, to the spectra of ∂L/∂P_p and to Σ_j w_j |Q_j|²."""

    loss: float
    gains: NDArray[np.float64] | None
    patches: NDArray[Any] | None = None
    spectrum: NDArray[Any] | None = None
    light: NDArray[Any] | None = None
    positions: NDArray[np.float64] | None = None


class NumpyGradient:
    """The oracle's gradients in single or double precision; chunks of frames are shared out among threads.

    What threads find is added up in the order of the frames, so their number changes no bit of it.

    Everything is done with zero frequency at index 0 where the detector is in the far field, which saves shifting every
    wave twice.

    Args:
        raw: the scan.
        loss: ``poisson`` or ``amplitude``.
        threads: that compute, a number or what chooses one; None chooses.
        dtype: complex64 or complex128, of object and probe.
        store: hands out counts in the layout of the propagator; None reads them from the scan.
    """

    def __init__(
        self,
        raw: RawData,
        loss: str,
        threads: int | Threads | None = None,
        dtype: type = np.complex64,
        store: FrameStore | None = None,
    ) -> None:
        self.raw, self.loss, self.store = raw, loss, store
        self.propagator = Propagator(raw.propagation, raw.side, dtype, threads=1)
        layout, real = self.propagator.detector_layout, np.zeros(1, dtype).real.dtype
        self.mask = None if raw.mask is None else layout(raw.mask)
        self.background = None if raw.background is None else layout(raw.background).astype(real)
        if threads is None:
            threads = ThreadChooser(slower=SLEEPING)
        self.threads: Threads = FixedThreads(threads) if isinstance(threads, int) else threads
        self._team = Team(self.threads.most, "sweep")
        self.frequency = np.fft.fftfreq(raw.side)

    def __call__(
        self,
        frames: NDArray[np.int64],
        corners_px: NDArray[np.int64],
        subpixel_px: NDArray[np.float32],
        obj: NDArray[Any],
        probe: NDArray[Any],
        wanted: Collection[Quantity],
        dark_counts: float = 0.0,
        intensities: NDArray[np.float64] | None = None,
    ) -> BatchGradient:
        """Loss of frames (J,) and the gradients wanted, at scale 1 and divisor 1.

        Args:
            frames: (J,) numbers of the frames in the scan.
            corners_px: (J, 2) integer corners (y, x) on the object.
            subpixel_px: (J, 2) sub-pixel rest (y, x).
            obj: (H, W) complex.
            probe: (P, N, N) complex.
            wanted: what to differentiate for; none gives the loss alone, in double precision.
            dark_counts: expected counts added to every pixel for the gradients. The loss is told without them: it is
                what epochs are chosen by, and whoever judges the image afterwards knows nothing of them.
            intensities: (J,) intensity w_j of each frame, or None where all are 1.
        """
        work, counts = _Work(self, obj, probe, wanted, dark_counts), self._counts(frames)
        step = max(1, _CHUNK_BYTES // probe.nbytes)
        total = work.nothing(len(frames))

        def found(part: slice) -> _Chunk:
            weights = None if intensities is None else intensities[part].astype(probe.real.dtype)
            return work.found(counts(part), corners_px[part], subpixel_px[part], weights)

        chunks = [slice(start, start + step) for start in range(0, len(frames), step)]
        kind = (self.loss, *probe.shape, probe.dtype.str, *sorted(wanted))
        with self.threads.step(kind, len(frames)) as n_threads:
            self._team.each(chunks, found, lambda part, chunk: work.take(total, part, corners_px, chunk), n_threads)
        if total.probe is not None:
            total.probe = np.asarray(scipy.fft.ifft2(total.probe))
        return total

    def _counts(self, frames: NDArray[np.int64]) -> Callable[[slice], NDArray[np.float32]]:
        """Hands out the counts (n, N, N) of a part of some frames, in the layout of the propagator."""
        if self.store is not None and self.store.keeps:
            store = self.store
            store.get(frames[:0])  # they are brought in before threads ask
            return lambda part: np.asarray(store.get(frames[part]))
        if self.store is not None:
            whole = self.store.get(frames)
        else:
            whole = self.propagator.detector_layout(self.raw.read_counts(frames))
        return lambda part: np.asarray(whole[part])


class _Work:
    """One call: the spectrum of its probe, and what each chunk adds."""

    def __init__(
        self, own: NumpyGradient, obj: NDArray[Any], probe: NDArray[Any], wanted: Collection[Quantity], dark: float
    ) -> None:
        self.own, self.obj, self.probe, self.wanted, self.dark = own, obj, probe, wanted, dark
        self.spectrum = scipy.fft.fft2(probe)
        self.back = "probe" in wanted or "positions" in wanted
        self.kind = probe.real.dtype

    def nothing(self, n_frames: int) -> BatchGradient:
        """Sums of no frames; what will be ∂L/∂P is its spectrum yet."""
        probe = "probe" in self.wanted
        return BatchGradient(
            loss=0.0,
            object=np.zeros_like(self.obj) if "object" in self.wanted else None,
            probe=np.zeros_like(self.probe) if probe else None,
            patch_light=np.zeros(self.probe.shape[1:], self.kind) if probe else None,
            positions=np.zeros((n_frames, 2)) if "positions" in self.wanted else None,
            gains=np.ones(n_frames) if "frame_scale" in self.wanted else None,
        )

    def take(self, total: BatchGradient, part: slice, corners: NDArray[np.int64], chunk: _Chunk) -> None:
        """Add a chunk to the sums."""
        N = self.own.raw.side
        total.loss += chunk.loss
        if total.object is not None and chunk.patches is not None:
            for patch, (y, x) in zip(chunk.patches, corners[part], strict=True):
                total.object[y : y + N, x : x + N] += patch
        if total.probe is not None and total.patch_light is not None:
            total.probe += chunk.spectrum
            total.patch_light += chunk.light
        if total.positions is not None:
            total.positions[part] = chunk.positions
        if total.gains is not None:
            total.gains[part] = chunk.gains

    def found(
        self,
        counts: NDArray[np.float32],
        corners: NDArray[np.int64],
        rest: NDArray[np.float32],
        weights: NDArray[Any] | None,
    ) -> _Chunk:
        """What a chunk of frames says."""
        N, patches = self.own.raw.side, extract(self.obj, corners, self.own.raw.side)
        ramp = shift_ramp(rest, N, self.probe.dtype)[:, None]
        shifted = scipy.fft.ifft2(self.spectrum * ramp, overwrite_x=True)
        loss, chi, gains = self._wave_gradient(shifted * patches[:, None], counts, weights)
        chunk = _Chunk(loss, gains)
        if "object" in self.wanted:
            np.conj(shifted, out=shifted)
            shifted *= chi
            chunk.patches = shifted[:, 0] if shifted.shape[1] == 1 else shifted.sum(axis=1)
        if not self.back:
            return chunk
        chi *= patches.conj()[:, None]
        chi = scipy.fft.fft2(chi, overwrite_x=True)
        chi *= ramp.conj()
        if "probe" in self.wanted:
            chunk.spectrum, chunk.light = chi.sum(axis=0), patch_light(patches, weights)
        if "positions" in self.wanted:
            chunk.positions = self._position_gradient(chi)
        return chunk

    def _wave_gradient(
        self, exit_waves: NDArray[Any], counts: NDArray[np.float32], weights: NDArray[Any] | None
    ) -> tuple[float, NDArray[Any], NDArray[np.float64] | None]:
        """Loss of some frames, χ (J, P, N, N) = 2 w F†(h A) of their exit waves, and their gains."""
        own, loss = self.own, self.own.loss
        waves = own.propagator.to_detector(exit_waves, overwrite=True)
        rate = mode_intensity(waves)
        if weights is not None:
            rate *= weights[:, None, None]
        if own.background is not None:
            rate += own.background
        counts = counts.astype(rate.dtype, copy=False)
        if not self.wanted:  # what decides when to stop should not be rounded away beside the sum
            return LOSSES[loss](rate.astype(np.float64), counts, own.mask, 1.0), waves, None
        told = LOSSES[loss](rate, counts, own.mask, 1.0)
        gains = None
        if "frame_scale" in self.wanted:
            gains = frame_gains(rate, counts, own.mask, own.background)
        if tuple(self.wanted) == ("frame_scale",):
            return told, waves, gains
        rate += rate.dtype.type(self.dark)
        slope = 2 * loss_slope(loss, rate, counts, own.mask)
        if weights is not None:
            slope *= weights[:, None, None]
        waves *= slope[:, None]
        return told, own.propagator.from_detector(waves, overwrite=True), gains

    def _position_gradient(self, back: NDArray[Any]) -> NDArray[np.float64]:
        """Σ_p Re⟨χ Q*, ∂(S P_p)⟩ by Parseval, from the spectra (J, P, N, N) of S†(χ Q*) and those of the probe."""
        # Re⟨a, −2πi f b⟩ = 2π f Im⟨a, b⟩ pixel by pixel
        frequency = self.own.frequency
        product = np.sum((back.conj() * self.spectrum).imag, axis=1) * (2 * np.pi / self.own.raw.side**2)
        return np.stack([product.sum(axis=2) @ frequency, product.sum(axis=1) @ frequency], axis=1)
