"""Small scans to give verdicts on: honest ones at any dose, and what no image can be made of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ptycho_core.config import RefinementConfig, TrainingConfig
from ptycho_core.data.container import integer_corners
from ptycho_core.data.raw import RawData
from ptycho_core.physics.forward import expected_counts
from ptycho_core.physics.patches import extract
from ptycho_core.simulation.scan import SimulatedScan, SimulationConfig, simulate_scan

N = 32
QUICK = TrainingConfig(
    backend="numpy",
    method="solver",
    epochs=8,
    probe_trainable=True,
    test_fraction=0.1,
    seed=1,
    refinement=RefinementConfig(engine="none"),
)
"""An image in a fraction of a second."""


def simulated(photons: float, **more: Any) -> SimulatedScan:
    """A strong complex object, 13 × 11 frames of 32², sub-pixel steps."""
    given: dict[str, Any] = {"object": "dead_leaves", "grid_shape": (13, 11), "step_px": 3.3, "seed": 7, "N": N}
    return simulate_scan(SimulationConfig(photons=photons, **(given | more)))


def honest(photons: float, **more: Any) -> RawData:
    """The same, as it was measured."""
    return simulated(photons, **more).raw


def counts_of(raw: RawData) -> np.ndarray:
    """All counts (M, N, N) float64."""
    return raw.read_counts(np.arange(raw.n_frames)).astype(np.float64)


def remade(raw: RawData, counts: np.ndarray | None = None, positions: np.ndarray | None = None) -> RawData:
    """The scan with other counts, or at other places."""
    return RawData.from_arrays(
        (counts_of(raw) if counts is None else counts).astype(np.float32),
        raw.positions_px if positions is None else positions,
        raw.probe,
    )


def transposed(raw: RawData) -> RawData:
    """With the axes of its positions exchanged."""
    return remade(raw, positions=raw.positions_px[:, ::-1].copy())


def shuffled(raw: RawData) -> RawData:
    """With its frames at places of others."""
    return remade(raw, positions=np.random.default_rng(0).permutation(raw.positions_px))


def empty_beam(photons: float, fluctuation: float = 0.0) -> RawData:
    """Frames of the probe alone, whose intensity may fluctuate from frame to frame."""
    raw = honest(photons)
    assert raw.probe is not None
    _, rest = integer_corners(raw.positions_px, N)
    rate = expected_counts(np.ones((len(rest), N, N)), raw.probe, rest)
    rng = np.random.default_rng(5)
    rate *= np.exp(fluctuation * rng.normal(size=len(rate)))[:, None, None]
    return remade(raw, rng.poisson(rate))


def pure_noise(mean: float) -> RawData:
    """Even frames of so many counts a pixel."""
    raw = honest(1e4)
    return remade(raw, np.random.default_rng(2).poisson(mean, (raw.n_frames, N, N)))


def corner_only(photons: float) -> RawData:
    """An object of which only a corner has structure."""
    scan = simulated(photons)
    raw, obj = scan.raw, np.array(scan.truth.object)
    assert raw.probe is not None
    height, width = obj.shape
    obj[(np.arange(height) > 0.45 * height)[:, None] | (np.arange(width) > 0.45 * width)[None, :]] = 1
    corners, rest = integer_corners(raw.positions_px, N)
    patches = extract(obj, corners - np.round(scan.truth.origin_px).astype(np.int64), N)
    return remade(raw, np.random.default_rng(5).poisson(expected_counts(patches, raw.probe, rest)))


def merged(photons: float) -> RawData:
    """Two samples at the same places, one after the other, as one scan."""
    first, second = honest(photons), honest(photons, object="lines", seed=7)
    return RawData.from_arrays(
        np.concatenate([counts_of(first), counts_of(second)]).astype(np.float32),
        np.concatenate([first.positions_px, second.positions_px]),
        first.probe,
    )


def without_heldout(config: TrainingConfig = QUICK) -> TrainingConfig:
    """The same with every frame trained on."""
    return replace(config, test_fraction=0.0)
