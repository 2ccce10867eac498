"""From the object to the detector: far field, and near field with its validity (FM-4, FM-23 … FM-25).

Notation: p object pixel, λ wavelength, z (effective) distance, F = p² / (λz) Fresnel number, w = λ/p, N side of the
window, f = (f_y, f_x) frequency in cycles a pixel, H transfer function, FFT2 with zero frequency at index 0.

    far field    A = fftshift FFT2 ψ, unitary                                   (FM-4)
    near field   A = FFT2⁻¹[ H · FFT2 ψ ],   |H| = 1, periodic, unitary         (FM-23)
                 H = e^{−iπ|f|²/F}                        without w
                 H = e^{2πi (√(1 − w²|f|²) − 1) / (w²F)}  with w: z/λ = 1/(w²F)

The second tends to the first for small w, since √(1 − u) − 1 → −u/2; the carrier e^{2πi z/λ} is left out of both.
Pixel (y, x) of a near-field frame is pixel (y, x) of the window.

H is sampled in steps of 1/N. Its phase turns by less than half a turn a step, so that nothing aliases and no wave runs
more than half a window, where

    F · N ≥ 1,   with w:  F · N · √(1 − w²/2) ≥ 1,   w < √2                     (FM-24)

(the largest slope, 2π f_y / F · (1 − w²|f|²)^{−1/2}, lies in the corner f = (½, ½); beyond w = √2 waves there are
evanescent, and H is not unitary). Voelz and Roggemann, Appl. Opt. 48, 6132 (2009); SCICO's ``FresnelPropagator`` states
the same condition in metres.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.propagation import FAR_FIELD, Propagation
from ..errors import DataError

__all__ = [
    "ELECTRON_REST_EV",
    "HC_EV_M",
    "check_sampling",
    "energy_of_eV",
    "far_field",
    "far_field_adjoint",
    "fresnel_number_of",
    "is_sampled",
    "propagate",
    "propagate_adjoint",
    "transfer_function",
    "wavelength_m",
]

HC_EV_M = 1.239841984e-6
"""hc, electronvolt metres: wavelength = HC_EV_M / energy. Exact in the SI of 2019, here to ten digits (CODATA 2018)."""

ELECTRON_REST_EV = 510998.95
"""m c² of an electron, electronvolts (CODATA 2018)."""


def wavelength_m(energy_eV: float, radiation: str = "photon") -> float:
    """λ = hc / E of photons, hc / √(E (E + 2 m c²)) of electrons of kinetic energy E (FM-35).

    Args:
        energy_eV: photon energy, or kinetic energy (accelerating voltage) of electrons; > 0.
        radiation: ``photon`` or ``electron``.
    """
    if radiation == "electron":
        return HC_EV_M / math.sqrt(energy_eV * (energy_eV + 2 * ELECTRON_REST_EV))
    return HC_EV_M / energy_eV


def energy_of_eV(wavelength_m: float, radiation: str = "photon") -> float:
    """E = hc / λ of photons, √((hc / λ)² + (m c²)²) − m c² of electrons: the inverse of :func:`wavelength_m` (FM-35).

    Args:
        wavelength_m: metres; > 0.
        radiation: ``photon`` or ``electron``.
    """
    momentum = HC_EV_M / wavelength_m
    if radiation == "electron":
        # (√(p² + m²) − m) without the difference of two large numbers
        return momentum**2 / (math.hypot(momentum, ELECTRON_REST_EV) + ELECTRON_REST_EV)
    return momentum


def far_field(exit_wave: NDArray[Any]) -> NDArray[np.complex128]:
    """F ψ = fftshift FFT2 ψ, unitary: Σ|F ψ|² = Σ|ψ|²; zero frequency lands on (N/2, N/2) (FM-4).

    Args:
        exit_wave: (..., N, N).
    """
    return np.fft.fftshift(np.fft.fft2(exit_wave, norm="ortho"), axes=(-2, -1))


def far_field_adjoint(wave: NDArray[Any]) -> NDArray[np.complex128]:
    """F† = F⁻¹, back from the detector to the exit plane.

    Args:
        wave: (..., N, N), zero frequency at (N/2, N/2).
    """
    return np.fft.ifft2(np.fft.ifftshift(wave, axes=(-2, -1)), norm="ortho")


def _least_product(propagation: Propagation) -> float:
    """The least F · N that does not alias; infinite where waves of the finest detail are evanescent."""
    w = propagation.wavelength_px
    if w is None:
        return 1.0
    return 1 / math.sqrt(1 - w**2 / 2) if w**2 < 2 else math.inf


def is_sampled(propagation: Propagation, N: int) -> bool:
    """Whether the propagator of a scan does not alias on its window (FM-24).

    Args:
        propagation: of the scan; a far field is always sampled.
        N: side of the window, pixels.
    """
    return propagation.fresnel_number is None or propagation.fresnel_number * N >= _least_product(propagation)


def check_sampling(propagation: Propagation, N: int, name: str) -> None:
    """Refuse a near field that would alias.

    Args:
        propagation: of the scan.
        N: side of the window, pixels.
        name: the scan, for messages.

    Raises:
        DataError: with N, F, and the least of each that is allowed.
    """
    F = propagation.fresnel_number
    if F is None or is_sampled(propagation, N):
        return
    least = _least_product(propagation)
    if math.isinf(least):
        raise DataError(
            f"{name}: a near field with wavelength_px = {propagation.wavelength_px:g} has evanescent waves; "
            f"it must be below √2. Use larger object pixels, or leave wavelength_px out."
        )
    raise DataError(
        f"{name}: the near field aliases: Fresnel number F = {F:.4g} of a pixel, N = {N}, and F·N = {F * N:.3g} must "
        f"be at least {least:.3g}. At N = {N} the least F is {least / N:.4g}; at this F the least N is "
        f"{2 * math.ceil(least / F / 2)}. Check the Fresnel number (of the demagnified pixel), crop less, or read the "
        "scan as far field."
    )


@lru_cache(maxsize=4)
def transfer_function(propagation: Propagation, N: int) -> NDArray[np.complex128]:
    """H of a near field, zero frequency at index 0 (FM-23).

    Args:
        propagation: a near field.
        N: side of the window, pixels.

    Returns:
        (N, N) complex128 of modulus 1, read-only.

    Raises:
        DataError: a far field, which has no transfer function, or one that would alias.
    """
    F, w = propagation.fresnel_number, propagation.wavelength_px
    if F is None:
        raise DataError("a far field has no transfer function.")
    check_sampling(propagation, N, "propagation")
    f = np.fft.fftfreq(N)
    squared = f[:, None] ** 2 + f**2
    # √(1 − u) − 1 as −u / (1 + √(1 − u)): no small difference of large numbers, and the paraxial limit for w → 0
    path = -squared / 2 if w is None else -squared / (1 + np.sqrt(1 - w**2 * squared))
    out: NDArray[np.complex128] = np.exp(2j * np.pi / F * path)
    out.flags.writeable = False
    return out


def propagate(exit_wave: NDArray[Any], propagation: Propagation = FAR_FIELD) -> NDArray[np.complex128]:
    """F ψ, unitary: what arrives at the detector (FM-4, FM-23).

    Args:
        exit_wave: (..., N, N).
        propagation: of the scan.

    Returns:
        (..., N, N) complex128; zero frequency at (N/2, N/2) in the far field, the window's own pixels in the near one.
    """
    if not propagation.is_near:
        return far_field(exit_wave)
    return np.fft.ifft2(np.fft.fft2(exit_wave) * transfer_function(propagation, exit_wave.shape[-1]))


def propagate_adjoint(wave: NDArray[Any], propagation: Propagation = FAR_FIELD) -> NDArray[np.complex128]:
    """F† = F⁻¹, back from the detector to the exit plane; shapes as in :func:`propagate`."""
    if not propagation.is_near:
        return far_field_adjoint(wave)
    return np.fft.ifft2(np.fft.fft2(wave) * transfer_function(propagation, wave.shape[-1]).conj())


def fresnel_number_of(
    energy_eV: float,
    distance_m: float,
    detector_pixel_size_m: float,
    magnification: float = 1.0,
    radiation: str = "photon",
) -> float:
    """F = p² / (m λ z) of the demagnified pixel p/m at the effective distance z/m (FM-25).

    Args:
        energy_eV: of a photon or an electron.
        distance_m: z, sample to detector.
        detector_pixel_size_m: p.
        magnification: m; 1 for a parallel beam.
        radiation: see :func:`wavelength_m`.
    """
    return detector_pixel_size_m**2 / (magnification * wavelength_m(energy_eV, radiation) * distance_m)
