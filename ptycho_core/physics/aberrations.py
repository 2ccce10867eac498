"""Low-order aberrations of the lens that makes a probe, as Zernike phases over its aperture (FM-17)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, suggest
from .propagation import far_field, far_field_adjoint

__all__ = ["ABERRATIONS", "aberrate", "zernike"]

ABERRATIONS = (
    "astigmatism_0", "astigmatism_45", "coma_y", "coma_x", "trefoil_y", "trefoil_x", "spherical",
)  # fmt: skip
"""Names accepted by :func:`zernike`."""


def zernike(name: str, N: int, radius_px: float) -> NDArray[np.float64]:
    """One Zernike polynomial over the aperture, unit root mean square on the full disk (Noll 1976).

    Args:
        name: one of :data:`ABERRATIONS`.
        N: side of the detector, pixels.
        radius_px: radius of the aperture on the detector, detector pixels.

    Returns:
        (N, N) float64, zero frequency at (N/2, N/2); it goes on growing outside the disk, where no light is.

    Raises:
        ConfigError: unknown name.
    """
    q = (np.arange(N) - N // 2) / radius_px
    rho, theta = np.hypot(q[:, None], q[None, :]), np.arctan2(q[:, None], q[None, :])
    if name not in ABERRATIONS:
        raise ConfigError(f"aberration {name!r}; allowed: {', '.join(ABERRATIONS)}.{suggest(name, ABERRATIONS)}")
    if name.startswith("astigmatism"):
        angular = np.cos(2 * theta) if name.endswith("_0") else np.sin(2 * theta)
        return np.asarray(math.sqrt(6) * rho**2 * angular)
    if name == "spherical":
        return np.asarray(math.sqrt(5) * (6 * rho**4 - 6 * rho**2 + 1))
    order = 1 if name.startswith("coma") else 3
    angular = np.cos(order * theta) if name.endswith("_x") else np.sin(order * theta)
    radial = 3 * rho**3 - 2 * rho if order == 1 else rho**3
    return np.asarray(math.sqrt(8) * radial * angular)


def aberrate(probe: NDArray[Any], radius_px: float, coefficients: Mapping[str, float]) -> NDArray[np.complex64]:
    """Give a probe aberrations: P ← F⁻¹[ F P · e^{iW} ], W = Σ c_n Z_n(q / radius) (FM-17).

    Args:
        probe: (P, N, N) complex modes.
        radius_px: radius of the aperture on the detector, detector pixels.
        coefficients: name in :data:`ABERRATIONS` → c_n, radians root mean square over the disk.

    Returns:
        (P, N, N) complex64 of the same power.

    Raises:
        ConfigError: unknown aberration.
    """
    N = probe.shape[-1]
    phase = np.zeros((N, N))
    for name, rms_rad in coefficients.items():
        phase += rms_rad * zernike(name, N, radius_px)
    return far_field_adjoint(far_field(probe) * np.exp(1j * phase)).astype(np.complex64)
