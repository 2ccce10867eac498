"""A scan for the tests of groups."""

from __future__ import annotations

import numpy as np
from physics_problem import smooth_probe

from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.data.raw import RawData

N = 16


def make_scan(M: int = 23, seed: int = 0, **roles) -> PtychoDataContainer:
    """A scan on which frame numbers say nothing about place; the frame's number is in its counts."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(4.0, size=(M, N, N)).astype(np.float32) + 1
    counts[:, 0, 0] = np.arange(M) + 1
    positions = rng.uniform([-20.3, 5], [40, 30], size=(M, 2))
    return PtychoDataContainer.of(RawData.from_arrays(counts, positions, smooth_probe(N)), **roles)
