"""Simulated scans with a known truth: draw an object, a probe and positions, and let the oracle count photons.

Expected counts come from ``physics.forward.expected_counts`` and from nowhere else, so that the truth put through the
oracle at scale 1 gives back the rate that was sampled. Each thing drawn has its own random stream, all from one seed:
changing the dose leaves object, positions and bad pixels as they are.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.container import integer_corners
from ..data.raw import Geometry, ObjectGuess, RawData, Source
from ..physics.aberrations import ABERRATIONS, aberrate
from ..physics.forward import expected_counts
from ..physics.likelihood import sample_counts
from ..physics.patches import extract
from ..physics.probe import add_modes, aperture_probe, mode_powers
from ..stopping import safe_point
from .config import POSITIONS, SimulationConfig, demo_config, texture_config
from .objects import draw_object, transmission

__all__ = ["POSITIONS", "SimulatedScan", "SimulationConfig", "demo_config", "simulate_scan", "texture_config"]

_MARGIN_PX = 2
_CHUNK_BYTES = 48 * 2**20
_DEFAULT_OVERLAP = 0.7
_DEFAULT_JITTER = 0.2


@dataclass(frozen=True, kw_only=True)
class SimulatedScan:
    """A scan with its truth.

    Attributes:
        raw: the scan; it has the true probe, on the scale of photons but not declared calibrated, the truth as its
            `object_guess`, and what was drawn in ``source.details["simulation"]``.
        truth: the object, with the scan coordinates of its first pixel.
        config: what was asked for.
        rate_scale: s with which truth and probe give the expected counts; 1 by construction.
    """

    raw: RawData
    truth: ObjectGuess
    config: SimulationConfig
    rate_scale: float = 1.0

    @property
    def provenance(self) -> dict[str, Any]:
        """What was drawn, plain JSON data."""
        return dict(self.raw.source.details["simulation"])


def _draw_probe(config: SimulationConfig, rng: np.random.Generator) -> tuple[NDArray[np.complex64], dict[str, Any]]:
    """A probe of unit power, (P, N, N), and what was drawn."""
    N, radius = config.N, config.aperture_radius * config.N
    # geometric optics: a ray at the cone's edge, f = radius / N, lands λz f from the axis
    defocus = config.probe_diameter * N / 2 * N / radius if config.defocus_px2 is None else config.defocus_px2
    probe = aperture_probe(N, radius, inner_radius_px=config.central_stop * radius, defocus_px2=defocus)
    weights = rng.normal(size=len(ABERRATIONS))
    weights *= config.aberration_rms_rad / np.linalg.norm(weights)
    coefficients = {name: float(w) for name, w in zip(ABERRATIONS, weights, strict=True)}
    probe = aberrate(probe, radius, coefficients)
    if config.n_modes > 1:
        probe = add_modes(probe, config.n_modes, fraction=config.mode_fraction)
    probe = (probe / math.sqrt(np.sum(np.abs(probe) ** 2))).astype(np.complex64)
    facts = {
        "aperture_radius_px": radius,
        "inner_radius_px": config.central_stop * radius,
        "defocus_px2": defocus,
        "aberrations_rad": coefficients,
        "mode_powers": mode_powers(probe).tolist(),
        "diameter_px": _diameter(probe),
    }
    return probe, facts


def _diameter(probe: NDArray[np.complex64]) -> float:
    """Diameter of the circle about the centre of intensity that holds 90 % of the power, pixels."""
    intensity = np.sum(np.abs(probe.astype(np.complex128)) ** 2, axis=0)
    r = np.arange(len(intensity))
    y, x = (np.sum(intensity * axis) / intensity.sum() for axis in (r[:, None], r[None, :]))
    distance = np.hypot(r[:, None] - y, r[None, :] - x).ravel()
    order = np.argsort(distance)
    held = np.cumsum(intensity.ravel()[order]) / intensity.sum()
    return float(2 * distance[order][np.searchsorted(held, 0.9)])


def _pattern(config: SimulationConfig, step_px: float) -> NDArray[np.float64]:
    """Positions before jitter, (M, 2), anywhere on the plane."""
    M = config.frame_count
    if config.positions == "fermat":
        # each turn of the golden angle adds π c² of area, which is one step²
        n = np.arange(M) + 0.5
        radius, angle = step_px * np.sqrt(n / math.pi), n * math.pi * (3 - math.sqrt(5))
        return np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=1)
    rows = round(math.sqrt(M))
    columns = config.grid_shape[1] if config.grid_shape else math.ceil(M / rows)
    return step_px * np.stack(np.divmod(np.arange(M), columns), axis=1).astype(np.float64)


def _draw_positions(
    config: SimulationConfig, diameter_px: float, rng: np.random.Generator
) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """Frame centres (M, 2), such that every patch lies on a canvas that starts at (0, 0)."""
    overlap = _DEFAULT_OVERLAP if config.overlap is None else config.overlap
    step_px = (1 - overlap) * diameter_px if config.step_px is None else config.step_px
    jitter = config.jitter_px
    if jitter is None:
        jitter = _DEFAULT_JITTER * step_px if config.positions == "jittered_raster" else 0.0
    points = _pattern(config, step_px) + rng.uniform(-jitter, jitter, (config.frame_count, 2))
    # no scan sits on the pixel grid: a whole-pixel origin would make unjittered integer steps free of sub-pixel shifts
    points += rng.uniform(0, 1, 2) + _MARGIN_PX + (config.N - 1) / 2 - points.min(axis=0)
    facts = {
        "step_px": step_px,
        "overlap": 1 - step_px / diameter_px,
        "jitter_px": jitter,
        "extent_px": np.ptp(points, axis=0).tolist(),
    }
    return points, facts


def _expected(
    config: SimulationConfig,
    truth: NDArray[np.complex64],
    probe: NDArray[np.complex64],
    positions_px: NDArray[np.float64],
    frames: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Expected counts (n, N, N) of some frames without background, by the oracle."""
    corners, rest = integer_corners(positions_px[frames], config.N)
    return expected_counts(extract(truth, corners, config.N), probe, rest, propagation=config.propagation)


def _draw_bad_pixels(config: SimulationConfig, rng: np.random.Generator) -> NDArray[np.int64]:
    """Flat indices of the bad pixels, at least one when any were asked for."""
    n = math.ceil(config.bad_pixel_fraction * config.N**2)
    return np.sort(rng.permutation(config.N**2)[:n])


def _count(
    config: SimulationConfig,
    truth: NDArray[np.complex64],
    unit_probe: NDArray[np.complex64],
    positions_px: NDArray[np.float64],
    bad: NDArray[np.int64],
    rng: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.complex64], float]:
    """Counts (M, N, N), the probe on the scale of photons, and the mean expected counts of a frame with background."""
    M, N = config.frame_count, config.N
    step = max(1, _CHUNK_BYTES // (16 * N**2 * (config.n_modes + 2)))
    chunks = [np.arange(start, min(start + step, M)) for start in range(0, M, step)]
    mean = 0.0
    for chunk in chunks:
        safe_point()
        mean += _expected(config, truth, unit_probe, positions_px, chunk).sum()
    mean /= M
    probe = (unit_probe * math.sqrt(config.photons / mean)).astype(np.complex64)
    counts, total = np.empty((M, N, N), np.float32), 0.0
    for chunk in chunks:
        safe_point()
        rate = _expected(config, truth, probe, positions_px, chunk) + config.background
        total += rate.sum()
        counts[chunk] = sample_counts(rate, rng) if config.noise else rate
    dead, hot = bad[::2], bad[1::2]
    peak = counts.max()
    flat = counts.reshape(M, -1)
    flat[:, dead], flat[:, hot] = 0.0, 10 * peak
    return counts, probe, float(total / M)


def simulate_scan(config: SimulationConfig) -> SimulatedScan:
    """Simulate a scan: λ_j = Σ_p |F ψ_jp|² + b, k ~ Poisson(λ) (FM-5), with the truth beside it.

    Args:
        config: what to simulate.

    Returns:
        The scan and its truth; object pixel (0, 0) has scan coordinates (0, 0). The same config gives the same scan.

    Raises:
        ConfigError: an aperture with no opening, or an image that is not known.
        DataError: so few photons that no frame has a count.
    """
    names = ("probe", "positions", "object", "bad_pixels", "noise")
    streams = np.random.SeedSequence(config.seed).spawn(len(names))
    rngs = {name: np.random.default_rng(stream) for name, stream in zip(names, streams, strict=True)}
    unit_probe, probe_facts = _draw_probe(config, rngs["probe"])
    positions_px, position_facts = _draw_positions(config, probe_facts["diameter_px"], rngs["positions"])
    corners, _ = integer_corners(positions_px, config.N)
    height, width = (corners.max(axis=0) + config.N + _MARGIN_PX).tolist()
    absorption, phase, object_facts = draw_object(config.object, (height, width), rngs["object"], config.images)
    obj = transmission(absorption, phase, config.amplitude_range, config.phase_range_rad)
    bad = _draw_bad_pixels(config, rngs["bad_pixels"])
    counts, probe, mean_expected = _count(config, obj, unit_probe, positions_px, bad, rngs["noise"])
    truth = ObjectGuess(object=obj, origin_px=np.zeros(2))
    truth.object.flags.writeable = truth.origin_px.flags.writeable = False
    mask = None if len(bad) == 0 else ~np.isin(np.arange(config.N**2), bad).reshape(config.N, config.N)
    drawn: dict[str, Any] = {
        "config": _plain(config),
        "seed": config.seed,
        "numpy": np.__version__,
        "frames": config.frame_count,
        "object": {"name": config.object, "shape": [height, width], **object_facts},
        "probe": {**probe_facts, "power": float(np.sum(np.abs(probe.astype(np.complex128)) ** 2))},
        "positions": {"name": config.positions, **position_facts},
        "bad_pixels": {"dead": bad[::2].tolist(), "hot": bad[1::2].tolist()},
    }
    raw = RawData.from_arrays(
        counts,
        positions_px,
        probe,
        mask=mask,
        background=np.full((config.N, config.N), config.background) if config.background > 0 else None,
        object_guess=truth,
        geometry=Geometry(pixel_size_m=config.pixel_size_m),
        propagation=config.propagation,
    )
    drawn["dose"] = {"mean_expected_counts": mean_expected}
    drawn["dose"] |= _measured_dose(raw, mean_expected, position_facts["step_px"])
    source = Source(dialect="simulation", details={"simulation": drawn})
    return SimulatedScan(raw=dataclasses.replace(raw, source=source), truth=truth, config=config)


def _measured_dose(raw: RawData, mean_expected: float, step_px: float) -> dict[str, float]:
    """The dose as the good pixels recorded it; bad pixels hide counts, so it can lie below what was asked for."""
    totals = raw.frame_totals
    return {
        "mean_counts": float(totals.mean()),
        "least_counts": float(totals.min()),
        "greatest_counts": float(totals.max()),
        "counts_per_object_pixel": float(totals.mean() / step_px**2),
        "mean_counts_over_expected": float(totals.mean() / mean_expected),
    }


def _plain(config: SimulationConfig) -> dict[str, Any]:
    """A config as plain JSON data."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(config).items()}
