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

from ..config_checks import check_choice, check_range, check_types
from ..data.container import integer_corners
from ..data.propagation import FAR_FIELD, Propagation
from ..data.raw import SIDES, SIDES_IN_WORDS, Geometry, ObjectGuess, RawData, Source
from ..data.shown import card, settings_line
from ..errors import ConfigError, DataError
from ..physics.aberrations import ABERRATIONS, aberrate
from ..physics.forward import expected_counts
from ..physics.likelihood import sample_counts
from ..physics.patches import extract
from ..physics.probe import add_modes, aperture_probe, mode_powers
from ..physics.propagation import check_sampling
from ..stopping import safe_point
from .objects import OBJECTS, draw_object, transmission

__all__ = ["POSITIONS", "SimulatedScan", "SimulationConfig", "demo_config", "simulate_scan", "texture_config"]

POSITIONS = ("jittered_raster", "fermat")
"""Names of the scan patterns that can be simulated."""

_MARGIN_PX = 2
_CHUNK_BYTES = 48 * 2**20
_DEFAULT_FRAMES = 441
_DEFAULT_OVERLAP = 0.7
_DEFAULT_JITTER = 0.2


@dataclass(frozen=True, kw_only=True)
class SimulationConfig:
    """What to simulate. Constructing one checks every field, so an instance is always usable.

    Attributes:
        object: ``lines``, ``texture``, ``dead_leaves`` or ``siemens_star``.
        images: for ``texture``, two scikit-image names, for absorption and for phase; drawn by the seed when empty.
        amplitude_range: least and greatest amplitude of the object.
        phase_range_rad: least and greatest phase of the object, radians.
        N: side of a frame, pixels.
        n_frames: M, number of frames; None means 441, or what `grid_shape` holds.
        grid_shape: rows and columns of the raster; None makes the squarest raster that holds the frames.
        positions: ``jittered_raster`` or ``fermat`` (a spiral of even density).
        step_px: mean distance of neighbouring positions, object pixels; None takes it from `overlap`.
        overlap: 1 − step / probe diameter; None takes it from `step_px`, or 0.7 when that is None too.
        jitter_px: largest displacement from the pattern along each axis, pixels; None means a fifth of a step for the
            raster and 0 for the spiral.
        photons: mean expected counts in a frame, background not included.
        aperture_radius: radius of the bright cone on the detector as a fraction of N.
        central_stop: radius of the central stop as a fraction of the cone's.
        probe_diameter: diameter of the cone at the sample as a fraction of N; sets the defocus when `defocus_px2` is
            None.
        defocus_px2: wavelength × distance from the focus in square object pixels; None takes `probe_diameter`.
        aberration_rms_rad: total of the randomly drawn low-order aberrations, radians root mean square.
        fresnel_number: (object pixel)² / (wavelength × distance), for a near-field scan; None simulates the far field.
        wavelength_px: wavelength in object pixels, for an exact angular spectrum instead of a paraxial one; near field
            only.
        n_modes: P, incoherent probe modes.
        mode_fraction: power of each mode after the first as a fraction of the total.
        background: expected background counts in each pixel of a frame.
        bad_pixel_fraction: fraction of pixels that are bad: half of them dead, half hot, all of them masked.
        noise: draw counts from Poisson's law; off gives the expected counts themselves.
        pixel_size_m: side of an object pixel, metres; None leaves the scan without a length scale.
        seed: the one seed of everything drawn.
    """

    object: str = "lines"
    images: tuple[str, ...] = ()
    amplitude_range: tuple[float, float] = (0.6, 1.0)
    phase_range_rad: tuple[float, float] = (-0.8, 0.8)
    N: int = 64
    n_frames: int | None = None
    grid_shape: tuple[int, int] | None = None
    positions: str = "jittered_raster"
    step_px: float | None = None
    overlap: float | None = None
    jitter_px: float | None = None
    photons: float = 1e6
    aperture_radius: float = 0.18
    central_stop: float = 0.35
    probe_diameter: float = 0.55
    defocus_px2: float | None = None
    aberration_rms_rad: float = 0.3
    fresnel_number: float | None = None
    wavelength_px: float | None = None
    n_modes: int = 1
    mode_fraction: float = 0.05
    background: float = 0.0
    bad_pixel_fraction: float = 0.0
    noise: bool = True
    pixel_size_m: float | None = None
    seed: int = 0

    def __repr__(self) -> str:
        """One line: what differs from the defaults."""
        return settings_line(self)

    def _repr_html_(self) -> str:
        """A table for a notebook."""
        return card(self)

    def __post_init__(self) -> None:
        check_types(self)
        owner = "SimulationConfig"
        check_choice(owner, "object", self.object, OBJECTS)
        check_choice(owner, "positions", self.positions, POSITIONS)
        for name, low, high in _RANGES:
            check_range(owner, name, getattr(self, name), low, high)
        if self.N not in SIDES:
            raise ConfigError(f"{owner}.N = {self.N}; it must be {SIDES_IN_WORDS}.")
        for name in ("amplitude_range", "phase_range_rad"):
            values = getattr(self, name)
            if len(values) != 2 or values[0] > values[1]:
                raise ConfigError(f"{owner}.{name} = {values}; it must be two numbers, the lesser first.")
        if self.amplitude_range[0] < 0 or self.amplitude_range[1] == 0:
            raise ConfigError(f"{owner}.amplitude_range = {self.amplitude_range}; amplitudes are ≥ 0, and not all 0.")
        self._check_alternatives()

    def _check_alternatives(self) -> None:
        owner = "SimulationConfig"
        if self.step_px is not None and self.overlap is not None:
            raise ConfigError(
                f"{owner}: step_px = {self.step_px} and overlap = {self.overlap} both set the distance of positions; "
                "give one of them."
            )
        if self.grid_shape is not None:
            shape, n = self.grid_shape, self.n_frames
            if len(shape) != 2 or min(shape) < 1 or math.prod(shape) > _MOST_FRAMES:
                raise ConfigError(
                    f"{owner}.grid_shape = {shape}; it must be two numbers ≥ 1, rows and columns, of {_MOST_FRAMES} "
                    "frames at most."
                )
            if n is not None and n != math.prod(shape):
                raise ConfigError(f"{owner}: grid_shape = {shape} holds {math.prod(shape)} frames, n_frames = {n}.")
            if self.positions == "fermat":
                raise ConfigError(f"{owner}.grid_shape = {shape}: a Fermat spiral has no rows; give n_frames instead.")
        if self.images and (self.object != "texture" or len(self.images) != 2):
            raise ConfigError(
                f"{owner}.images = {self.images} for object = {self.object!r}; "
                "only texture takes images, and it takes two: for absorption and for phase."
            )
        if self.aperture_radius * self.N < 2:
            raise ConfigError(
                f"{owner}.aperture_radius = {self.aperture_radius} is {self.aperture_radius * self.N:.2g} detector "
                "pixels; it must be at least 2. Raise it, or N."
            )
        try:
            check_sampling(self.propagation, self.N, owner)
        except DataError as error:
            raise ConfigError(str(error)) from error

    @property
    def propagation(self) -> Propagation:
        """How waves get to the detector.

        Raises:
            DataError: a wavelength without a Fresnel number.
        """
        if self.fresnel_number is None and self.wavelength_px is None:
            return FAR_FIELD
        return Propagation("near_field", self.fresnel_number, self.wavelength_px)

    @property
    def frame_count(self) -> int:
        """M, the number of frames that the scan will have."""
        return math.prod(self.grid_shape) if self.grid_shape else self.n_frames or _DEFAULT_FRAMES


_MOST_FRAMES = 10**7
_RANGES: tuple[tuple[str, float, float], ...] = (
    ("n_frames", 2, _MOST_FRAMES), ("step_px", 1e-3, math.inf), ("overlap", 0, 0.99), ("jitter_px", 0, math.inf),
    ("photons", 1e-3, 1e12), ("aperture_radius", 0, 0.5), ("central_stop", 0, 0.95), ("probe_diameter", 0.02, 0.9),
    ("aberration_rms_rad", 0, 10), ("fresnel_number", 1e-6, 1e6), ("wavelength_px", 1e-12, 1.4), ("n_modes", 1, 12),
    ("mode_fraction", 1e-6, 0.08), ("background", 0, 1e9), ("bad_pixel_fraction", 0, 0.9), ("pixel_size_m", 1e-15, 1),
    ("seed", 0, math.inf),
)  # fmt: skip


def demo_config(seed: int = 0) -> SimulationConfig:
    """The scan of ``ptycho demo``: random lines, 441 frames of 64², jittered 10 px raster, 1e6 photons a frame."""
    return SimulationConfig(object="lines", grid_shape=(21, 21), step_px=10.0, photons=1e6, seed=seed)


def texture_config(seed: int = 0) -> SimulationConfig:
    """The hard scan: two strong natural textures, 1 764 frames of 64², 5 px raster, 1e6 photons a frame."""
    return SimulationConfig(
        object="texture", images=("gravel", "camera"), grid_shape=(42, 42), step_px=5.0, photons=1e6, seed=seed
    )


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
