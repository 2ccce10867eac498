"""The bright field in a mean pattern: what the bare beam shows of the lens that made it (PROBE-1)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ..data.probe_guess import Aperture

__all__ = ["bright_field", "find_aperture"]

EDGE = 0.1
"""Part of the bright level at which the bright field ends. Scattered light lies below it, unless an object scatters
most of the beam; the flanks of a blurred edge lie above."""

_BRIGHT_PERCENTILE = 99
_LEAST_STOP = 0.15


def _level(pattern: NDArray[np.float64], good: NDArray[np.bool_]) -> float:
    """Counts of the bright field's inside: one hot pixel or one bright rim does not decide."""
    values = pattern[good]
    high = float(np.percentile(values, _BRIGHT_PERCENTILE))
    inside = values[values > 0.5 * high]
    return float(np.median(inside)) if len(inside) else high


def bright_field(
    pattern: NDArray[np.float64], mask: NDArray[np.bool_] | None = None, *, edge: float = EDGE
) -> NDArray[np.bool_]:
    """Where a mean pattern is bright: the largest connected part above a part of the bright level.

    Args:
        pattern: (N, N) mean counts, background subtracted.
        mask: (N, N) True = good, or None.
        edge: part of the bright level at which it ends.

    Returns:
        (N, N) bool; nowhere where there is no light.
    """
    from scipy.ndimage import label

    good = np.ones(pattern.shape, bool) if mask is None else mask
    lit = good & (pattern > edge * _level(pattern, good)) if good.any() else good
    if not lit.any():
        return np.zeros(pattern.shape, bool)
    parts, n_parts = label(lit, np.ones((3, 3)))
    light = np.bincount(parts.ravel(), np.where(lit, pattern, 0.0).ravel(), n_parts + 1)
    return np.asarray(parts == int(light[1:].argmax()) + 1)


def find_aperture(pattern: NDArray[np.float64], mask: NDArray[np.bool_] | None = None) -> Aperture | None:
    """Measure disc or annulus of the bright field.

    Args:
        pattern: (N, N) mean counts, background subtracted.
        mask: (N, N) True = good, or None.

    Returns:
        The aperture, or None where no light is.
    """
    from scipy.ndimage import binary_fill_holes

    lit = bright_field(pattern, mask)
    if not lit.any():
        return None
    good = np.ones(pattern.shape, bool) if mask is None else mask
    # what the mask hides inside the bright field belongs to it; what is dark inside it is the central stop
    filled = binary_fill_holes(lit | ~good) & (lit | binary_fill_holes(lit))
    hole = filled & ~lit & good
    y, x = np.nonzero(filled)
    centre = (float(y.mean()), float(x.mean()))
    area = float(filled.sum())
    radius = math.sqrt(area / math.pi)
    inner = math.sqrt(hole.sum() / math.pi)
    total = float(pattern[good].sum())
    return Aperture(
        radius=radius,
        inner_radius=inner if inner > _LEAST_STOP * radius else 0.0,
        threshold=EDGE * _level(pattern, good),
        centre=centre,
        share=float(pattern[lit].sum()) / total if total > 0 else 0.0,
    )
