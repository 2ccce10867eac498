"""Whether scan positions lie on a lattice (PROBE-6).

Where they do, x_j = x_0 + n a + m b, a factor that repeats with the lattice can be moved from the object to the probe:
with g(r + a) = g(r + b) = g(r), P(r) O(r + x_j) and P(r)/g(r) · g(r) O(r + x_j) are the same exit waves for every j, up
to where x_0 lies. No frame tells such a g, so that object and probe may both show the lattice.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["scan_lattice"]

_LEAST_FRAMES = 16
_LOOKED_AT = 200
_TOLERANCE = 0.05
_LEAST_ON_IT = 0.9


def scan_lattice(positions_px: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """The lattice that positions lie on, or None where they do not.

    Args:
        positions_px: (M, 2) (y, x), any unit.

    Returns:
        (2, 2) float64, its rows a and b (y, x), the shorter first; None where fewer than nine tenths of the positions
        lie within a twentieth of a step of it.
    """
    from scipy.spatial import cKDTree

    M = len(positions_px)
    if M < _LEAST_FRAMES:
        return None
    near = cKDTree(positions_px)
    looked = np.unique(np.linspace(0, M - 1, min(M, _LOOKED_AT)).astype(np.int64))
    _, rows = near.query(positions_px[looked], k=min(9, M))
    steps = (positions_px[rows[:, 1:]] - positions_px[looked][:, None, :]).reshape(-1, 2)
    steps = steps[np.hypot(*steps.T) > 0]
    if not len(steps):
        return None
    steps = np.where(((steps[:, :1] < 0) | ((steps[:, :1] == 0) & (steps[:, 1:] < 0))), -steps, steps)
    basis = _first_basis(steps)
    if basis is None:
        return None
    origin = positions_px[looked[len(looked) // 2]]
    for vectors in (steps, positions_px - origin):  # near ones first: far ones may be a step off by a small error
        whole = np.round(vectors @ np.linalg.inv(basis))
        if np.linalg.matrix_rank(whole) < 2:
            return None
        basis = np.linalg.lstsq(whole, vectors, rcond=None)[0]
        if abs(np.linalg.det(basis)) < 1e-9:
            return None
    rest = (positions_px - origin) - np.round((positions_px - origin) @ np.linalg.inv(basis)) @ basis
    rest -= np.median(rest, axis=0)
    step = float(np.hypot(*basis.T).min())
    on_it = np.hypot(*rest.T) < _TOLERANCE * step
    return basis if float(on_it.mean()) >= _LEAST_ON_IT else None


def _first_basis(steps: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Two short steps that are taken often and are not along one line."""
    lengths = np.hypot(*steps.T)
    order = steps[np.argsort(lengths, kind="stable")]
    first = order[int(0.05 * len(order))]
    a = np.median(order[np.hypot(*(order - first).T) < 0.2 * np.hypot(*first)], axis=0)
    sines = np.abs(a[0] * order[:, 1] - a[1] * order[:, 0]) / np.maximum(np.hypot(*order.T) * np.hypot(*a), 1e-12)
    across = order[sines > 0.5]
    if not len(across):
        return None
    second = across[int(0.05 * len(across))]
    b = np.median(across[np.hypot(*(across - second).T) < 0.2 * np.hypot(*second)], axis=0)
    return np.array([a, b]) if np.hypot(*a) <= np.hypot(*b) else np.array([b, a])
