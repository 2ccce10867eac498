"""The oracle's forward model in the caller's precision: same names, same argument order, same numbers.

Transforms are those of scipy.fft, which keeps single precision. Losses, steps, extraction and accumulation are the
oracle's own: they keep the precision that they are given.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from ptycho_core.data.propagation import FAR_FIELD, Propagation

from .propagation import Propagator, far_field, far_field_adjoint, propagate, propagate_adjoint

__all__ = [
    "Propagator",
    "exit_waves",
    "expected_counts",
    "far_field",
    "far_field_adjoint",
    "fourier_shift",
    "mode_intensity",
    "propagate",
    "propagate_adjoint",
    "rate_of_waves",
    "shift_ramp",
]


def shift_ramp(shift_px: NDArray[Any], N: int, dtype: Any = np.complex64) -> NDArray[Any]:
    """e^{−2πi(f_y δ_y + f_x δ_x)}, (..., N, N) of `dtype`, zero frequency at index 0 (FM-2)."""
    angle = -2j * np.pi * np.asarray(shift_px, np.float64)[..., None] * np.fft.fftfreq(N)
    ramps = np.exp(angle).astype(dtype)
    return np.asarray(ramps[..., 0, :, None] * ramps[..., 1, None, :])


def fourier_shift(wave: NDArray[Any], shift_px: NDArray[Any]) -> NDArray[Any]:
    """(S(δ)P)(r) = P(r − δ), (..., N, N) in the wave's precision (FM-2)."""
    ramp = shift_ramp(shift_px, wave.shape[-1], wave.dtype)
    return np.asarray(scipy.fft.ifft2(scipy.fft.fft2(wave) * ramp))


def exit_waves(patches: NDArray[Any], probe: NDArray[Any], subpixel_px: NDArray[Any]) -> NDArray[Any]:
    """ψ_jp = S(δ_j) P_p · Q_j, (J, P, N, N) in the probe's precision (FM-3)."""
    return np.asarray(fourier_shift(probe[None], np.asarray(subpixel_px)[:, None]) * patches[:, None])


def expected_counts(
    patches: NDArray[Any],
    probe: NDArray[Any],
    subpixel_px: NDArray[Any],
    scale: float = 1.0,
    background: NDArray[Any] | None = None,
    propagation: Propagation = FAR_FIELD,
) -> NDArray[Any]:
    """λ_j = s Σ_p |F ψ_jp|² + b, (J, N, N) in the probe's precision (FM-5)."""
    return rate_of_waves(exit_waves(patches, probe, subpixel_px), scale, background, propagation)


def rate_of_waves(
    waves: NDArray[Any], scale: float, background: NDArray[Any] | None, propagation: Propagation = FAR_FIELD
) -> NDArray[Any]:
    """λ from exit waves ψ (..., P, N, N): the second half of :func:`expected_counts`."""
    rate = scale * mode_intensity(propagate(waves, propagation))
    return np.asarray(rate if background is None else rate + background.astype(rate.dtype))


def mode_intensity(shifted_probe: NDArray[Any]) -> NDArray[Any]:
    """Σ_p |·|² over the modes of (..., P, N, N) waves (FM-7)."""
    return np.asarray(np.sum(shifted_probe.real**2 + shifted_probe.imag**2, axis=-3))
