"""Inputs that are hard on purpose: complex, asymmetric, rectangular, sub-pixel, two modes, at the very edges."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptycho_core.data.container import integer_corners
from ptycho_core.physics.forward import expected_counts
from ptycho_core.physics.patches import extract


def complex_noise(rng: np.random.Generator, *shape: int) -> NDArray[np.complex128]:
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


def smooth_probe(N: int, n_modes: int = 2) -> NDArray[np.complex128]:
    """Off-centre, elliptic, curved and tilted modes; no symmetry that could hide a transposed or mirrored axis."""
    y, x = np.mgrid[:N, :N] - (N - 1) / 2
    modes = []
    for p in range(n_modes):
        envelope = np.exp(-((y - 1.5 + p) ** 2) / (0.05 * N**2) - (x + 0.8 * (p + 1)) ** 2 / (0.03 * N**2))
        modes.append(envelope * np.exp(1j * (0.02 * y**2 - 0.013 * x**2 + 0.3 * y - 0.17 * x * (p + 1))) / (1 + p))
    return 3.0 * np.array(modes)


@dataclass(frozen=True)
class Problem:
    obj: NDArray[np.complex128]
    probe: NDArray[np.complex128]
    positions_px: NDArray[np.float64]
    corners: NDArray[np.int64]
    rest: NDArray[np.float32]
    counts: NDArray[np.float64]
    mask: NDArray[np.bool_]
    background: NDArray[np.float64]
    scale: float


def make_problem(N: int = 16, seed: int = 3) -> Problem:
    """Frames of side N on a canvas taller than wide, the outermost frames at its corners; frame 2 has no counts."""
    rng = np.random.default_rng(seed)
    height, width = N + 13, N + 6
    centre = (N - 1) / 2
    positions = centre + np.array([[-0.4, 0.3], [13.2, 6.1], [5.37, 2.91], [0.2, 6.49], [12.6, -0.5], [7.45, 3.05]])
    corners, rest = integer_corners(positions, N)
    obj = (0.8 + 0.2 * rng.random((height, width))) * np.exp(1j * rng.normal(size=(height, width)))
    probe = smooth_probe(N)
    background = 0.3 + rng.random((N, N))
    scale = 1.7
    truth = obj * np.exp(0.2j * rng.normal(size=obj.shape))
    rate = expected_counts(extract(truth, corners, N), probe, rest, scale, background)
    counts = rng.poisson(rate).astype(np.float64)
    counts[2] = 0.0
    mask = rng.random((N, N)) > 0.15
    return Problem(obj, probe, positions, corners, rest, counts, mask, background, scale)
