"""From a recording to a scan: units, window, mask and orientation settled in one place, for every dialect alike.

The order is fixed, since each step says what the next one sees: frames chosen, positions found, instrument stated, bad
pixels marked, a square window cut about the beam and binned, positions brought to the object's pixels, and turned onto
the detector's axes. In the far field the window decides the object's pixel: a window of n detector pixels p at distance
z has λz/(n p), whatever it is binned by, and a probe is cut and binned with it (FM-36). In a near field the object's
pixel is the (demagnified) detector pixel times the binning.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.frames import FrameSource, WindowedFrames
from ...data.orientation import matrix_of, parse_orientation, rotated
from ...data.propagation import FAR_FIELD, Propagation
from ...data.raw import Geometry, ObjectGuess, RawData
from ...data.recording import Recording
from ...errors import ConfigError, DataError
from ...limits import within
from ...physics.probe import windowed_probe
from ...physics.propagation import wavelength_m
from ...reader_protocol import ReadOptions
from ..far_field import (
    FEW_PX,
    MOST_PX,
    check_propagation,
    instrument,
    is_near_field,
    magnified,
    measure_shadow_motion,
)
from ..guarded import settling
from .beside_scan import with_positions_beside
from .frames import chosen_frames
from .levels import background_of, gain_of, with_offset
from .masking import good_pixels_of
from .placing import Placed, placed_positions, with_raster
from .plausible import check_plausible
from .sampling import spread_frames
from .window import Window, check_large, first_of, window_of

__all__ = ["scan_of"]

_LEAST_SPAN_PX = 1e-2  # positions in metres that span less are in a unit that is wrong by orders of magnitude


def scan_of(recording: Recording, options: ReadOptions) -> RawData:
    """Settle what a caller says of a recording, and bind it into a scan; frames stay where they are.

    Args:
        recording: what a reader found.
        options: what the caller says beside it.

    Raises:
        DataError: no usable scan, or figures that cannot be right; the message names the option that mends it.
        ConfigError: an option that contradicts another, or has a value that it cannot have.
    """
    name = recording.source.path or "scan"
    with within(options.limits), settling(name):
        return _settled(recording, options, name)


def _settled(recording: Recording, options: ReadOptions, name: str) -> RawData:
    notes: list[str] = []
    warnings: list[str] = []
    check_large(recording.frames.shape, options, name)
    recording = with_positions_beside(recording, options, name, notes, warnings)
    recording = with_raster(recording, options, name, notes)
    geometry = _geometry(recording, options, notes)
    recording = with_offset(recording, options.offset, notes)
    numbers, recording = chosen_frames(recording, options.frames, name, notes)
    good = good_pixels_of(recording, options, name, notes, warnings)
    window = window_of(recording, good, options, name, notes)
    placed = placed_positions(recording, options, name, notes)
    check_plausible(placed, geometry, window.side, recording, name, given=options, warnings=warnings)
    placed = _turned(placed, options, notes)
    geometry, propagation = _regime(recording, placed, geometry, good, window, options, name, notes)
    if not propagation.is_near:
        check_plausible(placed, geometry, window.side, recording, name, given=options, warnings=warnings, near=False)
    gain = gain_of(recording, good, options, name, notes, warnings)
    frames: FrameSource = recording.frames
    mask = good
    shape = (recording.frames.shape[1], recording.frames.shape[2])
    if not window.is_all(shape) or gain != 1.0:
        frames = WindowedFrames(recording.frames, window.top, window.left, window.N, window.bin, good, gain)
        mask = frames.good_pixels()
        mask = None if mask.all() else mask
    pixel = _pixel_px(recording, geometry, window, propagation)
    return RawData.from_arrays(
        frames,
        _positions_px(placed, geometry, pixel, name),
        _probe(recording, window, propagation),
        probe_calibrated=recording.probe_calibrated,
        mask=mask,
        background=background_of(recording, good, options, window, gain, name, notes),
        object_guess=_object_guess(recording, window, options, notes),
        geometry=_on_the_window(geometry, pixel, window),
        propagation=_binned(propagation, window.bin),
        source=_source(recording, options, notes, warnings),
        frame_numbers=numbers,
        look_at=_looked_at(len(numbers), options.look_at),
    )


def _geometry(recording: Recording, options: ReadOptions, notes: list[str]) -> Geometry:
    """The instrument, what the caller says over what the file says.

    An object pixel that the file states does not outlive another energy, distance or detector pixel: with all three
    known it follows from them (FM-36).
    """
    given = {
        key: getattr(options, key)
        for key in ("energy_eV", "distance_m", "detector_pixel_size_m", "pixel_size_m", "radiation")
        if getattr(options, key) is not None
    }
    for key, value in given.items():
        if key != "radiation" and not 0 < value < math.inf:
            raise ConfigError(f"{key} = {value}; it must be a finite number > 0 (--{key}).")
        stated = getattr(recording.geometry, key)
        if stated is not None and stated != value and key != "radiation":
            notes.append(f"{key} = {value:.6g} as given, instead of {stated:.6g} as the file says.")
    geometry = replace(recording.geometry, **given)
    ties = ("energy_eV", "distance_m", "detector_pixel_size_m")
    propagation = recording.propagation or options.propagation
    if geometry.pixel_size_m is None or "pixel_size_m" in given or (propagation is not None and propagation.is_near):
        return geometry
    changed = [key for key in ties if key in given and getattr(recording.geometry, key) not in (None, given[key])]
    if changed and None not in [getattr(geometry, key) for key in ties]:
        notes.append(
            f"The object pixel of {geometry.pixel_size_m:.6g} m that the file states was left aside: it follows from "
            f"energy, distance and detector pixel, of which {' and '.join(changed)} was given."
        )
        return replace(geometry, pixel_size_m=None)
    return geometry


def _turned(placed: Placed, options: ReadOptions, notes: list[str]) -> Placed:
    """Positions on the axes of the detector: the turn of the scan first, then its orientation (FIND-1)."""
    if options.orientation == "auto":
        raise ConfigError(
            "orientation = 'auto': which one it is is found by trials, after reading. Read the scan without it, and "
            "take find_orientation(scan).orientation (ptycho orient, or --orientation auto where a command solves)."
        )
    positions, word = placed.positions, parse_orientation(options.orientation or "none")
    if options.rotate_deg:
        notes.append(f"Positions were turned by {options.rotate_deg:g} degrees from y towards x, as given.")
        positions = rotated(positions, options.rotate_deg)
    if word != "none":
        notes.append(f"Positions were brought onto the axes of the detector by {word}, as given.")
        positions = positions @ matrix_of(word).T
    return replace(placed, positions=positions)


@dataclass(frozen=True)
class _Pixel:
    """The object's pixel after the window was cut.

    Attributes:
        size_m: its side, metres, or None where it is not known.
        of_stored: (2,) object pixels (y, x) of the stored frames in it.
    """

    size_m: float | None
    of_stored: NDArray[np.float64]


def _pixel_px(recording: Recording, geometry: Geometry, window: Window, propagation: Propagation) -> _Pixel:
    """The object's pixel: λz/(n p) in the far field, the detector's times the binning in a near one (FM-36)."""
    stated, stored = geometry.pixel_size_m, np.array(recording.frames.shape[1:], dtype=np.float64)
    if propagation.is_near:
        size = None if stated is None else stated * window.bin
        return _Pixel(size, np.full(2, 1 / window.bin))
    ratio = window.side / stored  # a larger window has smaller pixels
    z, p, wavelength = geometry.distance_m, geometry.detector_pixel_size_m, geometry.wavelength_m
    if stated is not None:
        return _Pixel(stated / float(ratio[1]), ratio)
    size = None if z is None or p is None or wavelength is None else wavelength * z / (window.side * p)
    return _Pixel(size, ratio)


def _on_the_window(geometry: Geometry, pixel: _Pixel, window: Window) -> Geometry:
    """The instrument as the frames that come out have it: a binned pixel of the detector is a larger one."""
    p = geometry.detector_pixel_size_m
    return replace(geometry, pixel_size_m=pixel.size_m, detector_pixel_size_m=None if p is None else p * window.bin)


def _positions_px(placed: Placed, geometry: Geometry, pixel: _Pixel, name: str) -> NDArray[np.float64]:
    if placed.unit == "px":
        return np.asarray(placed.positions * pixel.of_stored)
    if pixel.size_m is None:
        known = {"energy_eV": geometry.energy_eV, "distance_m": geometry.distance_m}
        known["detector_pixel_size_m"] = geometry.detector_pixel_size_m
        missing = " ".join(f"--{key} …" for key, value in known.items() if value is None)
        raise DataError(
            f"{name}: positions are in metres, and the size of an object pixel is not known. Give {missing}, or "
            "--pixel_size_m …."
        )
    places = np.asarray(placed.positions / pixel.size_m)
    span = float(np.ptp(places, axis=0).max(initial=0.0))
    if 0 < span < _LEAST_SPAN_PX:
        raise DataError(
            f"{name}: all positions lie within {span:.3g} object pixels of {pixel.size_m:.4g} m. Correct their unit "
            "(--position_unit), or the object pixel (--pixel_size_m)."
        )
    return places


def _regime(
    recording: Recording,
    placed: Placed,
    geometry: Geometry,
    good: NDArray[np.bool_] | None,
    window: Window,
    options: ReadOptions,
    name: str,
    notes: list[str],
) -> tuple[Geometry, Propagation]:
    """How waves propagate: as stated, as given, or as the frames tell where the instrument is known.

    Raises:
        DataError: the frames contradict what is given, or are inverted.
    """
    given, stated = options.propagation, recording.propagation
    if stated is not None and given not in (None, stated):
        raise DataError(f"{name}: the file states a {stated}, but a {given} was given. Leave it out.")
    if stated is not None or not _tells_regime(recording, placed, geometry):
        return geometry, stated or given or FAR_FIELD
    energy, z, p, _ = instrument(geometry)
    stored, wavelength = recording.frames.shape[1], wavelength_m(energy, geometry.radiation)
    far = replace(geometry, pixel_size_m=wavelength * z / (stored * p))
    if given is not None and given.fresnel_number is not None:
        m = p**2 / (wavelength * z) / given.fresnel_number
        notes.append(f"Read as {given}, as given; so the frames are magnified {m:.4g} times.")
        geometry = replace(geometry, pixel_size_m=p / m)
    used = far if given is None or given.fresnel_number is None else geometry
    places = placed.positions / float(used.pixel_size_m or 1)
    most_px = MOST_PX if options.look_at is None else FEW_PX
    motion = measure_shadow_motion(recording.frames, places, good, most_px=most_px)
    if given is not None or motion is None or not is_near_field(motion, stored):
        check_propagation(motion, stored, used, given or FAR_FIELD, name)
        return geometry, given or FAR_FIELD
    m, propagation = magnified(motion, far, name)
    # the measured m of a parallel beam may come out a little below 1
    focus = f", so that the focus is {z / (m - 1) * 1e3:.3g} mm before the sample" if m > 1.1 else ""
    notes.append(
        f"Read as {propagation}: the frames are images of the sample, magnified {m:.4g} times, as was measured on how "
        f"they follow it. Distance is taken from sample to detector{focus}. "
        "Give fresnel_number where it is known better."
    )
    return replace(geometry, pixel_size_m=p / m), propagation


def _tells_regime(recording: Recording, placed: Placed, geometry: Geometry) -> bool:
    """Whether the frames can tell near from far field: the instrument is known, and each frame has its place.

    What is wrong otherwise is told by the checks of the scan.
    """
    M, height, width = recording.frames.shape
    energy, z, p, _ = instrument(geometry)
    known = placed.unit == "m" and bool(np.isfinite(energy * z * p)) and geometry.pixel_size_m is None
    square = height == width and height % 2 == 0
    return known and square and len(placed.positions) == M and bool(np.isfinite(placed.positions).all())


def _probe(recording: Recording, window: Window, propagation: Propagation) -> NDArray[Any] | None:
    """The probe, cut and binned as the frames are; one of another size is left for the checks of the scan."""
    probe = recording.probe
    stored = recording.frames.shape[1:]
    if probe is None or window.is_all((stored[0], stored[1])) or probe.shape[-2:] != stored:
        return probe
    if propagation.is_near:
        return windowed_probe(probe, window.top, window.left, window.side, window.bin, propagation)
    # zero frequency of a probe is at its own n/2, wherever on the detector that of the frames is
    first = first_of(stored[0] // 2, window.side, window.bin)
    return windowed_probe(probe, first, first, window.side, window.bin, propagation)


def _object_guess(recording: Recording, window: Window, options: ReadOptions, notes: list[str]) -> ObjectGuess | None:
    """The object that came with the scan, where it lies under the scan's positions, on its pixels and axes, still."""
    if recording.object_guess is None:
        return None
    height, width = recording.frames.shape[1:]
    turned = options.rotate_deg or options.orientation not in (None, "none")
    other_unit = options.position_unit not in (None, recording.position_unit)
    placed = options.positions is not None or options.scan_step_m is not None or other_unit
    if window.is_all((height, width)) and not turned and not placed:
        return recording.object_guess
    notes.append("The object given with the scan was left out: it lies on other pixels or axes.")
    return None


def _binned(propagation: Propagation, by: int) -> Propagation:
    """The propagation on the pixel of binned frames."""
    if not propagation.is_near or by == 1 or propagation.fresnel_number is None:
        return propagation
    wave = propagation.wavelength_px
    return Propagation("near_field", propagation.fresnel_number * by**2, None if wave is None else wave / by)


def _source(recording: Recording, options: ReadOptions, notes: list[str], warnings: list[str]) -> Any:
    source, given = recording.source, options.given()
    details = {**source.details, "read_with": given} if given else source.details
    return replace(
        source,
        assumptions=tuple(dict.fromkeys([*source.assumptions, *notes])),
        warnings=tuple(dict.fromkeys([*source.warnings, *warnings])),
        details=details,
    )


def _looked_at(M: int, most: int | None) -> NDArray[np.int64] | None:
    """Frames to look at, spread over the scan, or None for all."""
    if most is None or most >= M:
        return None
    return spread_frames(M, look_at=most)
