"""Quantities in units of themselves: what is lit, how much an image varies, and a frame as a network is shown it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .forward import mode_intensity

__all__ = ["CONSTANT_BELOW", "LIT_FROM", "lit", "peak_intensity", "relative_amplitude", "relative_variation"]

LIT_FROM = 0.1
"""Fraction of the most light from which a pixel counts as lit (FM-29)."""

CONSTANT_BELOW = 1e-5
"""Relative variation below which an image counts as constant; rounding of complex64 leaves about 1e-7 (FM-30)."""


def lit(light: NDArray[Any]) -> NDArray[np.bool_]:
    """Where at least a tenth of the most light fell; nowhere when there is none (FM-29).

    Args:
        light: (H, W) real ≥ 0: coverage of an image, or illumination of a canvas.

    Returns:
        (H, W) bool.
    """
    return np.asarray((light > 0) & (light >= LIT_FROM * light.max()))


def peak_intensity(probe: NDArray[Any]) -> float:
    """Max Σ_p |P_p|²: the unit of an image's coverage, from the probe (P, N, N) complex as it is kept (FM-29)."""
    return float(mode_intensity(probe).max())


def relative_variation(image: NDArray[Any], weight: NDArray[Any]) -> float:
    """√(⟨|O − ⟨O⟩|²⟩ / ⟨|O|²⟩) with ⟨·⟩ the weighted mean; 0 for a constant or empty image, 1 at most (FM-30).

    Args:
        image: (..., H, W) complex or real.
        weight: (H, W) ≥ 0, the same for every image of a stack.
    """
    weights = np.broadcast_to(weight, image.shape)
    total = weights.sum()
    power = np.sum(weights * np.abs(image) ** 2) / total if total > 0 else 0.0
    if not power > 0:
        return 0.0
    mean = np.sum(weights * image) / total
    return float(np.sqrt(np.sum(weights * np.abs(image - mean) ** 2) / total / power))


def relative_amplitude(
    counts: NDArray[Any],
    shifted_probe: NDArray[Any],
    scale: float,
    mask: NDArray[np.bool_] | None = None,
    background: NDArray[Any] | None = None,
) -> NDArray[np.float64]:
    """√(max(k − b, 0) / (s Σ_p Σ |S_j P_p|²)) · N/2, 0 in bad pixels (FM-31).

    A frame that an object of modulus 1 would give has the mean power (N/2)² whatever its exposure: the scale and the
    probe's power stand for the mean of the data, so that it is the same at inference as in training.

    Args:
        counts: (..., N, N) real k_j.
        shifted_probe: (..., P, N, N) complex S_j P.
        scale: s.
        mask: (N, N) bool, True = good, or None.
        background: (N, N) expected counts b, or None.

    Returns:
        (..., N, N) real.
    """
    signal = np.maximum(counts if background is None else counts - background, 0.0)
    signal = signal if mask is None else np.where(mask, signal, 0.0)
    expected = scale * mode_intensity(shifted_probe).sum(axis=(-2, -1), keepdims=True)
    return np.asarray(np.sqrt(signal / expected) * (counts.shape[-1] / 2))
