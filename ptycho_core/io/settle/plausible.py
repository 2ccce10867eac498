"""Figures that cannot be right: an energy in keV, a distance in mm, positions in µm, frames that do not overlap.

Energy, distance, detector pixel and positions are tied to each other: the object's pixel is λz/(n p), a window of n of
them is what a frame describes, and neighbouring frames overlap in it. So a wrong unit shows: one figure lies outside of
what there is, or the steps do not fit into the window, or hardly move in it. The unit is the one whose power of ten
makes all figures agree; it is named with its option, and never applied unasked.

The check comes before the window is cut and before anything as large as the object is allocated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ...data.raw import Geometry
from ...data.recording import Recording
from ...errors import DataError
from ...physics.propagation import wavelength_m
from ...reader_protocol import ReadOptions
from ..units import LENGTHS
from .placing import Placed
from .sampling import spread_frames

__all__ = ["Figures", "check_plausible"]

PHOTON_ENERGY_EV = (30.0, 1e6)
VISIBLE_ENERGY_EV = (0.5, 30.0)
ELECTRON_ENERGY_EV = (1e3, 1e6)
DISTANCE_M = (1e-3, 100.0)
DETECTOR_PIXEL_M = (2e-7, 2e-3)
OBJECT_PIXEL_M = {"photon": (1e-11, 2e-5), "electron": (1e-13, 1e-7)}
VISIBLE_OBJECT_PIXEL_M = 1e-3
"""Ranges outside of which a figure is refused; visible light has longer waves and larger pixels."""

LEAST_STEP_PX = 0.3
"""Steps below so many object pixels, or below 1 where another unit fits, are refused unless the unit is given."""

_VISIBLE_STEPS = (5e-3, 1.0)  # parts of the window; an energy of 8.8 that was keV makes them a thousand times smaller
_USUAL_STEPS = (0.02, 0.7)  # parts of the window; what a unit that is proposed must give
_MOST_USUAL_EV = 4e5  # in what is proposed
_LEAST_FRAMES = 12  # of fewer neither overlap nor a step is told; the checks of the scan look at them
_ASKED = 4096  # frames whose neighbours are looked for
_ALONE = 0.9  # of the frames without a neighbour in their window: each would be an image of its own
_SMALL_STEP_PX = 1.0  # and of the window less than usual: worth a warning


@dataclass(frozen=True)
class Figures:
    """What is judged together.

    Attributes:
        energy_eV: of a photon or an electron, or None.
        distance_m: sample to detector, or None.
        detector_pixel_m: or None.
        object_pixel_m: as stated, of a window of `window_px`; None makes it of the three above.
        step: median distance of a frame to the nearest other, in `unit`; 0 where that is not known.
        unit: ``m`` or ``px``.
        window_px: side of the window, object pixels.
        radiation: ``photon`` or ``electron``.
        near: whether the scan is stated to be a near field, whose pixel another formula gives.
        trusted: whether an energy of visible light is what the caller says.
        raster: whether the step is what the caller says, with its unit.
    """

    energy_eV: float | None
    distance_m: float | None
    detector_pixel_m: float | None
    object_pixel_m: float | None
    step: float
    unit: str
    window_px: int
    radiation: str
    near: bool = False
    trusted: bool = False
    raster: bool = False

    @property
    def pixel_m(self) -> float | None:
        """Object pixel, stated or λz/(n p)."""
        known = (self.energy_eV, self.distance_m, self.detector_pixel_m)
        if self.object_pixel_m is not None:
            return self.object_pixel_m
        if self.near or None in known or not _in(self.energy_eV, (1e-3, 1e9)):
            return None
        energy, z, p = (float(value or 0) for value in known)
        return wavelength_m(energy, self.radiation) * z / (self.window_px * p)

    @property
    def step_share(self) -> float | None:
        """Step in windows, or None where that is not known."""
        if not self.step:
            return None
        if self.unit == "px":
            return self.step / self.window_px
        window_m = 0.0 if self.pixel_m is None else self.window_px * self.pixel_m
        return self.step / window_m if window_m > 0 else None  # a number may be too small to be one

    @property
    def step_px(self) -> float | None:
        """Step in object pixels, or None where that is not known."""
        return None if self.step_share is None else self.step_share * self.window_px

    @property
    def is_visible(self) -> bool:
        """Whether the energy is one of visible or ultraviolet light."""
        return self.radiation == "photon" and _in(self.energy_eV, VISIBLE_ENERGY_EV)


def _in(value: float | None, limits: tuple[float, float]) -> bool:
    return value is not None and limits[0] <= value <= limits[1]


def check_plausible(
    placed: Placed,
    geometry: Geometry,
    window_px: int,
    recording: Recording,
    name: str,
    *,
    given: ReadOptions,
    warnings: list[str],
    near: bool = True,
) -> None:
    """Refuse an instrument or positions that cannot be right, before anything is allocated for them.

    Args:
        placed: positions and their unit.
        geometry: the instrument, as file and caller state it.
        window_px: side of the window of a frame, detector pixels before binning.
        recording: what was read.
        name: the file, for messages.
        given: what the caller says; a unit of positions, and an energy of visible light, is believed when it is given.
        warnings: what looks odd and may be right is added here.
        near: whether frames may turn out to be magnified images, whose window is larger than that of a far field.

    Raises:
        DataError: a figure cannot be right; the message names it, and the option that mends it.
    """
    figures = _figures(placed, geometry, window_px, recording, given)
    wrong, culprit = _out_of_range(figures)
    enough = len(placed.positions) >= _LEAST_FRAMES
    if enough and not wrong:
        wrong = _no_overlap(figures, placed, near) or _hardly_moves(figures, given)
    if not wrong:
        small = _small_steps(figures, given) if enough else ""
        warnings += [small] if small and near else []
        return
    fixes = list(dict.fromkeys(_mended(figures, culprit)))
    advice = (
        "Correct it: --energy_eV, --distance_m, --detector_pixel_size_m, --pixel_size_m and "
        f"{'--scan_step' if figures.raster else '--position_unit'} say it."
    )
    if fixes:
        advice = f"All figures agree with {', or with '.join(fixes[:3])}."
        if not culprit and placed.unit == "m" and not any("--position_unit" in fix for fix in fixes[:3]):
            advice += " Or the unit of the positions is not what the file says (--position_unit)."
    raise DataError(f"{name}: {wrong} {advice}")


def _figures(placed: Placed, geometry: Geometry, window_px: int, recording: Recording, given: ReadOptions) -> Figures:
    stored = recording.frames.shape[2]
    stated, unit = geometry.pixel_size_m, placed.unit
    propagation = given.propagation or recording.propagation
    near = propagation is not None and propagation.is_near
    # the stated pixel is that of the frames as stored, and so are positions in pixels; in a larger window it is smaller
    share = 1.0 if near else window_px / stored
    step = _median_step(placed.positions)
    return Figures(
        energy_eV=geometry.energy_eV,
        distance_m=geometry.distance_m,
        detector_pixel_m=geometry.detector_pixel_size_m,
        object_pixel_m=None if stated is None else stated / share,
        step=step * share if unit == "px" else step,
        unit=unit,
        window_px=window_px,
        radiation=geometry.radiation,
        near=near,
        trusted=given.energy_eV is not None,
        raster=given.scan_step_m is not None,
    )


def _nearest(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of frames spread over the scan to the nearest other, 0 for a shared place; empty where none is told."""
    from scipy.spatial import cKDTree

    if positions.ndim != 2 or len(positions) < 2 or not np.isfinite(positions).all():
        return np.zeros(0)
    return np.asarray(cKDTree(positions).query(positions[spread_frames(len(positions), _ASKED)], k=2)[0][:, 1])


def _median_step(positions: NDArray[np.float64]) -> float:
    distances = _nearest(positions)
    apart = distances[distances > 0]
    return float(np.median(apart)) if len(apart) else 0.0


def _out_of_range(figures: Figures) -> tuple[str, str]:
    """What lies outside of what there is, and the option that says it; or empty texts."""
    energies = ELECTRON_ENERGY_EV if figures.radiation == "electron" else PHOTON_ENERGY_EV
    energy = figures.energy_eV
    if energy is not None and not _in(energy, energies) and not _may_be_visible(figures):
        beam = "electrons" if figures.radiation == "electron" else "photons"
        text = f"energy_eV = {energy:.6g}, but {beam} of a scan have {energies[0]:g} to {energies[1]:g} eV"
        light = f"; if it is light of that energy, give --energy_eV {energy:.6g}" if figures.is_visible else ""
        return f"{text}{light}.", "--energy_eV"
    for option, value, limits in (
        ("distance_m", figures.distance_m, DISTANCE_M),
        ("detector_pixel_size_m", figures.detector_pixel_m, DETECTOR_PIXEL_M),
    ):
        if value is not None and not _in(value, limits):
            return f"{option} = {value:.6g}, but it must be {limits[0]:g} to {limits[1]:g} metres.", f"--{option}"
    pixel = figures.pixel_m
    low, high = OBJECT_PIXEL_M[figures.radiation]
    high = VISIBLE_OBJECT_PIXEL_M if figures.is_visible or energy is None else high
    if pixel is None or low <= pixel <= high:
        return "", ""
    stated = figures.object_pixel_m is not None
    what = "pixel_size_m is" if stated else "λz/(N p) of energy, distance and detector pixel is"
    return f"{what} {pixel:.4g} m, but an object pixel is {low:g} to {high:g} m.", "--pixel_size_m" if stated else ""


def _may_be_visible(figures: Figures) -> bool:
    """Whether an energy of 0.5 to 30 eV is one: the caller says so, or the steps fit into the window that it makes."""
    if not figures.is_visible:
        return False
    share = figures.step_share
    return figures.trusted or (figures.unit == "m" and _in(share, _VISIBLE_STEPS))


def _no_overlap(figures: Figures, placed: Placed, near: bool) -> str:
    """That no frame overlaps another, or an empty text."""
    share = figures.step_share
    if share is None or share <= 1 or figures.near:
        return ""
    distances = _nearest(placed.positions)
    lonely = distances > float(np.median(distances[distances > 0])) / share
    if lonely.mean() < _ALONE:
        return ""
    if near and figures.unit == "m" and _fits_on_the_detector(figures):
        return ""  # the frames tell, and are asked before this is checked again
    frame = int(spread_frames(len(placed.positions), _ASKED)[int(distances.argmax())])
    window = f"{figures.window_px} object pixels"
    pixel = figures.pixel_m
    if figures.unit == "m" and pixel is not None:
        window = f"{figures.window_px * pixel:.4g} m, {window} of {pixel:.4g} m"
    return (
        f"{lonely.sum()} of {len(lonely)} frames overlap with no other (frame {frame} lies farthest from its "
        f"neighbour): the nearest is {figures.step:.4g} {_in_words(figures.unit)} away in the median, and a frame "
        f"describes {window}."
    )


def _fits_on_the_detector(figures: Figures) -> bool:
    """Whether steps are such as those of an image that is not made smaller."""
    p = figures.detector_pixel_m
    return p is not None and figures.step <= figures.window_px * p


def _in_words(unit: str) -> str:
    return "m" if unit == "m" else "object pixels"


def _hardly_moves(figures: Figures, given: ReadOptions) -> str:
    """That frames are taken at steps of a small part of a pixel, or an empty text."""
    step = figures.step_px
    least = LEAST_STEP_PX
    if figures.unit == "px" and any(words.startswith("--position_unit") for words in _mended(figures, "")):
        least = _SMALL_STEP_PX  # they are usual steps as a length
    if step is None or step >= least or figures.near or figures.raster or given.position_unit is not None:
        return ""
    pixel = "" if figures.pixel_m is None else f" of {figures.pixel_m:.4g} m"
    metres = " By their size they are metres: --position_unit m." if figures.unit == "px" and step < 1e-3 else ""
    return (
        f"positions step by {step:.3g} object pixels{pixel} in the median, so that neighbouring frames would be the "
        f"same; if that is right, say so (--position_unit {figures.unit}).{metres}"
    )


def _small_steps(figures: Figures, given: ReadOptions) -> str:
    """A warning of steps that are small, and would be usual in another unit; or an empty text."""
    share = figures.step_share
    if share is None or share >= _USUAL_STEPS[0] or figures.near or given.position_unit is not None:
        return ""
    step = figures.step_px or 0.0
    if step >= _SMALL_STEP_PX:
        return ""
    unit = "--scan_step 50nm" if figures.raster else "--position_unit um|nm|m|px"
    return (
        f"Positions step by {step:.2g} object pixels in the median, {share:.1%} of a frame's window. If they are in "
        f"another unit, say which ({unit})."
    )


def _mended(figures: Figures, culprit: str) -> Iterator[str]:
    """Options each of which alone makes all figures agree, the likeliest first; else two of them.

    Args:
        figures: what does not agree.
        culprit: the option of a figure that cannot be, which must be among them; empty where that is not known.
    """
    single = [(words, changed) for words, changed in _changes(figures) if words.startswith(culprit)]
    good = [words for words, changed in single if _agrees(changed)]
    if good:
        yield from good
        return
    for words, changed in single:
        for more, both in _changes(changed):
            if more.split()[0] != words.split()[0] and _agrees(both):
                yield f"{words} {more}"


def _agrees(figures: Figures) -> bool:
    share = figures.step_share
    if _out_of_range(figures)[0] or figures.is_visible or (figures.energy_eV or 0.0) > _MOST_USUAL_EV:
        return False
    return share is None or figures.near or _USUAL_STEPS[0] <= share <= _USUAL_STEPS[1]


def _changes(figures: Figures) -> Iterator[tuple[str, Figures]]:
    """Other units of one figure each, with the option that says so; what is trusted is left alone."""
    if figures.step and not figures.raster:
        for word in ("um", "nm", "mm", "m", "A", "pm"):
            if word != figures.unit and (figures.unit == "m" or figures.pixel_m is not None):
                metres = figures.step * LENGTHS[word]
                yield f"--position_unit {word}", replace(figures, unit="m", step=metres)
        if figures.unit == "m":
            yield "--position_unit px", replace(figures, unit="px")
    energy = figures.energy_eV
    if figures.radiation == "electron":
        yield "--radiation photon", replace(figures, radiation="photon")
    if energy is not None:
        for factor in (1e3, 1e-3):
            yield f"--energy_eV {energy * factor:.6g}", replace(figures, energy_eV=energy * factor)
    for option, field in (
        ("--distance_m", "distance_m"),
        ("--detector_pixel_size_m", "detector_pixel_m"),
    ):
        value = getattr(figures, field)
        if value is not None:
            for word in ("mm", "um", "cm") if field == "distance_m" else ("mm", "um"):
                changed = replace(figures, **{field: value * LENGTHS[word]})
                yield f"{option} {value:.6g}{word}", changed
    if figures.object_pixel_m is not None:
        for word in ("nm", "um", "mm", "A"):
            changed = replace(figures, object_pixel_m=figures.object_pixel_m * LENGTHS[word])
            yield f"--pixel_size_m {figures.object_pixel_m:.6g}{word}", changed
