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
from ..candidate import Candidate
from ..h5_values import as_complex, one_number, text_of, unit_factor
from ..measurement import doubt, resolve_measurement
from ..planes import good_pixels
from ..probes import NO_PROBE, normalise_probe
from ..units import energy_eV_of, length_m, length_unit
from .arrays import ArrayFile, arrays_of
from .bare import bare_measurement
from .entries import chosen_entry
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
    placed, unit, raster = _positions(mapping, arrays, frames.shape, raster, options, said_by)
    probe = _probe(mapping.probe, arrays, options, said_by)
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
        mask=_mask(mapping.mask, arrays, options, said_by, notes),
        mask_polarity="bad" if mapping.mask is not None and mapping.mask.one_means == "bad" else "good",
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
        return mapping
    pattern = re.compile("([^/]*)".join(map(re.escape, mapping.frames.path.split("*", 1))))
    found = [match[1] for name in arrays.headers() if (match := pattern.fullmatch(name))]
    if not found:
        held = ", ".join(arrays.headers()) or "nothing"
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


def _axes(
    at: ArrayAt, usual: tuple[str, ...], shape: tuple[int, ...], arrays: ArrayFile, said_by: str
) -> tuple[str, ...]:
    """Names of the axes of an array, as many as it has."""
    axes = at.axes or usual
    if len(axes) != len(shape):
        raise ConfigError(
            f"{said_by}: {at.path!r} has {len(axes)} axes {list(axes)}, but in {arrays.path.name} it is {shape}; name "
            "each axis in order (axes: […])."
        )
    for axis, length in zip(axes, shape, strict=True):
        if axis == "one" and length != 1:
            raise ConfigError(
                f"{said_by}: an axis of {at.path!r} is called 'one', but has {length} entries; it is {shape}."
            )
    return axes


def _fixed(axes: tuple[str, ...], shape: tuple[int, ...], options: ReadOptions, path: str) -> dict[int, int]:
    """Index along the axes that are no part of a frame."""
    fixed = {axis: 0 for axis, word in enumerate(axes) if word == "one"}
    for axis, word in enumerate(axes):
        if word == "entry":
            n = shape[axis]
            if options.entry is None and n > 1:
                raise DataError(f"{path}: holds {n} scans; choose one with --entry 0 to --entry {n - 1}.")
            chosen = options.entry or "0"
            if not chosen.isdigit() or int(chosen) >= n:
                raise DataError(f"{path}: has no entry {chosen!r}; its {n} scans are called 0 to {n - 1}.")
            fixed[axis] = int(chosen)
    return fixed


def _loaded(arrays: ArrayFile, path: str, kinds: str) -> NDArray[Any]:
    with arrays.opened(path) as array:
        values = as_complex(np.asarray(array[()] if array.shape == () else array[...]))
    if values.dtype.kind not in kinds:
        raise DataError(f"{arrays.path}: {path!r} holds {values.dtype} values; it must hold numbers.")
    return values


def _arranged(
    at: ArrayAt,
    wanted: tuple[str, ...],
    usual: tuple[str, ...],
    arrays: ArrayFile,
    options: ReadOptions,
    said_by: str,
    kinds: str,
) -> NDArray[Any]:
    """An array with its axes in a wanted order; those that it has not are left out."""
    values = _loaded(arrays, at.path, kinds)
    axes = _axes(at, usual, values.shape, arrays, said_by)
    fixed = _fixed(axes, values.shape, options, str(arrays.path))
    values = values[tuple(fixed.get(axis, slice(None)) for axis in range(values.ndim))]
    left = [word for axis, word in enumerate(axes) if axis not in fixed]
    strange = [word for word in left if word not in wanted]
    if strange:
        raise ConfigError(f"{said_by}: {at.path!r} has an axis {strange[0]!r}; here its axes are {', '.join(wanted)}.")
    return values.transpose([left.index(word) for word in wanted if word in left])


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
    axes = _axes(at, usual, shape, arrays, said_by)
    counted = [word for word in ("frame", "scan_y", "scan_x") if word in axes]
    layout = Layout(
        shape,
        tuple(axes.index(word) for word in counted),
        (axes.index("y"), axes.index("x")),
        tuple(_fixed(axes, shape, options, str(arrays.path)).items()),
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


def _positions(
    mapping: Mapping,
    arrays: ArrayFile,
    shape: tuple[int, int, int],
    raster: tuple[int, int] | None,
    options: ReadOptions,
    said_by: str,
) -> tuple[NDArray[np.float64] | None, str, tuple[int, int] | None]:
    """Positions (M, 2) (y, x) of the beam on the object, their unit, and the raster."""
    M = shape[0]
    if mapping.raster is not None:
        if raster not in (None, mapping.raster) or mapping.raster[0] * mapping.raster[1] != M:
            raise ConfigError(f"{said_by}: raster is {mapping.raster}, but there are {raster or M} frames.")
        raster = mapping.raster
    at = mapping.positions
    if at is None:
        if mapping.scan_step is None:
            return None, "", raster
        if raster is None:
            raise ConfigError(f"{said_by}: scan_step needs a raster: [Ny, Nx].")
        y, x = np.mgrid[: raster[0], : raster[1]].reshape(2, -1)
        return np.stack([y * mapping.scan_step[0], x * mapping.scan_step[1]], axis=-1), "m", raster
    if mapping.scan_step is not None:
        raise ConfigError(f"{said_by}: positions and scan_step are given both; keep one.")
    stored = _coordinates(at, arrays, raster, options, said_by)
    turned = [-1.0 if (axis in at.negate) != (at.of == "sample") else 1.0 for axis in "yx"]
    unit, factor = _position_unit(at, arrays)
    positions = stored * turned * factor
    if at.names != "(N-1)/2" and unit != "px":
        raise ConfigError(f"{said_by}: 'names' is for positions in pixels; those are in {unit or 'an unknown unit'}.")
    if at.names == "N/2":
        positions = positions - 0.5
    if at.names == "corner":
        positions = positions + (np.array(shape[1:]) - 1) / 2
    return positions, unit, raster


def _coordinates(
    at: PositionsAt, arrays: ArrayFile, raster: tuple[int, int] | None, options: ReadOptions, said_by: str
) -> NDArray[np.float64]:
    """(M, 2) (y, x) as stored; coordinates of rows and columns of a raster make one position of each pair."""
    if at.both is not None:
        words = set(at.both.axes) & {"yx", "xy", "yxz", "xyz", "zyx", "zxy"}
        if at.both.axes and len(words) != 1:
            raise ConfigError(
                f"{said_by}: one axis of positions must be yx or xy (xyz …), which holds the coordinates."
            )
        word = words.pop() if words else "yx"
        values = _arranged(
            at.both, ("frame", "scan_y", "scan_x", word), ("frame", "yx"), arrays, options, said_by, "biuf"
        )
        values = values.reshape(-1, values.shape[-1])
        if values.shape[1] != len(word):
            raise ConfigError(f"{said_by}: the axis {word} of {at.both.path!r} has {values.shape[1]} entries.")
        return values[:, [word.index("y"), word.index("x")]].astype(np.float64)
    assert at.y is not None
    assert at.x is not None
    lines = ("frame", "scan_y", "scan_x")
    found = []
    for item in (at.y, at.x):
        dims = len(arrays.header(item.path).shape)
        usual = ("frame",) if dims == 1 else ("scan_y", "scan_x")
        found.append(_arranged(item, lines, usual, arrays, options, said_by, "biuf").astype(np.float64))
    y, x = found
    if y.ndim == x.ndim == 1 and at.y.axes == ("scan_y",) and at.x.axes == ("scan_x",):
        y, x = np.broadcast_arrays(y[:, None], x[None, :])
    if y.size != x.size:
        raise DataError(
            f"{arrays.path}: {at.y.path!r} has {y.size} values, {at.x.path!r} {x.size}; a frame has one of each. For "
            "the lines and columns of a raster say axes: [scan_y] and axes: [scan_x]."
        )
    return np.stack([y.ravel(), x.ravel()], axis=-1)


def _position_unit(at: PositionsAt, arrays: ArrayFile) -> tuple[str, float]:
    """(``m``, ``px`` or nothing; factor)."""
    item = at.both or at.y
    assert item is not None
    units = {arrays.header(part.path).unit for part in (at.both, at.y, at.x) if part is not None}
    if at.unit is None and len(units) > 1:
        raise DataError(f"{arrays.path}: positions state different units: {', '.join(sorted(units))}; give unit.")
    text = at.unit if at.unit is not None else units.pop()
    if text.lower() in ("px", "pixel", "pixels"):
        return "px", 1.0
    factor = length_unit(text) if text else None
    if text and factor is None:
        raise DataError(
            f"{arrays.path}: {item.path!r} states the unit {text!r}, which is no length; give unit in the mapping."
        )
    return ("m", factor) if factor is not None else ("", 1.0)


def _probe(at: ArrayAt | None, arrays: ArrayFile, options: ReadOptions, said_by: str) -> NDArray[Any] | None:
    if at is None:
        return None
    if at.axes:
        values = _arranged(at, ("re_im", "mode", "y", "x"), (), arrays, options, said_by, "biufc")
        if "re_im" in at.axes:
            if len(values) != 2:
                raise ConfigError(
                    f"{said_by}: the axis re_im of {at.path!r} has {len(values)} entries; it must have 2."
                )
            values = values[0] + 1j * values[1]
    else:
        values = _loaded(arrays, at.path, "biufc")
    probe = normalise_probe(values, str(arrays.path))
    return np.fft.fftshift(probe, axes=(1, 2)) if at.zero == "corner" else probe


def _mask(
    at: ArrayAt | None, arrays: ArrayFile, options: ReadOptions, said_by: str, notes: list[str]
) -> NDArray[np.bool_] | None:
    if at is None:
        return None
    values = _arranged(at, ("y", "x"), ("y", "x"), arrays, options, said_by, "biuf")
    good, how = good_pixels(values, at.one_means or "good")
    notes.append(f"The mask was read with {how}; it hides {int((~good).sum())} pixels.")
    return good


def _background(
    at: ArrayAt | float | None, arrays: ArrayFile, options: ReadOptions, said_by: str, size: tuple[int, int]
) -> NDArray[Any] | None:
    if at is None:
        return None
    if isinstance(at, ArrayAt):
        return _arranged(at, ("y", "x"), ("y", "x"), arrays, options, said_by, "biuf")
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
        stored, unit = _loaded(arrays, place, "biufSUO"), arrays.header(place).unit
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
