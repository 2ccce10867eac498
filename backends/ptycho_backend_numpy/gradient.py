"""Loss and gradients of some frames by hand (FM-10, FM-19), a bounded number of frames at a time."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from ptycho_core.data.raw import RawData
from ptycho_core.enginekit.descent import BatchGradient, Quantity
from ptycho_core.physics.likelihood import amplitude_loss, loss_slope, poisson_loss
from ptycho_core.physics.patches import accumulate, extract

from .physics import mode_intensity, shift_ramp

__all__ = ["LOSSES", "NumpyGradient"]

LOSSES = {"poisson": poisson_loss, "amplitude": amplitude_loss}

_CHUNK_BYTES = 4 * 2**20
"""Waves of one chunk: several arrays of this size are alive at once, and they should stay near the processor."""


class NumpyGradient:
    """The oracle's gradients in single or double precision, with threads; see ``enginekit.descent.ScanGradient``.

    Everything is done with zero frequency at index 0, which saves shifting every wave twice.

    Args:
        raw: the scan.
        loss: ``poisson`` or ``amplitude``.
        threads: of the Fourier transforms; None takes all processors.
    """

    def __init__(self, raw: RawData, loss: str, threads: int | None = None) -> None:
        self.raw, self.loss = raw, loss
        self.threads = -1 if threads is None else threads
        self.background = None if raw.background is None else np.fft.ifftshift(raw.background)
        self.mask = None if raw.mask is None else np.fft.ifftshift(raw.mask)
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
    ) -> BatchGradient:
        """Loss and gradients; see ``ScanGradient``."""
        step = max(1, _CHUNK_BYTES // probe.nbytes)
        spectrum = scipy.fft.fft2(probe, workers=self.threads)
        loss, back, positions = 0.0, np.zeros_like(probe), []
        d_obj = np.zeros_like(obj)
        for start in range(0, len(frames), step):
            part = slice(start, start + step)
            patches = extract(obj, corners_px[part], self.raw.side)
            ramp = shift_ramp(subpixel_px[part], self.raw.side, probe.dtype)[:, None]
            shifted = scipy.fft.ifft2(spectrum * ramp, workers=self.threads)
            value, chi = self._wave_gradient(shifted * patches[:, None], frames[part], dark_counts if wanted else None)
            loss += value
            if "object" in wanted:
                d_obj += accumulate(np.sum(shifted.conj() * chi, axis=1), corners_px[part], obj.shape)
            if "probe" in wanted or "positions" in wanted:
                chi *= patches.conj()[:, None]
                chi = scipy.fft.fft2(chi, overwrite_x=True, workers=self.threads)
                chi *= ramp.conj()
            if "probe" in wanted:
                back += chi.sum(axis=0)
            if "positions" in wanted:
                positions.append(self._position_gradient(chi, spectrum))
        return BatchGradient(
            loss=loss,
            object=d_obj if "object" in wanted else None,
            probe=scipy.fft.ifft2(back, workers=self.threads) if "probe" in wanted else None,
            positions=np.concatenate(positions) if "positions" in wanted else None,
        )

    def _wave_gradient(
        self, exit_waves: NDArray[Any], frames: NDArray[np.int64], dark_counts: float | None
    ) -> tuple[float, NDArray[Any]]:
        """Loss of some frames and χ (J, P, N, N) = 2 F†(h A) of their exit waves; the loss alone for None."""
        waves = scipy.fft.fft2(exit_waves, norm="ortho", overwrite_x=True, workers=self.threads)
        rate = mode_intensity(waves)
        if self.background is not None:
            rate += self.background.astype(rate.dtype)
        counts = np.fft.ifftshift(self.raw.read_counts(frames), axes=(-2, -1)).astype(rate.dtype, copy=False)
        if dark_counts is None:  # what decides when to stop should not be rounded away beside the sum
            return LOSSES[self.loss](rate.astype(np.float64), counts, self.mask, 1.0), waves
        loss = LOSSES[self.loss](rate, counts, self.mask, 1.0)
        rate += rate.dtype.type(dark_counts)
        waves *= 2 * loss_slope(self.loss, rate, counts, self.mask)[:, None]
        return loss, scipy.fft.ifft2(waves, norm="ortho", overwrite_x=True, workers=self.threads)

    def _position_gradient(self, back: NDArray[Any], spectrum: NDArray[Any]) -> NDArray[np.float64]:
        """Σ_p Re⟨χ Q*, ∂(S P_p)⟩ by Parseval, from the spectra (J, P, N, N) of S†(χ Q*) and (P, N, N) of the probe."""
        # Re⟨a, −2πi f b⟩ = 2π f Im⟨a, b⟩ pixel by pixel
        product = np.sum((back.conj() * spectrum).imag, axis=1) * (2 * np.pi / self.raw.side**2)
        return np.stack([product.sum(axis=2) @ self.frequency, product.sum(axis=1) @ self.frequency], axis=1)
