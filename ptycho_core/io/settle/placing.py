"""Where frames were taken: positions of the file, of a file beside it, or of a raster, in metres or object pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...data.raw import Geometry
from ...data.recording import Recording
from ...errors import ConfigError, DataError
from ...reader_protocol import ReadOptions
from ..number_table import read_array, read_table
from ..units import LENGTHS, length_unit

__all__ = ["Placed", "placed_positions"]


@dataclass(frozen=True)
class Placed:
    """Positions with their unit.

    Attributes:
        positions: (M, 2) float64 (y, x).
        unit: ``m`` or ``px``, object pixels of the frames as stored.
        stated: whether file or caller state the unit; else pixels were taken.
    """

    positions: NDArray[np.float64]
    unit: str
    stated: bool


def placed_positions(
    recording: Recording, options: ReadOptions, geometry: Geometry, name: str, notes: list[str]
) -> Placed:
    """The positions of a recording, or those that the caller gives instead.

    Raises:
        DataError: there are none, or another number than of frames.
        ConfigError: an unknown unit, or a raster that contradicts itself.
    """
    positions, unit = recording.positions, recording.position_unit
    if options.positions is not None and options.scan_step_m is not None:
        raise ConfigError("positions and scan_step are given both; the positions come from one of them.")
    if options.positions is not None:
        positions, unit = _beside(options.positions, notes)
        if recording.frames.shape[0] != len(positions):
            raise DataError(
                f"{options.positions}: {len(positions)} positions, but {name} has {recording.frames.shape[0]} frames "
                "in use; every frame needs one. Choose the frames that have one with --frames."
            )
    elif options.scan_step_m is not None:
        positions, unit = _raster(recording, options, options.scan_step_m, name, notes), "m"
    if positions is None:
        raise DataError(
            f"{name}: holds no positions. Give the file that does (--positions FILE), or the step of a raster "
            "(--scan_step 50nm, with --raster NY,NX where frames lie in one row)."
        )
    positions = np.asarray(positions, np.float64)
    if positions.ndim != 2 or positions.shape[1] != 2:
        raise DataError(f"{name}: positions_px has shape {positions.shape}; it must be (M, 2), each row (y, x).")
    if options.position_unit is None:
        if not unit:
            notes.append("Nobody says what unit positions are in; object pixels were taken.")
        return Placed(positions, unit or "px", bool(unit))
    return _in_unit(positions, options.position_unit, unit, notes)


def _in_unit(positions: NDArray[np.float64], word: str, stated: str, notes: list[str]) -> Placed:
    """Positions in the unit that the caller says they are in, whatever the file says."""
    factor = 1.0 if word == "px" else length_unit(word)
    if factor is None:
        raise ConfigError(f"position_unit = {word!r}; allowed: px, {', '.join(LENGTHS)}.")
    said = {"m": "metres", "px": "object pixels", "": "nothing"}[stated]
    notes.append(f"Positions were read as {word}, as given; the file says {said}.")
    return Placed(positions if word == "px" else positions * factor, "px" if word == "px" else "m", True)


def _beside(path: Path, notes: list[str]) -> tuple[NDArray[np.float64], str]:
    """Positions (M, 2) (y, x) of a file of their own, and their unit where its columns say."""
    try:
        with path.open("rb") as stream:
            magic = stream.read(6)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check --positions.") from error
    binary = magic == b"\x93NUMPY" or magic[:4] == b"PK\x03\x04"
    names: tuple[str, ...] = ()
    if binary:
        values = np.asarray(read_array(path), np.float64)
    else:
        table = read_table(path)
        names, values = table.names, table.values
    if values.ndim != 2 or (values.shape[1] != 2 and not names):
        raise DataError(f"{path}: is {values.shape}; positions are (M, 2), the columns y, x, or named y and x.")
    if not names:
        notes.append(f"{path.name}: its two columns were read as y, x.")
        return values, ""
    columns = {axis: _column(names, axis, path) for axis in "yx"}
    units = {_unit_of(names[column]) for column in columns.values()}
    if len(units) != 1:
        raise DataError(f"{path}: columns {', '.join(names)} have different units for y and x.")
    unit = units.pop()
    found = values[:, [columns["y"], columns["x"]]]
    notes.append(f"{path.name}: y is column {names[columns['y']]!r}, x is column {names[columns['x']]!r}.")
    if unit in ("", "px"):
        return found, unit
    return found * float(length_unit(unit) or 1.0), "m"


def _column(names: tuple[str, ...], axis: str, path: Path) -> int:
    """Number of the column for an axis: its name is y, y_um, pos_y or sample_y."""
    found = [k for k, name in enumerate(names) if axis in _words(name)]
    if len(found) != 1:
        raise DataError(
            f"{path}: columns are {', '.join(names)}; one must be named {axis}, with its unit behind an underscore if "
            f"there is one ({axis}_um)."
        )
    return found[0]


def _words(name: str) -> list[str]:
    for mark in "[]()-.":
        name = name.replace(mark, "_")
    return [part for part in name.lower().split("_") if part]


def _unit_of(name: str) -> str:
    """Unit in a column's name, or an empty text."""
    for word in _words(name):
        if word in ("px", "pixel", "pixels"):
            return "px"
        if length_unit(word) is not None:
            return word
    return ""


def _raster(
    recording: Recording, options: ReadOptions, step_m: tuple[float, float], name: str, notes: list[str]
) -> NDArray[np.float64]:
    """Positions (M, 2) of a raster, metres, the x axis fastest."""
    M = recording.frames.shape[0]
    raster = options.raster or recording.raster
    if options.raster is not None and recording.raster not in (None, options.raster):
        raise ConfigError(f"raster = {options.raster}, but {name} has frames on a raster of {recording.raster}.")
    if raster is None:
        raise ConfigError(
            f"scan_step is given, but {name} does not say on which raster its {M} frames lie: --raster NY,NX."
        )
    if raster[0] * raster[1] != M:
        raise ConfigError(
            f"a raster of {raster[0]} × {raster[1]} has {raster[0] * raster[1]} frames, but {M} are there."
        )
    y, x = np.mgrid[: raster[0], : raster[1]].reshape(2, -1)
    notes.append(f"Positions are a raster of {raster[0]} × {raster[1]} (y, x), the x axis fastest.")
    return np.stack([y * step_m[0], x * step_m[1]], axis=-1).astype(np.float64)
