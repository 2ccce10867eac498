"""What to simulate: the settings of a simulated scan, checked where they are made."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..config_checks import check_choice, check_range, check_types
from ..data.propagation import FAR_FIELD, Propagation
from ..data.raw import SIDES, SIDES_IN_WORDS
from ..data.shown import card, settings_line
from ..errors import ConfigError, DataError
from ..physics.propagation import check_sampling
from .objects import OBJECTS

__all__ = ["POSITIONS", "SimulationConfig", "demo_config", "texture_config"]

POSITIONS = ("jittered_raster", "fermat")
"""Names of the scan patterns that can be simulated."""

_DEFAULT_FRAMES = 441


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
