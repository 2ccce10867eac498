"""From object and probe to expected counts (specs/20-forward-model).

Notation: O object, P_p probe mode p, n_j integer corner and δ_j sub-pixel rest of frame j, S(δ) Fourier shift,
F the scan's unitary propagator to the detector (``propagation``), s intensity scale, b background.

    ψ_jp = S(δ_j) P_p · O[n_j : n_j + N]                (FM-3)
    λ_j  = s · Σ_p |F ψ_jp|² + b                        (FM-5)

Arrays are complex128 / float64 inside; axis order is (…, y, x).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.propagation import FAR_FIELD, Propagation
from .propagation import propagate

__all__ = [
    "detector_rate",
    "exit_waves",
    "expected_counts",
    "fourier_shift",
    "mode_intensity",
    "rate_of_waves",
    "shift_ramp",
    "weighted_waves",
]


def shift_ramp(shift_px: NDArray[Any], N: int) -> NDArray[np.complex128]:
    """Transfer function e^{−2πi(f_y δ_y + f_x δ_x)} of a shift by δ, zero frequency at index 0.

    Args:
        shift_px: (..., 2) shift (y, x), pixels.
        N: side.

    Returns:
        (..., N, N) complex128 of modulus 1, so that the shift is unitary and S(−δ) is its inverse and adjoint.
    """
    frequency = np.fft.fftfreq(N)
    shift = np.asarray(shift_px, dtype=np.float64)
    ramp_y = np.exp(-2j * np.pi * shift[..., 0, None] * frequency)
    ramp_x = np.exp(-2j * np.pi * shift[..., 1, None] * frequency)
    return np.asarray(ramp_y[..., :, None] * ramp_x[..., None, :])


def fourier_shift(wave: NDArray[Any], shift_px: NDArray[Any]) -> NDArray[np.complex128]:
    """Move a wave's content by +δ: (S(δ)P)(r) = P(r − δ), periodic, exact for band-limited waves (FM-2).

    Args:
        wave: (..., N, N).
        shift_px: (..., 2) shift (y, x), pixels; leading axes broadcast against those of `wave`.

    Returns:
        (..., N, N) complex128.
    """
    return np.fft.ifft2(np.fft.fft2(wave) * shift_ramp(shift_px, wave.shape[-1]))


def exit_waves(patches: NDArray[Any], probe: NDArray[Any], subpixel_px: NDArray[Any]) -> NDArray[np.complex128]:
    """ψ_jp = S(δ_j) P_p · Q_j (FM-3).

    Args:
        patches: (J, N, N) complex object patches.
        probe: (P, N, N) complex modes.
        subpixel_px: (J, 2) sub-pixel rest (y, x).

    Returns:
        (J, P, N, N) complex128.
    """
    return np.asarray(fourier_shift(probe[None], np.asarray(subpixel_px)[:, None]) * patches[:, None])


def weighted_waves(waves: NDArray[Any], mode_weights: NDArray[Any] | None) -> NDArray[Any]:
    """√w_jp ψ_jp: what frame j takes of mode p, so that λ_j = s Σ_p w_jp |F ψ_jp|² + b.

    Args:
        waves: (J, P, N, N) complex ψ_jp.
        mode_weights: (J, P) w_jp ≥ 0, or None where each frame takes all of all.

    Returns:
        (J, P, N, N) complex.
    """
    if mode_weights is None:
        return waves
    return np.asarray(waves * np.sqrt(mode_weights.astype(np.float64))[:, :, None, None])


def expected_counts(
    patches: NDArray[Any],
    probe: NDArray[Any],
    subpixel_px: NDArray[Any],
    scale: float = 1.0,
    background: NDArray[Any] | None = None,
    propagation: Propagation = FAR_FIELD,
) -> NDArray[np.float64]:
    """λ_j = s Σ_p |F ψ_jp|² + b: modes add incoherently (FM-5).

    Args:
        patches: (J, N, N) complex object patches.
        probe: (P, N, N) complex modes.
        subpixel_px: (J, 2) sub-pixel rest (y, x).
        scale: s, counts per unit of |probe|².
        background: (N, N) expected background counts.
        propagation: of the scan.

    Returns:
        (J, N, N) float64 expected counts.
    """
    return rate_of_waves(exit_waves(patches, probe, subpixel_px), scale, background, propagation)


def rate_of_waves(
    waves: NDArray[Any], scale: float, background: NDArray[Any] | None, propagation: Propagation = FAR_FIELD
) -> NDArray[np.float64]:
    """λ of exit waves ψ (..., P, N, N): the second half of :func:`expected_counts`."""
    return detector_rate(propagate(waves, propagation), scale, background)


def detector_rate(waves: NDArray[Any], scale: float, background: NDArray[Any] | None) -> NDArray[np.float64]:
    """λ = s Σ_p |A_p|² + b of waves at the detector (FM-5).

    Args:
        waves: (..., P, N, N) complex A_p.
        scale: s, counts per unit of |probe|².
        background: (N, N) expected background counts, or None.

    Returns:
        (..., N, N) float64 expected counts.
    """
    rate = scale * mode_intensity(waves)
    return rate if background is None else rate + background


def mode_intensity(shifted_probe: NDArray[Any]) -> NDArray[np.float64]:
    """Σ_p |S(δ_j) P_p|², what lights a patch and so its weight in every merge (FM-7).

    Args:
        shifted_probe: (..., P, N, N) complex modes, shifted by the sub-pixel rest of their frame.

    Returns:
        (..., N, N) float64.
    """
    intensity: NDArray[np.float64] = np.sum(np.abs(shifted_probe) ** 2, axis=-3)
    return intensity
