"""What physics already knows of a frame before any network looks at it (FM-16)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .forward import far_field, far_field_adjoint

__all__ = ["FEATURE_FLOOR", "REGULARISATION", "probe_features"]

REGULARISATION = 0.05
"""Fraction of the probe's peak intensity below which the division by the probe is damped."""

FEATURE_FLOOR = 1e-20
"""Added to the power of a far field before dividing by its root."""


def probe_features(
    counts: NDArray[Any],
    shifted_probe: NDArray[Any],
    scale: float,
    mask: NDArray[np.bool_] | None = None,
    background: NDArray[Any] | None = None,
) -> NDArray[np.float64]:
    """Back-propagate the measured amplitude with the far-field phase of the frame's own probe (FM-16).

    With P = S(δ_j) P_0 the shifted main mode and A_p = F S(δ_j) P_p the flat object's waves,

        u = F⁻¹[ A_0 √( (k − b)₊ / (s Σ_p |A_p|²) ) ],      A_0 itself in bad pixels,
        d = (u − P) P* / max|P|²,     q = u P* / (|P|² + 0.05 max|P|²) − |P|² / (|P|² + 0.05 max|P|²).

    A frame of the flat object gives u = P, so that all features vanish; with one mode the wave in the brackets is
    √((k − b)/s) e^{i arg F P}.

    Args:
        counts: (..., N, N) measured counts k.
        shifted_probe: (..., P, N, N) complex modes, shifted by the sub-pixel rest of their frame.
        scale: s.
        mask: (N, N) True = good, or None.
        background: (N, N) expected background counts b, or None.

    Returns:
        (..., 4, N, N) float64: Re d, Im d, Re q, Im q.
    """
    waves = far_field(shifted_probe)
    power = np.sum(np.abs(waves) ** 2, axis=-3) + FEATURE_FLOOR
    signal = np.maximum(counts if background is None else counts - background, 0.0) / scale
    factor = np.sqrt(signal / power)
    if mask is not None:
        factor = np.where(mask, factor, 1.0)
    main = shifted_probe[..., 0, :, :]
    u = far_field_adjoint(waves[..., 0, :, :] * factor)
    intensity = np.abs(main) ** 2
    peak = intensity.max(axis=(-2, -1), keepdims=True)
    d = (u - main) * np.conj(main)
    damped = intensity + REGULARISATION * peak
    return np.stack([d.real / peak, d.imag / peak, d.real / damped, d.imag / damped], axis=-3)
