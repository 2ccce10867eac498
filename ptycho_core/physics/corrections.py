"""What an experiment leaves to be fitted besides object and probe (FM-26 … FM-28, FM-32).

Positions off by a linear map, an intensity for each frame of a beam that fluctuates, and the support of a probe.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .likelihood import amplitude_loss, poisson_loss

__all__ = ["affine_step", "frame_gains", "loss_noise", "saturated_loss", "support_mask"]


def affine_step(step: NDArray[Any], places_px: NDArray[Any]) -> NDArray[np.float64]:
    """D, the linear map that steps have in common: Σ_j |Δδ_j − t − D (r_j − r̄)|² is least, t their mean (FM-26).

    Args:
        step: (J, 2) steps Δδ_j of positions (y, x), object pixels.
        places_px: (J, 2) where the frames are, r_j.

    Returns:
        (2, 2) float64, row by component of the step; of the least size where places leave it open, as on a line.
    """
    offsets = np.asarray(places_px, np.float64) - np.mean(places_px, axis=0, dtype=np.float64)
    common = np.asarray(step, np.float64) - np.mean(step, axis=0, dtype=np.float64)
    return np.asarray((np.linalg.pinv(offsets, rcond=1e-3) @ common).T)


def frame_gains(
    rate: NDArray[Any], counts: NDArray[Any], mask: NDArray[np.bool_] | None, background: NDArray[Any] | None
) -> NDArray[np.float64]:
    """g_j = Σ (k_j − b) / Σ (λ_j − b) over good pixels: what a frame's intensity is off by (FM-27).

    Args:
        rate: (J, N, N) expected counts λ, background included.
        counts: (J, N, N) measured counts k, 0 in bad pixels.
        mask: (N, N) True = good, or None.
        background: (N, N) expected background counts b, or None.

    Returns:
        (J,) float64 > 0; 1 for a frame of which nothing is expected, or that was measured below its background.
    """
    good = np.ones(rate.shape[-2:], bool) if mask is None else mask
    level = 0.0 if background is None else float(background[good].sum(dtype=np.float64))
    measured = np.sum(counts * good, axis=(-2, -1), dtype=np.float64) - level
    expected = np.sum(rate * good, axis=(-2, -1), dtype=np.float64) - level
    usable = (measured > 0) & (expected > 0)
    return np.asarray(np.where(usable, measured, 1.0) / np.where(usable, expected, 1.0))


def support_mask(N: int, radius_px: float) -> NDArray[np.bool_]:
    """Pixels within a circle about the middle ((N−1)/2, (N−1)/2) of a window, (N, N), True inside (FM-28).

    Args:
        N: side of the window.
        radius_px: of the circle.
    """
    r = np.arange(N) - (N - 1) / 2
    return np.asarray(r[:, None] ** 2 + r**2 <= radius_px**2)


def saturated_loss(counts: NDArray[Any], loss: str, mask: NDArray[np.bool_] | None) -> float:
    """The summed loss of counts (J, N, N) that are expected as they were measured, λ = k: none is lower (FM-32).

    Args:
        counts: measured counts k.
        loss: ``poisson`` or ``amplitude``.
        mask: (N, N) True = good, or None.
    """
    k = np.asarray(counts, np.float64)
    return (poisson_loss if loss == "poisson" else amplitude_loss)(k, k, mask, 1.0)


def loss_noise(counts: NDArray[Any], loss: str, mask: NDArray[np.bool_] | None) -> float:
    """What noise spreads the summed loss above :func:`saturated_loss` by: √(n/2), for the amplitude √(n/8) (FM-32).

    n are the good pixels with a count at least: there twice the Poisson loss, and four times that of the amplitude,
    is about χ² with one degree of freedom, whose variance is 2. A dark pixel adds next to nothing.

    Args:
        counts: (J, N, N) measured counts k.
        loss: ``poisson`` or ``amplitude``.
        mask: (N, N) True = good, or None.
    """
    lit = np.asarray(counts) >= 1
    n = int(np.count_nonzero(lit if mask is None else lit & mask))
    return float(np.sqrt(n / (2 if loss == "poisson" else 8)))
