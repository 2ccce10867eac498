"""One step of a classical solver on all frames at once: what physics says of a patch, given an estimate (FM-16)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.propagation import FAR_FIELD, Propagation
from .forward import detector_rate, mode_intensity
from .likelihood import RATE_FLOOR
from .propagation import propagate, propagate_adjoint

__all__ = [
    "DAMPING",
    "GAIN_LIMIT",
    "RELAXATION",
    "SIZE_FLOOR",
    "relative_weight",
    "solver_update",
    "swept",
    "weighted_size",
]

DAMPING = 0.1
"""Share of the probe's peak intensity in the denominator of an update; the frame's own intensity has the rest."""

GAIN_LIMIT = 10.0
"""Largest factor on a wave: where next to nothing is expected the phase is rounding noise, and must not be blown up."""

RELAXATION = 0.9
"""ρ: how much of its update a patch takes in one sweep."""

SIZE_FLOOR = 1e-6
"""Least size of an update that it is divided by: a frame that is explained to rounding has none."""


def solver_update(
    patches: NDArray[Any],
    shifted_probe: NDArray[Any],
    counts: NDArray[Any],
    mask: NDArray[np.bool_] | None = None,
    background: NDArray[Any] | None = None,
    scale: float = 1.0,
    propagation: Propagation = FAR_FIELD,
) -> NDArray[np.complex128]:
    """Change of each patch that brings its frame to the measured amplitude (FM-16).

    With A_p = F S_j P_p Q_j and λ = s Σ_p |A_p|² + b, all modes are scaled by one factor,

        D_p = F⁻¹[ A_p (min(√(k / λ), 10) − 1) ],     bad pixels keep their wave (factor 1),
        u_j = Σ_p (S_j P_p)* D_p / (0.9 Σ_p |S_j P_p|² + 0.1 max Σ_p |S_j P_p|²),

    and a parallel sweep is Q ← Q + ρ u followed by a merge. Maiden et al., Optica 4, 736 (2017), with the
    denominator of rPIE.

    Args:
        patches: (..., N, N) complex estimate Q_j.
        shifted_probe: (..., P, N, N) complex modes, shifted by the sub-pixel rest of their frame.
        counts: (..., N, N) measured counts k.
        mask: (N, N) True = good, or None.
        background: (N, N) expected background counts b, or None.
        scale: s.
        propagation: of the scan.

    Returns:
        (..., N, N) complex128 u_j.
    """
    waves = propagate(shifted_probe * patches[..., None, :, :], propagation)
    rate = np.maximum(detector_rate(waves, scale, background), RATE_FLOOR)
    change = np.minimum(np.sqrt(counts) / np.sqrt(rate), GAIN_LIMIT) - 1
    if mask is not None:
        change = np.where(mask, change, 0.0)
    difference = propagate_adjoint(waves * change[..., None, :, :], propagation)
    intensity = mode_intensity(shifted_probe)
    peak = intensity.max(axis=(-2, -1), keepdims=True)
    step = np.sum(np.conj(shifted_probe) * difference, axis=-3)
    update: NDArray[np.complex128] = step / ((1 - DAMPING) * intensity + DAMPING * peak)
    return update


def swept(patches: NDArray[Any], update: NDArray[Any]) -> NDArray[Any]:
    """Q + ρ u, a patch's part of a parallel sweep, before the merge (FM-16).

    Args:
        patches: (..., N, N) complex estimate Q.
        update: (..., N, N) complex u of :func:`solver_update`.
    """
    return patches + RELAXATION * update


def relative_weight(shifted_probe: NDArray[Any]) -> NDArray[np.float64]:
    """w_j / max w_j, a frame's weight in a merge relative to the largest: how well each pixel of it is lit (FM-20).

    Args:
        shifted_probe: (..., P, N, N) complex modes, shifted by the sub-pixel rest of their frame.

    Returns:
        (..., N, N) float64 between 0 and 1.
    """
    intensity = mode_intensity(shifted_probe)
    return np.asarray(intensity / intensity.max(axis=(-2, -1), keepdims=True))


def weighted_size(values: NDArray[Any], weights: NDArray[Any]) -> NDArray[np.float64]:
    """Root mean square of each frame where it is lit, √(Σ w |v|² / Σ w), at least 1e-6 (FM-20).

    Args:
        values: (..., N, N) complex.
        weights: (..., N, N) real ≥ 0.

    Returns:
        (..., 1, 1) float64.
    """
    total = weights.sum(axis=(-2, -1), keepdims=True)
    mean = np.sum(weights * np.abs(values) ** 2, axis=(-2, -1), keepdims=True) / total
    return np.asarray(np.maximum(np.sqrt(mean), SIZE_FLOOR))
