"""Scans that one thin object and one probe do not explain, simulated here with nothing of the engine."""

from __future__ import annotations

import numpy as np
from ptychi_scans import N, make_object, make_probe

from ptycho_core.data.container import integer_corners
from ptycho_core.data.raw import Geometry, RawData
from ptycho_core.physics.forward import fourier_shift
from ptycho_core.physics.patches import extract

ENERGY_EV = 8000.0
WAVELENGTH_M = 12398.419843320026 / ENERGY_EV * 1e-10
PIXEL_M = 2e-8
SPACING_M = 4e-5
GEOMETRY = Geometry(energy_eV=ENERGY_EV, pixel_size_m=PIXEL_M)


def positions_of(step: float = 2.4, rng_seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(rng_seed)
    y, x = np.meshgrid(np.arange(9.0, 36, step), np.arange(9.0, 28, step), indexing="ij")
    return np.stack([y.ravel(), x.ravel()], axis=1) + rng.uniform(-0.9, 0.9, (y.size, 2))


def two_slices() -> np.ndarray:
    """(2, H, W): a slab of stripes, and behind it blobs that the first has not."""
    first = make_object()
    y, x = np.mgrid[: first.shape[0], : first.shape[1]]
    blobs = sum(np.exp(-((y - a) ** 2 + (x - b) ** 2) / 12.0) for a, b in ((12, 12), (20, 26), (33, 15), (30, 30)))
    return np.stack([first, np.exp(0.9j * blobs) * (1 - 0.15 * blobs)])


def angular_spectrum(waves: np.ndarray, distance_m: float) -> np.ndarray:
    """Waves (…, N, N) after free space: e^{i 2π z √(1/λ² − f²)} on each plane wave, in double precision."""
    f = np.fft.fftfreq(waves.shape[-1], PIXEL_M)
    along = np.sqrt(1 / WAVELENGTH_M**2 - f[:, None] ** 2 - f**2)
    return np.fft.ifft2(np.fft.fft2(waves) * np.exp(2j * np.pi * distance_m * along))


def thick_rate(slices: np.ndarray, probes: np.ndarray, positions: np.ndarray, spacing_m: float) -> np.ndarray:
    """λ (M, N, N) of probes (M, P, N, N), one set a frame, through slices (L, H, W)."""
    corners, rest = integer_corners(positions, N)
    waves = fourier_shift(probes, rest[:, None])
    for number, part in enumerate(slices):
        waves = waves * extract(part, corners, N)[:, None]
        if number < len(slices) - 1:
            waves = angular_spectrum(waves, spacing_m)
    return np.sum(np.abs(np.fft.fftshift(np.fft.fft2(waves), axes=(-2, -1)) / N) ** 2, axis=1)


def thick_scan(*, n_modes: int = 1, total: float = 1e5, noise: bool = True) -> RawData:
    """Two slices 40 µm apart, lit by a calibrated probe."""
    positions, probe = positions_of(), make_probe(n_modes, total)
    probes = np.broadcast_to(probe, (len(positions), *probe.shape))
    rate = thick_rate(two_slices(), probes, positions, SPACING_M)
    counts = np.random.default_rng(2).poisson(rate) if noise else rate
    return RawData.from_arrays(counts.astype(np.float32), positions, probe, probe_calibrated=True, geometry=GEOMETRY)


def drifting_probes(n_frames: int, total: float = 1e5, n_modes: int = 1) -> np.ndarray:
    """(M, P, N, N): the first mode breathes and tilts slowly, as a beam does while a monochromator warms up."""
    probe = make_probe(n_modes, total).astype(complex)
    time = np.linspace(0, 1, n_frames)
    ramp = (np.arange(N) - (N - 1) / 2) / N
    other = probe[0] * (ramp[:, None] * 1.3 + 1j * ramp * 0.9)
    probes = np.broadcast_to(probe, (n_frames, *probe.shape)).copy()
    probes[:, 0] += (1.2 * np.sin(2 * np.pi * time + 0.4))[:, None, None] * other
    return probes


def drifting_scan(*, n_modes: int = 1, total: float = 1e5) -> RawData:
    """A thin object, lit by a probe that drifts; the probe that comes with the scan is the mean one."""
    positions = positions_of()
    probes = drifting_probes(len(positions), total, n_modes)
    rate = thick_rate(make_object()[None], probes, positions, 0.0)
    counts = np.random.default_rng(3).poisson(rate).astype(np.float32)
    return RawData.from_arrays(counts, positions, make_probe(n_modes, total), probe_calibrated=True)
