"""A scan by the names of PtychoShelves, in an HDF5 file, a MAT file of version 7.3, or one of version 5.

=====================================  ===========================================================================
name                                   content, in MATLAB's order of axes
=====================================  ===========================================================================
dp | detectorData | measurement        (H, W, M) intensities, or (H, W, My, Mx); zero frequency at (H // 2, W // 2)
ppX, ppY                               (M,) places of the beam on the object, metres, or in the unit of ``units``
positions_real | probe_positions_0     (M, 2), the first as (y, x), the second as (x, y); asked for without ppX
lambda, z, dx | dx_spec, ds, energy    numbers, see ``matlab_values``
probe                                  (N, N), (N, N, P) or (N, N, P, variations), complex
fmask                                  (H, W), or (H, W, M) of one a frame; 1 = good
=====================================  ===========================================================================

All may be fields of a structure ``p``. MATLAB's first axis runs fastest, so that a MAT file of version 7.3 shows it
last to HDF5: frames are (M, W, H) there and are turned. Other programs write the same names with frames (M, H, W).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.raw import Source
from ...data.recording import Recording
from ...errors import DataError
from ...reader_protocol import ReadOptions
from ...text import counted
from ..h5_values import as_complex
from ..measurement import doubt, resolve_measurement
from ..probes import NO_PROBE, normalise_probe
from ..units import LENGTHS, length_unit
from .array_header import read_whole
from .arrays import ArrayFile, Hdf5Arrays
from .growing import counted_frames
from .matlab_values import instrument_of_numbers, planes_first
from .stored_frames import Layout, StoredFrames, stored_frames

__all__ = ["FRAMES", "MATLAB", "MATLAB_IN_HDF5", "PYTHON", "frames_name", "read_by_names"]

FRAMES = ("dp", "detectorData", "measurement", "measurement/data")
"""Names of the frames, in the order they are asked for."""

PYTHON, MATLAB, MATLAB_IN_HDF5 = "python", "matlab", "matlab in HDF5"
"""Orders of axes: the first slowest with frames first, MATLAB's own, and MATLAB's as HDF5 shows it."""

_LISTS = ("ppY", "ppX")
_TABLES = {"positions_real": (0, 1), "probe_positions_0": (1, 0)}
_LENGTHS = ("lambda", "z", "dx", "dx_spec", "ds")
_PROBES = ("probe", "probes", "probe_initial")
_SAMPLE = 4


def frames_name(names: Any) -> str | None:
    """Name of the frames among names, or None."""
    return next((found for name in FRAMES for found in (name, f"p/{name}") if found in names), None)


@dataclass(frozen=True)
class _Names:
    """Values by their names, at the top of the file or in the structure ``p``, in MATLAB's order of axes."""

    arrays: ArrayFile
    order: str
    headers: dict[str, Any]

    def path_of(self, name: str) -> str | None:
        return next((path for path in (name, f"p/{name}") if path in self.headers), None)

    def values(self, name: str, kinds: str = "biuf") -> NDArray[Any] | None:
        path = self.path_of(name)
        if path is None:
            return None
        with self.arrays.opened(path) as array:
            values = as_complex(read_whole(array, self.arrays.path, path))
        if values.dtype.kind not in kinds:
            raise DataError(
                f"{self.arrays.path}: {path!r} holds {values.dtype} values; it must hold numbers. Cells, objects and "
                "handles of MATLAB are not read: save it as an array."
            )
        return values.T if self.order == MATLAB_IN_HDF5 else values

    def number(self, name: str) -> float | None:
        """The first number of a list; in metres where it is a length and the file states its unit."""
        values = self.values(name)
        if values is None or not values.size:
            return None
        number = float(values.ravel()[0])
        return number * self.factor(name) if name in _LENGTHS else number

    def factor(self, name: str) -> float:
        """Metres in the unit of a length."""
        path = self.path_of(name)
        unit = "" if path is None else self.headers[path].unit
        metres = length_unit(unit) if unit else 1.0
        if metres is None:
            raise DataError(
                f"{self.arrays.path}: {path!r} states the unit {unit!r}; a length has one of {', '.join(LENGTHS)}."
            )
        return metres


def read_by_names(arrays: ArrayFile, order: str, options: ReadOptions, dialect: str, notes: list[str]) -> Recording:
    """Read a scan; frames stay on disk where the file lets them be read by parts.

    Args:
        arrays: of the file.
        order: of their axes.
        options: `measurement` must not contradict counts; lengths that are given go before those in Å.
        dialect: name of the reader.
        notes: what was assumed is added here.

    Raises:
        DataError: no frames, or arrays of other shapes than they must have.
    """
    name, warnings = str(arrays.path), list[str]()
    found = _Names(arrays, order, arrays.headers())
    resolve_measurement(name, "counts", options.measurement)
    positions = _positions(found, options, notes)
    frames, positions = _frames(found, positions, notes)
    given = None not in (options.energy_eV, options.position_unit, options.pixel_size_m)
    geometry, said = instrument_of_numbers(found.number, name, options.radiation or "photon", lengths_known=given)
    probe = _probe(found, notes)
    sample = frames.stored(np.unique(np.linspace(0, frames.shape[0] - 1, _SAMPLE).astype(np.int64)))
    used = {*FRAMES, *_LISTS, *_TABLES, *_LENGTHS, *_PROBES, "energy", "fmask"}
    ignored = sorted(key for key in found.headers if key.removeprefix("p/") not in used)
    if ignored:
        more = f" and {len(ignored) - 12} more" if len(ignored) > 12 else ""
        notes.append(f"Ignored: {', '.join(ignored[:12])}{more}.")
    return Recording(
        frames=frames,
        positions=positions,
        position_unit="m",
        probe=probe,
        mask=_mask(found, frames.shape[1:], notes, warnings),
        geometry=geometry,
        source=Source(
            path=name,
            dialect=dialect,
            measurement="counts",
            assumptions=("Frames of PtychoShelves are intensities, read as counts.", *notes, *said),
            warnings=(*warnings, *doubt("counts", sample)),
        ),
    )


def _positions(found: _Names, options: ReadOptions, notes: list[str]) -> NDArray[np.float64] | None:
    """(M, 2) (y, x) metres, or None where the file has none."""
    listed = [found.values(key) for key in _LISTS]
    name = str(found.arrays.path)
    as_stored = options.position_unit is not None  # then the unit is what the caller says
    turn = "ptycho orient tells whether that is so of this scan."
    if all(values is not None for values in listed):
        y, x = (
            np.asarray(values, np.float64).ravel() * (1.0 if as_stored else found.factor(key))
            for key, values in zip(_LISTS, listed, strict=True)
        )
        if len(y) != len(x):
            raise DataError(f"{name}: 'ppY' has {len(y)} numbers and 'ppX' {len(x)}; a frame has one of each.")
        notes.append(f"ppX, ppY are metres along the columns and rows of the frames; {turn}")
        return np.stack([y, x], axis=-1)
    for key, columns in _TABLES.items():
        table = found.values(key)
        if table is not None:
            if table.ndim != 2 or table.shape[1] != 2:
                raise DataError(f"{name}: {key!r} is {table.shape}; positions are (M, 2) in MATLAB.")
            notes.append(f"{key} is metres, its columns {'y, x' if columns == (0, 1) else 'x, y'}; {turn}")
            return np.asarray(table[:, columns], np.float64) * (1.0 if as_stored else found.factor(key))
    return None


def _frames(
    found: _Names, positions: NDArray[np.float64] | None, notes: list[str]
) -> tuple[StoredFrames, NDArray[np.float64] | None]:
    """Frames by the order of their axes, which the number of positions decides where frames lie last in Python.

    Of a file that is still being written they are those that are whole, with as many positions.
    """
    path, name = frames_name(found.headers), str(found.arrays.path)
    if path is None:
        raise DataError(f"{name}: no frames: one of {', '.join(FRAMES)} must hold them, (H, W, M) in MATLAB.")
    header = found.headers[path]
    shape, dtype = header.shape, header.dtype
    if len(shape) not in (3, 4) or 0 in shape or dtype.kind not in "biuf":
        raise DataError(
            f"{name}: {path!r} is {shape} {dtype}; frames must be (H, W, M) or (H, W, My, Mx) real numbers in MATLAB."
        )
    counted = tuple(range(len(shape) - 2))
    if found.order == MATLAB_IN_HDF5:
        layout = Layout(shape, counted, (len(shape) - 1, len(shape) - 2))
        notes.append(f"{path!r} was written by MATLAB, so that its axes are turned: frames of {shape[-1]}×{shape[-2]}.")
    elif found.order == MATLAB:
        layout = Layout(shape, tuple(range(len(shape) - 1, 1, -1)), (0, 1))
    else:
        M = None if positions is None else len(positions)
        last = len(shape) == 3 and M == shape[2] != shape[0]
        if not last and len(shape) == 3 and isinstance(found.arrays, Hdf5Arrays):
            frames, (there,) = counted_frames(found.arrays, path, (1, 2), [positions], notes)
            return frames, there
        layout = Layout(shape, (2,), (0, 1)) if last else Layout(shape, counted, (len(shape) - 2, len(shape) - 1))
        if last:
            notes.append(f"{path!r} is {shape} with {M} positions: frames lie along its last axis.")
    return stored_frames(found.arrays, path, layout, "counts"), positions


def _probe(found: _Names, notes: list[str]) -> NDArray[np.complex64] | None:
    """(P, N, N), the first of several variations."""
    for key in _PROBES:
        values = found.values(key, "biufc")
        if values is not None:
            break
    else:
        notes.append(NO_PROBE)
        return None
    turned = values if found.order == PYTHON else planes_first(values)
    return normalise_probe(turned, str(found.arrays.path), notes)


def _mask(found: _Names, shape: tuple[int, ...], notes: list[str], warnings: list[str]) -> NDArray[np.bool_] | None:
    """Good pixels (H, W); of a mask for each frame those that are good in all of them."""
    values = found.values("fmask")
    if values is None:
        return None
    if values.ndim == 3:
        values = values if found.order == PYTHON and values.shape[1:] == shape else np.moveaxis(values, -1, 0)
    each = values.ndim == 3 and len(values) > 1
    good = np.asarray(values.astype(bool).all(axis=0) if values.ndim == 3 else values.astype(bool))
    if good.shape != shape:
        warnings.append(f"fmask is {good.shape} and frames are {shape}, so that it was not used; give --mask FILE.")
        return None
    told = ", those that are bad in any frame" if each else ""
    notes.append(f"fmask (1 = good) was read as the mask; it hides {counted(int((~good).sum()), 'pixel')}{told}.")
    return good
