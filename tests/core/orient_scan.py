"""A scan to find the orientation of: rectangular, complex, asymmetric, off the pixel grid."""

from __future__ import annotations

import numpy as np

from ptycho_core.data.raw import RawData
from ptycho_core.physics.forward import expected_counts
from ptycho_core.physics.patches import extract
from ptycho_core.physics.probe import aperture_probe

N = 24
SHAPE = (84, 74)


def grainy() -> np.ndarray:
    """An object without any symmetry, strong in amplitude and phase."""
    rng = np.random.default_rng(11)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    blocks = np.kron(rng.uniform(size=(21, 19)), np.ones((4, 4)))[: SHAPE[0], : SHAPE[1]]
    return (0.6 + 0.4 * blocks) * np.exp(1j * (1.1 * blocks + 0.5 * np.sin(x / 5 + y / 9)))


def lines() -> np.ndarray:
    """An object that is the same along x."""
    rows = np.kron(np.random.default_rng(3).uniform(size=28), np.ones(3))[: SHAPE[0]]
    return np.repeat(((0.5 + 0.5 * rows) * np.exp(1.2j * rows))[:, None], SHAPE[1], axis=1)


def probe_of(defocus_px2: float = 30.0) -> np.ndarray:
    """A defocused probe, a little of it brighter on one side."""
    probe = aperture_probe(N, 6, defocus_px2=defocus_px2, total=1.0)[0]
    y, x = np.mgrid[:N, :N] - (N - 1) / 2
    return probe if defocus_px2 == 0 else probe * (1 + 0.04 * y - 0.02 * x)


def places(rows: int = 11, columns: int = 8, step: float = 4.6) -> np.ndarray:
    """A jittered raster, taller than wide."""
    y, x = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    jitter = np.random.default_rng(2).uniform(-0.9, 0.9, (y.size, 2))
    return np.stack([y.ravel(), x.ravel()], axis=1) * step + jitter + N / 2 + 1.3


def scan_of(obj: np.ndarray, probe: np.ndarray, positions: np.ndarray, photons: float = 3e4, **more) -> RawData:
    """The scan of an object, with Poisson noise."""
    corner = positions - (N - 1) / 2
    whole = np.floor(corner + 0.5).astype(np.int64)
    probe = probe * np.sqrt(photons / np.sum(np.abs(probe) ** 2))
    rate = expected_counts(extract(obj, whole, N), probe[None], corner - whole)
    counts = np.random.default_rng(7).poisson(rate).astype(np.float32)
    return RawData.from_arrays(counts, positions, probe, **more)


def plain_scan() -> RawData:
    """The scan that tells all eight orientations apart."""
    return scan_of(grainy(), probe_of(), places())
