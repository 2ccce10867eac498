"""A file of no known dialect, read as a mapping says: HDF5, NPZ, NPY, Zarr or MAT; frames stay on disk where they can.

The mapping names arrays and their axes (see ``mapping``); what comes out is the same as from any reader. Nothing is
found by its name here, and nothing in the file is looked at that the mapping does not name.
"""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.frames import FrameSource, SubsetFrames
from ...data.raw import Geometry, Source
from ...data.recording import Recording
from ...errors import ConfigError, DataError
from ...physics.propagation import energy_of_eV
from ...reader_protocol import ReadOptions
from ...text import counted, listed
from ..candidate import Candidate
from ..h5_values import one_number, text_of, unit_factor
from ..measurement import doubt, resolve_measurement
from ..planes import good_pixels, one_in
from ..probes import NO_PROBE, normalise_probe
from ..units import energy_eV_of, length_m
from .arrays import ArrayFile, arrays_of
from .bare import bare_measurement
from .entries import chosen_entry
from .mapped_arrays import arranged, axes_of, fixed_axes, loaded
from .mapped_positions import placed_by
from .mapping import QUANTITIES, ArrayAt, Mapping, PositionsAt, Quantity, read_mapping
from .stored_frames import Layout, Reshaped, StoredFrames, stored_frames

__all__ = ["read", "recording_by"]

_SAMPLE = 4
_AS_STORED = {"energy": "eV"}  # all else is in metres where nobody says


def read(file: Candidate, options: ReadOptions) -> Recording:
    """Read a file as ``options.mapping`` says.

    Args:
        file: an examined file.
        options: the mapping; `entry` where it names several scans; what overrides it.

    Raises:
        ConfigError: the mapping says what none says, or does not fit the arrays.
        DataError: an array is not there, or holds what it must not.
    """
    if options.mapping is None:
        raise ConfigError("mapping is not given; give the YAML file that says which array is what (--map).")
    mapping = read_mapping(options.mapping)
    arrays = arrays_of(file, options.follow)
    if arrays is None:
        raise DataError(
            f"{file.path}: holds no arrays that a mapping could name; one maps HDF5, NPZ, NPY, Zarr and MAT files."
        )
    return recording_by(mapping, arrays, options, "mapped", options.mapping.name)


def recording_by(mapping: Mapping, arrays: ArrayFile, options: ReadOptions, dialect: str, said_by: str) -> Recording:
    """A recording of arrays that a mapping names.

    Args:
        mapping: which array is what.
        arrays: the file.
        options: what the caller says.
        dialect: name of the reader.
        said_by: the mapping's name, for messages.

    Raises:
        ConfigError, DataError: as :func:`read`.
    """
    name = str(arrays.path)
    notes: list[str] = []
    mapping = _one_scan(mapping, arrays, options, notes)
    frames, raster = _frames(mapping.frames, arrays, options, said_by)
    sample = frames.stored(_spread(frames.shape[0]))
    stated = mapping.frames.measurement
    measurement = (
        bare_measurement(name, sample, options, notes)
        if stated is None
        else resolve_measurement(name, stated, options.measurement, sample)
    )
    placed, unit, raster = placed_by(mapping, arrays, frames.shape, raster, options, said_by)
    probe = _probe(mapping.probe, arrays, options, said_by, notes)
    mask, one_means = _mask(mapping.mask, arrays, options, said_by, notes)
    source_of_frames: FrameSource = replace(frames, measurement=measurement)
    if options.follow and placed is not None and len(placed) != frames.shape[0]:
        n = min(len(placed), frames.shape[0])
        notes.append(
            f"{frames.shape[0]} frames and {len(placed)} positions are there so far; the first {n} were taken."
        )
        source_of_frames, placed, raster = SubsetFrames(source_of_frames, np.arange(n)), placed[:n], None
    return Recording(
        frames=source_of_frames,
        positions=placed,
        position_unit=unit,
        raster=raster,
        probe=probe,
        mask=mask,
        mask_polarity=one_means,
        background=_background(mapping.background, arrays, options, said_by, frames.shape[1:]),
        geometry=_geometry(mapping, arrays, notes),
        centre_px=_centre(mapping, frames.shape[1:], said_by),
        source=Source(
            path=name,
            dialect=dialect,
            measurement=measurement,
            assumptions=(f"Arrays were taken as {said_by} says.", *notes, *([] if probe is not None else [NO_PROBE])),
            warnings=tuple(doubt(measurement, sample)),
            details={"mapping": _plain(asdict(mapping))},
        ),
    )


def _plain(content: dict[str, Any]) -> dict[str, Any]:
    """What a mapping says, without what it leaves open, as plain JSON data."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        item = _plain(value) if isinstance(value, dict) else list(value) if isinstance(value, tuple) else value
        if item not in (None, [], {}, ""):
            found[key] = item
    return found


def _spread(M: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, M - 1, min(M, _SAMPLE)).astype(np.int64))


# --- which scan, which axes -----------------------------------------------------------------------------------------


def _one_scan(mapping: Mapping, arrays: ArrayFile, options: ReadOptions, notes: list[str]) -> Mapping:
    """The mapping with ``*`` in its paths replaced by what it stands for in the scan that is chosen."""
    if "*" not in mapping.frames.path:
        if any("*" in path for path in mapping.paths()):
            raise ConfigError("A mapping has '*' in a path, but not in that of its frames, which lists the scans.")
        if "entry" not in mapping.frames.axes:
            chosen_entry(["0"], options.entry, str(arrays.path))  # nothing else chooses a scan
        return mapping
    pattern = re.compile("([^/]*)".join(map(re.escape, mapping.frames.path.split("*", 1))))
    found = [match[1] for name in arrays.headers() if (match := pattern.fullmatch(name))]
    if not found:
        held = listed(arrays.headers()) or "nothing"
        raise DataError(f"{arrays.path}: no array is called {mapping.frames.path!r}. It holds: {held}.")
    entry = chosen_entry(found, options.entry, str(arrays.path))
    notes.append(f"Of {len(found)} scans in the file, {entry!r} was read.")

    def named(item: Any) -> Any:
        if isinstance(item, ArrayAt | Quantity):
            return replace(item, path=item.path.replace("*", entry))
        if isinstance(item, PositionsAt):
            return replace(item, both=named(item.both), y=named(item.y), x=named(item.x))
        return item

    return replace(mapping, **{key: named(value) for key, value in vars(mapping).items()})


# --- the parts ------------------------------------------------------------------------------------------------------


def _frames(
    at: ArrayAt, arrays: ArrayFile, options: ReadOptions, said_by: str
) -> tuple[StoredFrames, tuple[int, int] | None]:
    """Frames, their measurement still open, and the raster that they lie on."""
    header = arrays.header(at.path)
    if header.dtype.kind not in "biuf" or 0 in header.shape:
        raise DataError(f"{arrays.path}: {at.path!r} is {header.shape} {header.dtype}; frames must be real numbers.")
    shape = header.shape
    if at.reshape:
        whole = _new_shape(at, shape, said_by)
        arrays, shape = Reshaped(arrays, at.path, shape, whole), whole
    usual = ("scan_y", "scan_x", "y", "x") if len(shape) == 4 else ("frame", "y", "x")
    axes = axes_of(at, usual, shape, arrays, said_by)
    counted = [word for word in ("frame", "scan_y", "scan_x") if word in axes]
    layout = Layout(
        shape,
        tuple(axes.index(word) for word in counted),
        (axes.index("y"), axes.index("x")),
        tuple(fixed_axes(axes, shape, options, str(arrays.path)).items()),
    )
    raster = (layout.counted[0], layout.counted[1]) if len(counted) == 2 else None
    flipped = ("y" in at.flip, "x" in at.flip)
    return stored_frames(arrays, at.path, layout, "counts", flipped, at.zero == "corner"), raster


def _new_shape(at: ArrayAt, stored: tuple[int, ...], said_by: str) -> tuple[int, int, int]:
    n, known = int(np.prod(stored)), int(np.prod([k for k in at.reshape if k > 0]))
    shape = tuple(n // known if k < 0 else k for k in at.reshape)
    if sum(k < 0 for k in at.reshape) > 1 or int(np.prod(shape)) != n:
        raise ConfigError(f"{said_by}: {at.path!r} is {stored}, which cannot be reshaped to {list(at.reshape)}.")
    return shape[0], shape[1], shape[2]


def _centre(mapping: Mapping, size: tuple[int, int], said_by: str) -> tuple[float, float] | None:
    """Zero frequency after frames were turned round; where none is stated it was at (H // 2, W // 2) before."""
    if mapping.frames.zero == "corner":
        if mapping.centre is not None:
            raise ConfigError(f"{said_by}: centre is given, and zero_frequency: corner; keep one.")
        if mapping.frames.flip:
            raise ConfigError(
                f"{said_by}: frames with zero frequency at the corner are not flipped; transpose by axes."
            )
        return None
    if mapping.centre is None and not mapping.frames.flip:
        return None
    centre = mapping.centre or (size[0] // 2, size[1] // 2)
    y, x = (n - 1 - c if axis in mapping.frames.flip else c for axis, c, n in zip("yx", centre, size, strict=True))
    return float(y), float(x)


def _probe(
    at: ArrayAt | None, arrays: ArrayFile, options: ReadOptions, said_by: str, notes: list[str]
) -> NDArray[Any] | None:
    if at is None:
        return None
    if at.axes:
        values = arranged(at, ("re_im", "mode", "y", "x"), (), arrays, options, said_by, "biufc")
        if "re_im" in at.axes:
            if len(values) != 2:
                raise ConfigError(
                    f"{said_by}: the axis re_im of {at.path!r} has {len(values)} entries; it must have 2."
                )
            values = values[0] + 1j * values[1]
    else:
        values = loaded(arrays, at.path, "biufc")
    told: list[str] = []
    probe = normalise_probe(values, str(arrays.path), told)
    notes += told
    moved = any("corner" in text for text in told)  # it was recognised as such already
    return np.fft.fftshift(probe, axes=(1, 2)) if at.zero == "corner" and not moved else probe


def _mask(
    at: ArrayAt | None, arrays: ArrayFile, options: ReadOptions, said_by: str, notes: list[str]
) -> tuple[NDArray[np.bool_] | None, str]:
    """Good pixels (H, W), or None, and what 1 means in the array."""
    if at is None:
        return None, "good"
    values = arranged(at, ("y", "x"), ("y", "x"), arrays, options, said_by, "biuf")
    good, how = good_pixels(values, at.one_means or "good", stated=at.one_means is not None)
    notes.append(f"The mask was read with {how}; it hides {counted(int((~good).sum()), 'pixel')}.")
    return good, one_in(how)


def _background(
    at: ArrayAt | float | None, arrays: ArrayFile, options: ReadOptions, said_by: str, size: tuple[int, int]
) -> NDArray[Any] | None:
    if at is None:
        return None
    if isinstance(at, ArrayAt):
        return arranged(at, ("y", "x"), ("y", "x"), arrays, options, said_by, "biuf")
    return np.full(size, at, np.float32)


def _geometry(mapping: Mapping, arrays: ArrayFile, notes: list[str]) -> Geometry:
    values = {key: _amount(arrays, key, getattr(mapping, key), notes) for key in QUANTITIES}
    energy, wavelength = values["energy"], values["wavelength"]
    if wavelength is not None:
        if energy is not None:
            raise ConfigError("A mapping gives energy and wavelength both; keep one.")
        energy = energy_of_eV(wavelength, mapping.radiation)
    return Geometry(
        energy_eV=energy,
        distance_m=values["distance"],
        detector_pixel_size_m=values["detector_pixel_size"],
        pixel_size_m=values["pixel_size"],
        radiation=mapping.radiation,
    )


def _amount(arrays: ArrayFile, key: str, quantity: Quantity | None, notes: list[str]) -> float | None:
    """A quantity in metres or electronvolts."""
    if quantity is None or quantity.value is not None:
        return None if quantity is None else quantity.value
    place, at, attribute = quantity.path.partition("@")
    where = f"{arrays.path}: {quantity.path!r}"
    if at:
        stored, unit = arrays.attribute(place.strip("/"), attribute), ""
        if stored is None:
            raise DataError(f"{where} is no attribute that is there; write it as group/dataset@name.")
    else:
        stored, unit = loaded(arrays, place, "biufSUO"), arrays.header(place).unit
    text = text_of(stored)
    if text:
        return energy_eV_of(text, where) if key == "energy" else length_m(text, where)
    number = one_number(np.asarray(stored), where, key)
    word = quantity.unit or unit
    if not word:
        word = _AS_STORED.get(key, "m")
        notes.append(f"{quantity.path} states no unit; it was read as {word}.")
    factor = unit_factor(word, "energy" if key == "energy" else "length")
    if factor is None:
        raise DataError(f"{where} states the unit {word!r}, which is none of {key}; give unit in the mapping.")
    if number * factor <= 0:
        raise DataError(f"{where} must be a number > 0; found {number:g}.")
    return number * factor
