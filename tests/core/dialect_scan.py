"""A simulated scan to write in any dialect, and whether its truth explains what was read back."""

from __future__ import annotations

import numpy as np
from orient_scan import N, grainy, places, probe_of, scan_of

from ptycho_core.data.raw import RawData
from ptycho_core.physics.forward import expected_counts
from ptycho_core.physics.patches import extract
from ptycho_core.physics.propagation import wavelength_m

ENERGY, DISTANCE, DETECTOR = 8801.5, 1.37, 75e-6
PIXEL = wavelength_m(ENERGY) * DISTANCE / (N * DETECTOR)
"""Side of an object pixel of the simulated frames, metres."""


def truth() -> tuple[RawData, np.ndarray]:
    """The scan and its object."""
    obj = grainy()
    raw = scan_of(obj, probe_of(), places(9, 7))
    return raw, obj


def positions_m(raw: RawData) -> np.ndarray:
    """Places of the beam, metres, from a middle that lies off the grid."""
    return (raw.positions_px - (41.3, 36.8)) * PIXEL


def deviance(read: RawData, raw: RawData, obj: np.ndarray) -> float:
    """Squared misfit of the frames that were read to the rate of the truth there, in units of the noise: 1 if right.

    The origin of positions is free, so that the mean of both is made one.
    """
    positions = read.positions_px - read.positions_px.mean(axis=0) + raw.positions_px.mean(axis=0)
    corner = positions - (N - 1) / 2
    whole = np.floor(corner + 0.5).astype(np.int64)
    probe = probe_of() * np.sqrt(3e4 / np.sum(np.abs(probe_of()) ** 2))
    inside = np.clip(whole, 0, np.array(obj.shape) - N)
    rate = expected_counts(extract(obj, inside, N), probe[None], corner - whole)
    return float(np.sum((read.read_counts(np.arange(read.n_frames)) - rate) ** 2) / np.sum(rate))
