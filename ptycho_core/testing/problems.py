"""Inputs that are hard on purpose: complex, asymmetric, rectangular, off the pixel grid, two modes, at the very edges.

An engine's mistakes hide where the input is easy: a missing conjugate passes with a real probe, a transposed axis on a
square object, a half-pixel shift on whole positions. Nothing here is easy, and nothing needs a framework or pytest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..data.container import integer_corners
from ..data.propagation import FAR_FIELD, Propagation
from ..data.raw import RawData
from ..physics.forward import expected_counts
from ..physics.patches import extract

__all__ = ["Problem", "complex_noise", "make_object", "make_problem", "make_scan", "smooth_probe"]


def complex_noise(rng: np.random.Generator, *shape: int) -> NDArray[np.complex128]:
    """Complex normal numbers of a shape; real and imaginary part have unit variance each."""
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


def smooth_probe(N: int, n_modes: int = 2) -> NDArray[np.complex128]:
    """Off-centre, elliptic, curved and tilted modes; no symmetry that could hide a transposed or mirrored axis.

    Args:
        N: side, pixels.
        n_modes: P.

    Returns:
        (P, N, N) complex128, of which the p-th mode is 1 / (1 + p) as strong in amplitude as the first.
    """
    y, x = np.mgrid[:N, :N] - (N - 1) / 2
    modes = []
    for p in range(n_modes):
        envelope = np.exp(-((y - 1.5 + p) ** 2) / (0.05 * N**2) - (x + 0.8 * (p + 1)) ** 2 / (0.03 * N**2))
        modes.append(envelope * np.exp(1j * (0.02 * y**2 - 0.013 * x**2 + 0.3 * y - 0.17 * x * (p + 1))) / (1 + p))
    return np.asarray(3.0 * np.array(modes), dtype=np.complex128)


@dataclass(frozen=True)
class Problem:
    """A question to an engine's physics.

    Attributes:
        obj: (H, W) complex128, taller than wide.
        probe: (P, N, N) complex128.
        positions_px: (M, 2) float64 frame centres (y, x); the first and the last corner of the object are touched.
        corners: (M, 2) int64 integer corners (y, x) on the object.
        rest: (M, 2) float32 sub-pixel rest (y, x).
        counts: (M, N, N) float64 whole numbers; frame 2 has none.
        mask: (N, N) bool, True = good; about a seventh is bad.
        background: (N, N) float64 expected counts.
        scale: s.
        propagation: from the object to the detector.
    """

    obj: NDArray[np.complex128]
    probe: NDArray[np.complex128]
    positions_px: NDArray[np.float64]
    corners: NDArray[np.int64]
    rest: NDArray[np.float32]
    counts: NDArray[np.float64]
    mask: NDArray[np.bool_]
    background: NDArray[np.float64]
    scale: float
    propagation: Propagation = FAR_FIELD

    def scan(self, *, mask: bool = True, background: bool = True) -> RawData:
        """The problem as a scan, with its mask and background or without."""
        return RawData.from_arrays(
            self.counts.astype(np.float32),
            self.positions_px,
            self.probe.astype(np.complex64),
            mask=self.mask if mask else None,
            background=self.background if background else None,
            propagation=self.propagation,
        )


def make_problem(N: int = 16, seed: int = 3, *, n_modes: int = 2, propagation: Propagation = FAR_FIELD) -> Problem:
    """Frames on a canvas taller than wide, the outermost frames at its corners; frame 2 has no counts.

    Args:
        N: side of a frame, pixels.
        seed: of everything drawn.
        n_modes: P, probe modes.
        propagation: from the object to the detector.
    """
    rng = np.random.default_rng(seed)
    height, width = N + 13, N + 6
    centre = (N - 1) / 2
    positions = centre + np.array([[-0.4, 0.3], [13.2, 6.1], [5.37, 2.91], [0.2, 6.49], [12.6, -0.5], [7.45, 3.05]])
    corners, rest = integer_corners(positions, N)
    obj = (0.8 + 0.2 * rng.random((height, width))) * np.exp(1j * rng.normal(size=(height, width)))
    probe = smooth_probe(N, n_modes)
    background = 0.3 + rng.random((N, N))
    scale = 1.7
    truth = obj * np.exp(0.2j * rng.normal(size=obj.shape))
    rate = expected_counts(extract(truth, corners, N), probe, rest, scale, background, propagation)
    counts = rng.poisson(rate).astype(np.float64)
    counts[2] = 0.0
    mask = rng.random((N, N)) > 0.15
    return Problem(obj, probe, positions, corners, rest, counts, mask, background, scale, propagation)


def make_object(height: int, width: int, seed: int = 0) -> NDArray[np.complex128]:
    """Slabs of uneven width with a texture on top: strong enough to see it appear, different along y and x.

    Returns:
        (H, W) complex128, amplitude 0.55 to 0.95.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    phase = 0.9 * np.sin(0.35 * y + 0.1 * x) + 0.5 * ((x // 5) % 2) + 0.1 * rng.normal(size=(height, width))
    return np.asarray((0.75 + 0.2 * np.cos(0.25 * x - 0.4 * y)) * np.exp(1j * phase))


def make_scan(
    N: int = 32,
    rows: int = 4,
    columns: int = 5,
    *,
    n_modes: int = 1,
    seed: int = 0,
    photons: float = 1e5,
    background: bool = False,
    mask: NDArray[np.bool_] | None = None,
    bad_counts: float = 0.0,
    empty_frame: bool = False,
    propagation: Propagation = FAR_FIELD,
) -> RawData:
    """A scan small enough to be trained on in a second: a jittered raster, taller steps than wide ones.

    Object pixel (0, 0) is scan point (0, 0), and the whole of every patch is inside the object.

    Args:
        N: side of a frame, pixels.
        rows: frames along y.
        columns: frames along x.
        n_modes: P, probe modes.
        seed: of everything drawn.
        photons: mean expected counts in a frame.
        background: whether there is one, uneven, of a fifth of a count a pixel.
        mask: (N, N) bool, True = good, or None.
        bad_counts: what bad pixels hold in the file.
        empty_frame: whether the last frame but one has no counts.
        propagation: from the object to the detector.
    """
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(np.arange(rows) * 0.15 * N, np.arange(columns) * 0.11 * N, indexing="ij"), axis=-1)
    jitter = rng.uniform(-0.03 * N, 0.03 * N, (rows * columns, 2))
    positions = (N - 1) / 2 + 0.03 * N + 1 + grid.reshape(-1, 2) + jitter
    corners, rest = integer_corners(positions, N)
    height, width = corners.max(axis=0) + N + 1
    obj = make_object(height, width)
    probe = smooth_probe(N, n_modes).astype(np.complex64)
    level = 0.2 * np.linspace(0.5, 1.5, N * N).reshape(N, N) if background else None
    rate = expected_counts(extract(obj, corners, N), probe, rest, propagation=propagation)
    rate = rate * (photons / rate.sum(axis=(1, 2)).mean()) + (0.0 if level is None else level)
    counts = rng.poisson(rate).astype(np.float32)
    if mask is not None:
        counts[:, ~mask] = bad_counts
    if empty_frame:
        counts[-2] = 0.0
    return RawData.from_arrays(counts, positions, probe, mask=mask, background=level, propagation=propagation)
