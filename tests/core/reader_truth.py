"""A scan with a truth for the tests of readers (complex, asymmetric, off the grid, two modes), and whether it fits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptycho_core.data.raw import RawData
from ptycho_core.physics.forward import expected_counts
from ptycho_core.physics.propagation import wavelength_m

N = 32
ENERGY_EV = 6200.0
DISTANCE_M = 1.9
DETECTOR_PIXEL_M = 75e-6
WAVELENGTH_M = wavelength_m(ENERGY_EV)
PIXEL_M = WAVELENGTH_M * DISTANCE_M / (N * DETECTOR_PIXEL_M)
RASTER = (4, 5)


@dataclass(frozen=True)
class Truth:
    """Object (H, W), probe (2, N, N), positions (M, 2) (y, x) pixels, and counts (M, N, N) float32 without noise."""

    object: NDArray[np.complex128]
    probe: NDArray[np.complex128]
    positions_px: NDArray[np.float64]
    counts: NDArray[np.float32]

    @property
    def positions_m(self) -> NDArray[np.float64]:
        """Metres (y, x)."""
        return self.positions_px * PIXEL_M


def a_truth(*, on_raster: bool = False) -> Truth:
    """Twenty frames of 32 × 32, 4 rows of 5, jittered unless they must lie on a raster; steps 5.3 and 4.1 pixels."""
    rng = np.random.default_rng(7)
    r = np.arange(N) - 14.2
    hill = np.exp(-(r[:, None] ** 2 + 1.7 * (r[None] + 1.5) ** 2) / 30) * np.exp(0.03j * r[:, None] * r[None])
    probe = np.stack([hill, 0.3 * hill * r[:, None] / 4 * np.exp(0.1j * r[None])])
    smooth = np.fft.ifft2(np.fft.fft2(rng.normal(size=(2, 70, 60))) * np.exp(-20 * _square(70, 60)))
    obj = (0.8 + 0.2 * np.tanh(smooth[0].real)) * np.exp(1j * 3 * smooth[1].real)
    y, x = np.mgrid[: RASTER[0], : RASTER[1]].reshape(2, -1)
    positions = np.stack([20.6 + 5.3 * y, 19.2 + 4.1 * x], axis=1)
    if not on_raster:
        positions = positions + rng.uniform(-1, 1, positions.shape)
    rates = rates_of(obj, probe, positions)
    return Truth(obj, probe, positions, (rates * 1e5 / rates.sum(axis=(1, 2)).mean()).astype(np.float32))


def _square(H: int, W: int) -> NDArray[np.float64]:
    return np.fft.fftfreq(H)[:, None] ** 2 * 9 + np.fft.fftfreq(W)[None] ** 2 * 9


def rates_of(
    obj: NDArray[np.complex128], probe: NDArray[np.complex128], positions_px: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Expected counts (M, N, N) by the oracle."""
    corners = positions_px - (N - 1) / 2
    whole = np.floor(corners + 0.5).astype(int)
    patches = np.stack([obj[y : y + N, x : x + N] for y, x in whole])
    return np.asarray(expected_counts(patches, probe, corners - whole))


def misfit(raw: RawData, truth: Truth, good: NDArray[np.bool_] | None = None) -> float:
    """Σ|√k − √λ| / Σ√k of what was read against the truth at the positions that were read, in the good pixels."""
    rates = rates_of(truth.object, truth.probe, raw.positions_px)
    counts = raw.read_counts(np.arange(raw.n_frames)).astype(np.float64)
    if good is None:
        good = np.ones((N, N), bool)
    counts, rates = counts[:, good], rates[:, good]
    rates = rates * counts.sum() / rates.sum()
    return float(np.abs(np.sqrt(counts) - np.sqrt(rates)).sum() / np.sqrt(counts).sum())
