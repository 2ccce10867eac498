"""4D-STEM in HDF5: frames (Ny, Nx, H, W) on a raster, as py4DSTEM and other writers of EMD files leave them.

===============================  ===================================================================================
in the file                      meaning
===============================  ===================================================================================
data, datacube/data, …           the one 4-D dataset of the file: scan rows, scan columns, detector rows, columns
dim0 … dim3 | dim1 … dim4        beside it (EMD): coordinates along each axis, with ``units`` and ``name``; the first
                                 two are steps of the scan, the last two of the detector, in reciprocal length or angle
…/calibration                    py4DSTEM: R_pixel_size, R_pixel_units, Q_pixel_size, Q_pixel_units, QR_rotation
===============================  ===================================================================================

A detector pixel of dq in reciprocal length (1/Å: spatial frequency, no 2π) makes an object pixel 1 / (W dq). How the
scan is turned against the detector is stated with a sign that programs do not agree on; it is told, and not used.
"""

from __future__ import annotations

from typing import Any

from ...data.raw import Geometry
from ...data.recording import Recording
from ...errors import DataError
from ...plugins.hookspecs import hookimpl
from ...reader_protocol import ReaderSpec, ReadOptions
from ..candidate import Candidate
from ..h5_values import array_at, number_at, open_h5, text_at, text_of, units_of, whole_frames
from ..units import length_unit
from .arrays import Hdf5Arrays, shape_in
from .bare import bare_recording
from .entries import chosen_entry

__all__ = ["ptycho_reader", "read", "recognises"]

_NAMES = ("data", "datacube", "array", "data4d", "4dstem", "dp", "frames")
_NOT_BARE = ("scan", "probe", "positions_px", "probe_position_x_m", "translation", "object")


@hookimpl
def ptycho_reader() -> ReaderSpec:
    """Describe the dialect."""
    return ReaderSpec(
        name="stem",
        title="4D-STEM: HDF5 (also py4DSTEM, EMD) with one 4-D array (Ny, Nx, H, W)",
        kind="hdf5",
        module=__name__,
        protocol_version=2,
        priority=12,
    )


def _stacks(file: Candidate) -> list[str]:
    """Datasets that may be frames on a raster."""
    shapes = {name: shape_in(file, name) for name in file.names}
    return [name for name, s in shapes.items() if len(s) == 4 and s[0] > 1 and s[1] > 1 and min(s[2:]) >= 8]


def recognises(file: Candidate) -> bool:
    """Whether a file is HDF5 with 4-D frames by a usual name, and none of the names that scans with positions have."""
    if file.kind != "hdf5" or any(name.rpartition("/")[2] in _NOT_BARE for name in file.names):
        return False
    return any(name.rpartition("/")[2].lower() in _NAMES for name in _stacks(file))


def read(file: Candidate, options: ReadOptions) -> Recording:
    """Read a raster of frames; they stay on disk.

    Args:
        file: an examined HDF5 file.
        options: `entry` chooses where there are several rasters; step, pixel and radiation where the file says none.

    Raises:
        DataError: several rasters and no choice, or one that cannot be placed; the message names the options.
    """
    stacks = _stacks(file)
    if not stacks:
        raise DataError(f"{file.path}: holds no 4-D dataset of frames (Ny, Nx, H, W). Leave out --dialect.")
    array = chosen_entry(stacks, options.entry, str(file.path))
    notes: list[str] = []
    whole = None
    with open_h5(file.path, options.follow) as h5:
        if h5.swmr_mode:
            whole = whole_frames(h5[array])
            notes.append(
                f"The file is still being written: of {h5[array].shape[0]} rows of its raster {whole} are read."
            )
        steps, geometry = _calibration(h5, array, shape_in(file, array)[-1], options, notes)
    return bare_recording(
        Hdf5Arrays(file.path, options.follow),
        array,
        options,
        "stem",
        notes,
        geometry=geometry,
        step_m=steps,
        detector=True,
        whole=whole,
    )


def _calibration(
    h5: Any, array: str, width: int, options: ReadOptions, notes: list[str]
) -> tuple[tuple[float, float] | None, Geometry]:
    """Steps (y, x) of the scan, metres, or None, and the instrument, as far as an EMD file says them."""
    group = array.rpartition("/")[0]
    radiation = "electron" if _is_emd(h5, group) else "photon"
    found = _dims(h5, group) or _bundle(h5, group)
    if found is None:
        return None, Geometry(radiation=radiation)
    (y, x, step_unit), (dq, dq_unit) = found
    steps, factor = None, length_unit(step_unit) if options.position_unit is None else 1.0
    if factor is not None and y > 0 and x > 0:
        steps = (y * factor, x * factor)
        notes.append(f"The file says that the scan steps by {y:g} × {x:g} {step_unit} (y, x).")
    geometry = Geometry(radiation=radiation, pixel_size_m=_object_pixel(dq, dq_unit, width, options, notes))
    _tell_rotation(h5, group, notes)
    return steps, geometry


def _is_emd(h5: Any, group: str) -> bool:
    parts = group.split("/") if group else []
    groups = [h5["/".join(parts[: k + 1])] for k in range(len(parts))]
    return any("emd_group_type" in item.attrs for item in (h5, *groups)) or "version_major" in h5.attrs


def _dims(h5: Any, group: str) -> tuple[tuple[float, float, str], tuple[float, str]] | None:
    """Steps of the four axes by the EMD's dim vectors: ((y, x, unit), (dq, unit)); None where they say nothing."""
    first = 0 if f"{group}/dim0" in h5 else 1
    steps: list[float] = []
    units: list[str] = []
    for axis in range(4):
        path = f"{group}/dim{first + axis}"
        values = array_at(h5, path)
        if values is None or values.ndim != 1 or len(values) < 2:
            return None
        steps.append(float(abs(values[1] - values[0])))
        units.append(_plain_unit(units_of(h5[path])))
    if units[0] != units[1] or length_unit(units[0]) is None:
        return None
    return (steps[0], steps[1], units[0]), (steps[3], units[3])


def _bundle(h5: Any, group: str) -> tuple[tuple[float, float, str], tuple[float, str]] | None:
    """The same by the calibration that py4DSTEM keeps."""
    where = _calibration_group(h5, group)
    if where is None:
        return None
    step = number_at(h5, f"{where}/R_pixel_size", "the step of the scan")
    dq = number_at(h5, f"{where}/Q_pixel_size", "a detector pixel in reciprocal length")
    step_unit, dq_unit = text_at(h5, f"{where}/R_pixel_units"), text_at(h5, f"{where}/Q_pixel_units")
    if step is None or step_unit is None:
        return None
    return (step, step, _plain_unit(step_unit)), (dq or 0.0, _plain_unit(dq_unit or ""))


def _calibration_group(h5: Any, group: str) -> str | None:
    """Path of the calibration, beside the data or at the root above it."""
    places = [f"{group}/metadatabundle/calibration", f"{group.partition('/')[0]}/metadatabundle/calibration"]
    return next((place for place in places if place in h5), None)


def _plain_unit(text: str) -> str:
    """A unit without the brackets and underscores of EMD: [n_m] is nm."""
    return text_of(text).strip("[]").replace("_", "")


def _object_pixel(dq: float, unit: str, width: int, options: ReadOptions, notes: list[str]) -> float | None:
    """Side of an object pixel by the detector's pixel in reciprocal length or angle, metres; None if unknown."""
    length = unit.removeprefix("1/").removesuffix("^-1").removesuffix("-1").removesuffix("⁻¹")
    factor = length_unit(length) if length != unit else None
    if dq > 0 and factor is not None:
        size = factor / (width * dq)
    elif dq > 0 and unit.lower() in ("mrad", "rad") and options.energy_eV is not None:
        wavelength = (
            Geometry(energy_eV=options.energy_eV, radiation=options.radiation or "electron").wavelength_m or 0.0
        )
        size = wavelength / (width * dq * (1e-3 if unit.lower() == "mrad" else 1.0))
    else:
        return None
    notes.append(f"A detector pixel is {dq:g} {unit}, so that an object pixel is {size:.4g} m.")
    return size


def _tell_rotation(h5: Any, group: str, notes: list[str]) -> None:
    where = _calibration_group(h5, group)
    turn = None if where is None else number_at(h5, f"{where}/QR_rotation", "the turn of the scan, radians")
    if turn is not None:
        notes.append(
            f"The file says that scan and detector are turned by {turn:.4g} rad ({turn * 57.29578:.4g} degrees); which "
            "way is not the same in all programs, so that it was not used. Give --rotate."
        )
