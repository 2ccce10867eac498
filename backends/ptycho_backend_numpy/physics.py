"""The oracle's forward model in the caller's precision: same names, same argument order, same numbers.

Transforms are those of scipy.fft, which keeps single precision. Losses, steps, extraction and accumulation are the
oracle's own: they keep the precision that they are given.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

__all__ = [
    "exit_waves",
    "expected_counts",
    "far_field",
    "far_field_adjoint",
    "fourier_shift",
    "mode_intensity",
    "shift_ramp",
]

_AXES = (-2, -1)


def shift_ramp(shift_px: NDArray[Any], N: int, dtype: Any = np.complex64) -> NDArray[Any]:
    """e^{−2πi(f_y δ_y + f_x δ_x)}, (..., N, N) of `dtype`, zero frequency at index 0 (FM-2)."""
    angle = -2j * np.pi * np.asarray(shift_px, np.float64)[..., None] * np.fft.fftfreq(N)
    ramps = np.exp(angle).astype(dtype)
    return np.asarray(ramps[..., 0, :, None] * ramps[..., 1, None, :])


def fourier_shift(wave: NDArray[Any], shift_px: NDArray[Any]) -> NDArray[Any]:
    """(S(δ)P)(r) = P(r − δ), (..., N, N) in the wave's precision (FM-2)."""
    ramp = shift_ramp(shift_px, wave.shape[-1], wave.dtype)
    return np.asarray(scipy.fft.ifft2(scipy.fft.fft2(wave) * ramp))


def far_field(exit_wave: NDArray[Any]) -> NDArray[Any]:
    """F ψ = fftshift FFT2 ψ, unitary (FM-4)."""
    return np.fft.fftshift(scipy.fft.fft2(exit_wave, norm="ortho"), axes=_AXES)


def far_field_adjoint(wave: NDArray[Any]) -> NDArray[Any]:
    """F† = F⁻¹ (FM-4)."""
    return np.asarray(scipy.fft.ifft2(np.fft.ifftshift(wave, axes=_AXES), norm="ortho"))


def exit_waves(patches: NDArray[Any], probe: NDArray[Any], subpixel_px: NDArray[Any]) -> NDArray[Any]:
    """ψ_jp = S(δ_j) P_p · Q_j, (J, P, N, N) in the probe's precision (FM-3)."""
    return np.asarray(fourier_shift(probe[None], np.asarray(subpixel_px)[:, None]) * patches[:, None])


def expected_counts(
    patches: NDArray[Any],
    probe: NDArray[Any],
    subpixel_px: NDArray[Any],
    scale: float = 1.0,
    background: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """λ_j = s Σ_p |F ψ_jp|² + b, (J, N, N) in the probe's precision (FM-5)."""
    rate = scale * mode_intensity(far_field(exit_waves(patches, probe, subpixel_px)))
    return np.asarray(rate if background is None else rate + background.astype(rate.dtype))


def mode_intensity(shifted_probe: NDArray[Any]) -> NDArray[Any]:
    """Σ_p |·|² over the modes of (..., P, N, N) waves (FM-7)."""
    return np.asarray(np.sum(shifted_probe.real**2 + shifted_probe.imag**2, axis=-3))
