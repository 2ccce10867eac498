"""From the loss that a descent tells after each epoch to a figure that can be judged (FM-38).

A Poisson loss ℓ = Σ (λ − k ln λ) / D has no natural zero, and its value is nearly all of it a constant of the data: of
a bright scan its curve is flat to the eye, and the curves of two sets of frames cannot be compared. Since

    Σ d(k, λ) = 2 Σ (λ − k + k ln(k/λ)) = 2 (Σ (λ − k ln λ) − Σ (k − k ln k)) = 2 (ℓ D − L_sat),

the deviance of the same frames is an affine function of ℓ, and what noise makes of it divides it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["epoch_deviance", "epoch_fourier_error"]


def epoch_deviance(losses: Sequence[float], divisor: float, saturated: float, expected: float) -> NDArray[np.float64]:
    """Reduced deviance 2 (ℓ D − L_sat) / ΣE d of frames after each epoch, from their Poisson loss (FM-38).

    Args:
        losses: ℓ (E,), of one set of frames.
        divisor: D, its frames × mean training counts a frame, as of the loss (FM-8).
        saturated: L_sat = Σ (k − k ln k) over the good pixels of the same frames (FM-32).
        expected: ΣE d over the same pixels, what noise makes of Σd (FM-22).

    Returns:
        (E,) float64; 1 is all that noise allows; NaN where nothing is expected.
    """
    above = 2 * (np.asarray(losses, np.float64) * divisor - saturated)
    return above / expected if expected > 0 else np.full(len(above), np.nan)


def epoch_fourier_error(losses: Sequence[float], divisor: float, counts: float) -> NDArray[np.float64]:
    """Fourier error Σ(√λ − √k)² / Σk of frames after each epoch, from their amplitude loss (FM-38).

    Args:
        losses: ℓ (E,), of one set of frames.
        divisor: D, see :func:`epoch_deviance`.
        counts: Σk over the good pixels of the same frames.

    Returns:
        (E,) float64; NaN where nothing was counted.
    """
    told = np.asarray(losses, np.float64) * divisor
    return told / counts if counts > 0 else np.full(len(told), np.nan)
