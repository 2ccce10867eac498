"""Positions as a mapping names them: one array or two, in any order of axes, of the beam or of the sample."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError, DataError
from ...reader_protocol import ReadOptions
from ..units import length_unit
from .arrays import ArrayFile
from .mapped_arrays import arranged
from .mapping import Mapping, PositionsAt

__all__ = ["placed_by"]


def placed_by(
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
    unit, factor = ("", 1.0) if options.position_unit is not None else _position_unit(at, arrays)
    positions = stored * turned * factor
    if at.names != "(N-1)/2" and (unit or options.position_unit) != "px":
        stated = unit or options.position_unit or "an unknown unit"
        raise ConfigError(f"{said_by}: 'names' is for positions in pixels; those are in {stated}.")
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
        values = arranged(
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
        found.append(arranged(item, lines, usual, arrays, options, said_by, "biuf").astype(np.float64))
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
        raise DataError(
            f"{arrays.path}: positions state different units: {', '.join(sorted(units))}; give unit in the mapping."
        )
    text = at.unit if at.unit is not None else units.pop()
    if text.lower() in ("px", "pixel", "pixels"):
        return "px", 1.0
    factor = length_unit(text) if text else None
    if text and factor is None:
        raise DataError(
            f"{arrays.path}: {item.path!r} states the unit {text!r}, which is no length; give unit in the mapping."
        )
    return ("m", factor) if factor is not None else ("", 1.0)
