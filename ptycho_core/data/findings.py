"""What evaluation finds, as values: a comparison with a truth, a ring correlation, what became of positions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..text import counted
from .shown import card, line, rounded

__all__ = ["Comparison", "FourierRingCorrelation", "PositionReport"]


@dataclass(frozen=True, kw_only=True)
class FourierRingCorrelation:
    """Correlation of two images ring by ring in frequency space.

    A cut-off is the frequency at which the curve first falls through a threshold, interpolated linearly between rings;
    the last frequency (Nyquist) when it never does, 0 when none of the first five rings lies above the threshold.

    Attributes:
        frequency: (R,) float64 cycles per pixel, up to at most ½; 0 is left out, the mean was removed.
        correlation: (R,) float64 in [−1, 1].
        n_pixels: (R,) int64 Fourier pixels in each ring.
        half_bit: (R,) float64 half-bit threshold of each ring (van Heel & Schatz 2005).
        cutoff_half: cycles per pixel where the curve falls through ½: for an image against its truth.
        cutoff_one_seventh: where it falls through 1/7: for two reconstructions from half of the data each.
        cutoff_half_bit: where it falls through the half-bit threshold.
    """

    frequency: NDArray[np.float64]
    correlation: NDArray[np.float64]
    n_pixels: NDArray[np.int64]
    half_bit: NDArray[np.float64]
    cutoff_half: float
    cutoff_one_seventh: float
    cutoff_half_bit: float

    def __repr__(self) -> str:
        """One line: how far the two agree, never an array."""
        rings = counted(len(self.frequency), "ring")
        return line("FourierRingCorrelation", rings, f"falls to half-bit at {rounded(self.cutoff_half_bit)} cycles/px")

    def half_period_px(self, cutoff: float) -> float:
        """Half-period resolution 1 / (2 f) of a cut-off, pixels; 1 at Nyquist, infinite when nothing is resolved."""
        return 0.5 / cutoff if cutoff > 0 else math.inf

    def to_mapping(self) -> dict[str, Any]:
        """Return it as plain JSON data."""
        return {
            "frequency_cycles_per_px": self.frequency.tolist(),
            "correlation": self.correlation.tolist(),
            "half_bit_threshold": self.half_bit.tolist(),
            "n_pixels": self.n_pixels.tolist(),
            "cutoff_half": self.cutoff_half,
            "cutoff_one_seventh": self.cutoff_one_seventh,
            "cutoff_half_bit": self.cutoff_half_bit,
            "half_period_px_half": _finite(self.half_period_px(self.cutoff_half)),
            "half_period_px_one_seventh": _finite(self.half_period_px(self.cutoff_one_seventh)),
            "half_period_px_half_bit": _finite(self.half_period_px(self.cutoff_half_bit)),
        }


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """An estimate scored against a truth.

    Attributes:
        amplitude_psnr_db: 10 log₁₀(peak² / mean squared error) of the amplitude, decibels; infinite for no error, NaN
            when the truth's amplitude is constant, to a thousandth of it.
        amplitude_peak: the peak used: range of the truth's amplitude in the region.
        phase_psnr_db: the same of the phase, with the error as the angle of estimate / truth, so that it never wraps.
        phase_peak_rad: the peak used: range of the truth's phase about its mean in the region, at most 2π.
        amplitude_ssim: mean structural similarity of the amplitude (7×7 windows); NaN where undefined.
        phase_ssim: the same of the phase.
        correlation: modulus of the complex correlation after mean removal, 0 to 1.
        frc: Fourier ring correlation of the complex images.
        shift_px: (2,) shift (y, x) that was found and undone, beyond what the origins say.
        ramp_rad_per_px: (2,) phase ramp (y, x) that was removed.
        scale: modulus by which the estimate was divided.
        phase_rad: global phase that was removed.
        n_pixels: pixels compared.
    """

    amplitude_psnr_db: float
    amplitude_peak: float
    phase_psnr_db: float
    phase_peak_rad: float
    amplitude_ssim: float
    phase_ssim: float
    correlation: float
    frc: FourierRingCorrelation
    shift_px: tuple[float, float]
    ramp_rad_per_px: tuple[float, float]
    scale: float
    phase_rad: float
    n_pixels: int

    def __repr__(self) -> str:
        """One line: the figures that are defined, never an array."""
        psnr = {"amplitude": self.amplitude_psnr_db, "phase": self.phase_psnr_db}
        known = (f"{name} PSNR {value:.1f} dB" for name, value in psnr.items() if math.isfinite(value))
        return line("Comparison", *known, f"correlation {rounded(self.correlation)}", repr(self.frc))

    def _repr_html_(self) -> str:
        """All figures for a notebook, in words where one is not defined."""
        return card(self)

    @property
    def frc_half_cutoff(self) -> float:
        """Frequency where the FRC falls through ½, cycles per pixel."""
        return self.frc.cutoff_half

    @property
    def frc_one_seventh_cutoff(self) -> float:
        """Frequency where the FRC falls through 1/7, cycles per pixel."""
        return self.frc.cutoff_one_seventh

    @property
    def frc_half_bit_cutoff(self) -> float:
        """Frequency where the FRC falls through the half-bit threshold, cycles per pixel."""
        return self.frc.cutoff_half_bit

    def to_mapping(self) -> dict[str, Any]:
        """Return it as plain JSON data; a figure that is not finite becomes None."""
        numbers = (
            "amplitude_psnr_db", "amplitude_peak", "phase_psnr_db", "phase_peak_rad", "amplitude_ssim", "phase_ssim",
            "correlation", "scale", "phase_rad",
        )  # fmt: skip
        plain: dict[str, Any] = {name: _finite(getattr(self, name)) for name in numbers}
        plain |= {"shift_px": list(self.shift_px), "ramp_rad_per_px": list(self.ramp_rad_per_px)}
        return plain | {"n_pixels": self.n_pixels, "frc": self.frc.to_mapping()}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


@dataclass(frozen=True, kw_only=True)
class PositionReport:
    """How refined positions differ from those read: r′ − c = A (r − c) + rest, with c the mean position.

    Attributes:
        scale_y: stretch of the y axis, 1 for none.
        scale_x: stretch of the x axis.
        rotation_mrad: turn from y towards x, milliradians.
        shear_mrad: departure of the axes from a right angle, milliradians.
        rms_px: root mean square length of the whole change, object pixels.
        residual_rms_px: the same of what the affine map leaves.
        largest_px: longest change.
        at_limit: positions that the limit stopped in y or x.
    """

    scale_y: float
    scale_x: float
    rotation_mrad: float
    shear_mrad: float
    rms_px: float
    residual_rms_px: float
    largest_px: float
    at_limit: int

    def describe(self) -> str:
        """One line for people."""
        return (
            f"moved by {self.rms_px:.2f} px rms, {self.largest_px:.2f} px at most, {self.at_limit} at the limit; "
            f"affine: scale {self.scale_y:.4f} (y) {self.scale_x:.4f} (x), rotation {self.rotation_mrad:.1f} mrad, "
            f"shear {self.shear_mrad:.1f} mrad; {self.residual_rms_px:.2f} px rms beside it"
        )
