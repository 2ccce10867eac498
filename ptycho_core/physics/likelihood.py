"""How well expected counts explain measured counts: losses, and their gradients by hand (FM-8 … FM-10).

Gradients of a real loss are ∂L/∂Re + i ∂L/∂Im, so that a step along −gradient lowers the loss.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.propagation import FAR_FIELD, Propagation
from ..errors import ConfigError
from .forward import detector_rate, exit_waves, fourier_shift
from .patches import accumulate, extract
from .propagation import propagate, propagate_adjoint

__all__ = [
    "RATE_FLOOR",
    "amplitude_loss",
    "loss_and_gradient",
    "loss_slope",
    "poisson_loss",
    "sample_counts",
    "wave_gradient",
]

RATE_FLOOR = 1e-8
"""Expected counts are clamped to at least this in every loss."""


def _good(values: NDArray[np.float64], mask: NDArray[np.bool_] | None) -> NDArray[np.float64]:
    return values if mask is None else np.where(mask, values, 0.0)


def poisson_loss(rate: NDArray[Any], counts: NDArray[Any], mask: NDArray[np.bool_] | None, divisor: float) -> float:
    """Σ_good (λ − k ln λ) / divisor, λ clamped to ≥ 1e-8 (FM-8).

    Args:
        rate: (J, N, N) expected counts λ.
        counts: (J, N, N) measured counts k.
        mask: (N, N) True = good, or None.
        divisor: frames × mean training counts a frame; a constant of the training set.
    """
    lam = np.maximum(rate, RATE_FLOOR)
    return float(np.sum(_good(lam - counts * np.log(lam), mask)) / divisor)


def amplitude_loss(rate: NDArray[Any], counts: NDArray[Any], mask: NDArray[np.bool_] | None, divisor: float) -> float:
    """Σ_good (√λ − √k)² / divisor, λ clamped to ≥ 1e-8 (FM-9); arguments as in :func:`poisson_loss`."""
    lam = np.maximum(rate, RATE_FLOOR)
    return float(np.sum(_good((np.sqrt(lam) - np.sqrt(counts)) ** 2, mask)) / divisor)


def loss_slope(
    loss: str, rate: NDArray[Any], counts: NDArray[Any], mask: NDArray[np.bool_] | None
) -> NDArray[np.float64]:
    """∂/∂λ of the summed loss, (J, N, N); 0 where λ is clamped and in bad pixels (FM-10).

    Args:
        loss: ``poisson`` or ``amplitude``.
        rate: (J, N, N) expected counts λ.
        counts: (J, N, N) measured counts k.
        mask: (N, N) True = good, or None.
    """
    lam = np.maximum(rate, RATE_FLOOR)
    slope = 1.0 - counts / lam if loss == "poisson" else 1.0 - np.sqrt(counts / lam)
    return _good(np.where(rate < RATE_FLOOR, 0.0, slope), mask)


def wave_gradient(
    waves: NDArray[Any],
    counts: NDArray[Any],
    loss: str,
    mask: NDArray[np.bool_] | None,
    background: NDArray[Any] | None,
    scale: float,
    divisor: float,
    propagation: Propagation = FAR_FIELD,
) -> tuple[float, NDArray[np.complex128], float]:
    """Loss of exit waves, and its gradients for them and for the scale (FM-10).

    With A_jp = F ψ_jp and h = ∂L/∂λ: χ_jp = ∂L/∂ψ_jp = 2 s F†(h_j A_jp) and ∂L/∂s = Σ_j h_j Σ_p |A_jp|².

    Args:
        waves: (J, P, N, N) complex ψ_jp.
        counts: (J, N, N) measured counts.
        loss: ``poisson`` or ``amplitude``.
        mask: (N, N) True = good, or None.
        background: (N, N) expected background counts, or None.
        scale: s.
        divisor: see :func:`poisson_loss`.
        propagation: of the scan.

    Returns:
        loss, χ (J, P, N, N) complex128, ∂L/∂s.

    Raises:
        ConfigError: unknown loss.
    """
    functions = {"poisson": poisson_loss, "amplitude": amplitude_loss}
    if loss not in functions:
        raise ConfigError(f"loss = {loss!r}; allowed: {', '.join(functions)}.")
    arrived = propagate(waves, propagation)
    rate = detector_rate(arrived, scale, background)
    slope = loss_slope(loss, rate, counts, mask) / divisor
    chi = 2 * scale * propagate_adjoint(slope[:, None] * arrived, propagation)
    return functions[loss](rate, counts, mask, divisor), chi, float(np.sum(slope * detector_rate(arrived, 1.0, None)))


def loss_and_gradient(
    obj: NDArray[Any],
    probe: NDArray[Any],
    corners_px: NDArray[np.int64],
    subpixel_px: NDArray[Any],
    counts: NDArray[Any],
    loss: str = "poisson",
    mask: NDArray[np.bool_] | None = None,
    background: NDArray[Any] | None = None,
    scale: float = 1.0,
    divisor: float = 1.0,
    propagation: Propagation = FAR_FIELD,
) -> tuple[float, NDArray[np.complex128], NDArray[np.complex128], float]:
    """Loss and its gradients for object, probe and scale (FM-10).

    With the wave gradient χ_jp of :func:`wave_gradient`,

        ∂L/∂O = Σ_j extract†( Σ_p conj(S_j P_p) χ_jp ),   ∂L/∂P_p = Σ_j S_j†( conj(Q_j) χ_jp ).

    Args:
        obj: (H, W) complex object.
        probe: (P, N, N) complex modes.
        corners_px: (J, 2) integer corners (y, x) on the object.
        subpixel_px: (J, 2) sub-pixel rest (y, x).
        counts: (J, N, N) measured counts.
        loss: ``poisson`` or ``amplitude``.
        mask: (N, N) True = good, or None.
        background: (N, N) expected background counts, or None.
        scale: s.
        divisor: see :func:`poisson_loss`.
        propagation: of the scan.

    Returns:
        loss, d_obj (H, W) complex128, d_probe (P, N, N) complex128, d_scale.

    Raises:
        ConfigError: unknown loss.
    """
    patches = extract(obj, corners_px, probe.shape[-1])
    shifted = fourier_shift(probe[None], np.asarray(subpixel_px)[:, None])
    waves = exit_waves(patches, probe, subpixel_px)
    value, chi, d_scale = wave_gradient(waves, counts, loss, mask, background, scale, divisor, propagation)
    d_obj = accumulate(np.sum(np.conj(shifted) * chi, axis=1), corners_px, obj.shape)
    d_probe = np.sum(
        fourier_shift(np.conj(patches)[:, None] * chi, -np.asarray(subpixel_px, dtype=np.float64)[:, None]), axis=0
    )
    return value, d_obj, d_probe, d_scale


def sample_counts(rate: NDArray[Any], rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw photon counts k ~ Poisson(λ).

    Args:
        rate: (...) expected counts.
        rng: the only source of randomness.

    Returns:
        (...) float32 whole numbers.
    """
    return rng.poisson(rate).astype(np.float32)
