"""Scans made smaller for trials: a central crop of the detector, or bins of it, and probes taken back from there.

A crop of the detector makes object pixels larger (N/c times, c pixels being left) and leaves the window as it is; bins
of b × b pixels make the window smaller and leave object pixels as they are. So defocus in square object pixels is
divided by (N/c)² by a crop, and left by bins. Zero frequency, at N/2, comes to lie (b−1)/2 pixels beside the middle of
its bin: a ramp over the probe, which is taken out again when it is taken back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .probe import probe_from_mean_pattern
from .propagation import far_field, far_field_adjoint

__all__ = ["Reduction"]


@dataclass(frozen=True, kw_only=True)
class Reduction:
    """How frames of N × N are made smaller: first cropped, then binned.

    Attributes:
        full: N.
        crop: c, side of the central crop, even.
        bin: b, side of a bin; it divides c.
    """

    full: int
    crop: int
    bin: int = 1

    @property
    def side(self) -> int:
        """Side of a frame afterwards."""
        return self.crop // self.bin

    @property
    def position_factor(self) -> float:
        """What positions, and all lengths at the sample in object pixels, are multiplied by."""
        return self.crop / self.full

    def defocus(self, defocus_px2: float) -> float:
        """A defocus of the small scan in square object pixels of the full one."""
        return defocus_px2 / self.position_factor**2

    def sums(self, planes: NDArray[Any]) -> NDArray[np.float64]:
        """Crop and bin counts, (..., N, N) → (..., side, side) float64."""
        start, n, b = (self.full - self.crop) // 2, self.side, self.bin
        inner = planes[..., start : start + self.crop, start : start + self.crop]
        return np.asarray(inner.reshape(*planes.shape[:-2], n, b, n, b).sum(axis=(-3, -1), dtype=np.float64))

    def mask(self, mask: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
        """Crop and bin a mask: a bin is good where all of it is."""
        return None if mask is None else self.sums(~mask) == 0

    def probe_back(
        self, probe: NDArray[Any], pattern: NDArray[np.float64], defocus_px2: float = 0.0
    ) -> NDArray[np.complex64]:
        """The full probe of one of the small scan.

        Beyond the window of a small scan that was binned it is zero. Beyond the crop of the detector the weakest mode
        gets the mean pattern with the phase of the defocus: counts that nothing expects would cost more than any.

        Args:
            probe: (P, side, side) complex, whose power is what the mean pattern has within the crop.
            pattern: (N, N) mean counts of the full scan.
            defocus_px2: in square object pixels of the full scan.

        Returns:
            (P, N, N) complex64, with the power of the pattern.
        """
        n, c, N = self.side, self.crop, self.full
        wave = probe.astype(np.complex128)
        if self.bin > 1:
            wide = np.zeros((*wave.shape[:-2], c, c), np.complex128)
            start = c // 2 - n // 2
            wide[..., start : start + n, start : start + n] = wave
            ramp = np.exp(2j * np.pi * (self.bin - 1) / 2 * (np.arange(c) - c // 2) / c)
            wave = wide * ramp[:, None] * ramp[None, :]
        start = N // 2 - c // 2
        inner = (slice(start, start + c), slice(start, start + c))
        wave = wave * np.sqrt(pattern[inner].sum() / max(float(np.sum(np.abs(wave) ** 2)), 1e-300))
        if c < N:
            field = np.zeros((*wave.shape[:-2], N, N), np.complex128)
            weakest = int(np.argmin(np.sum(np.abs(wave) ** 2, axis=(-2, -1))))
            field[weakest] = far_field(probe_from_mean_pattern(pattern, defocus_px2=defocus_px2)[0])
            field[:, inner[0], inner[1]] = far_field(wave)
            wave = far_field_adjoint(field)
        return wave.astype(np.complex64)
