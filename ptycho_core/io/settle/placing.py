"""Where frames were taken: positions of the file, of a file beside it, or of a raster, in metres or object pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...data.recording import Recording
from ...errors import ConfigError, DataError
from ...reader_protocol import ReadOptions
from ...text import counted
from ..units import LENGTHS, length_unit
from .beside_scan import advice_without_positions

__all__ = ["Placed", "placed_positions", "with_raster"]


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


def placed_positions(recording: Recording, options: ReadOptions, name: str, notes: list[str]) -> Placed:
    """The positions of a recording, in the unit that it states or the caller says.

    Raises:
        DataError: there are none.
        ConfigError: an unknown unit.
    """
    positions, unit = recording.positions, recording.position_unit
    if options.positions is not None and positions is not None:
        _check_all_there(options.positions, positions)
    if positions is None:
        raise DataError(
            f"{name}: holds no positions. Give the file that does (--positions FILE), or the step of a raster "
            "(--scan_step 50nm, with --raster NY,NX where frames lie in one row)."
            + advice_without_positions(Path(name), recording.frames.shape[0])
        )
    positions = np.asarray(positions, np.float64)
    if positions.ndim != 2 or positions.shape[1] != 2:
        raise DataError(f"{name}: positions_px has shape {positions.shape}; it must be (M, 2), each row (y, x).")
    if options.position_unit is None:
        if not unit:
            notes.append("Nobody says what unit positions are in; object pixels were taken.")
        return Placed(positions, unit or "px", bool(unit))
    return _in_unit(positions, options.position_unit, unit, notes)


def with_raster(recording: Recording, options: ReadOptions, name: str, notes: list[str]) -> Recording:
    """A recording whose frames lie on the raster that the caller gives the step of; without a step nothing is changed.

    It comes before frames are chosen, which keep their places.

    Raises:
        ConfigError: options that contradict each other, or a raster that does not fit the frames.
    """
    if options.positions is not None and options.scan_step_m is not None:
        raise ConfigError("positions and scan_step are given both; the positions come from one of them.")
    if options.position_unit is not None and options.scan_step_m is not None:
        raise ConfigError(
            f"position_unit = {options.position_unit!r} is of stored positions, and scan_step is a length with its own "
            "unit (50nm); give one of the two."
        )
    if options.raster is not None and options.scan_step_m is None and options.raster != recording.raster:
        raise ConfigError(
            f"raster = {options.raster} says how frames lie that a step places, and none is given: --scan_step LENGTH, "
            "or leave --raster out."
        )
    if options.scan_step_m is None:
        return recording
    if recording.positions is not None:
        notes.append("The scan's own positions were left aside for those of the raster, as given.")
    places = _raster(recording, options, options.scan_step_m, name, notes)
    return replace(recording, positions=places, position_unit="m")


def _in_unit(positions: NDArray[np.float64], word: str, stated: str, notes: list[str]) -> Placed:
    """Positions in the unit that the caller says the stored numbers are in, whatever the file says."""
    factor = 1.0 if word == "px" else length_unit(word)
    if factor is None:
        raise ConfigError(f"position_unit = {word!r}; allowed: px, {', '.join(LENGTHS)}.")
    said = {"m": "metres", "px": "object pixels", "": "nothing"}[stated]
    notes.append(f"Positions were read as {word}, as given; the file says {said}.")
    return Placed(positions if word == "px" else positions * factor, "px" if word == "px" else "m", True)


def _check_all_there(path: Path, positions: NDArray[np.float64]) -> None:
    bad = np.flatnonzero(~np.isfinite(positions).all(axis=-1))
    if len(bad):
        raise DataError(
            f"{path}: {len(bad)} of the {len(positions)} frames in use have no finite position (first: frame "
            f"{bad[0]} of them). Leave those frames out with --frames."
        )


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
    begun = options.follow and raster[0] * raster[1] > M
    if raster[0] * raster[1] != M and not begun:
        raise ConfigError(
            f"a raster of {raster[0]} × {raster[1]} has {raster[0] * raster[1]} frames, but {M} are there."
        )
    y, x = np.mgrid[: raster[0], : raster[1]].reshape(2, -1)
    notes.append(f"Positions are a raster of {raster[0]} × {raster[1]} (y, x), the x axis fastest.")
    if begun:
        notes.append(f"Of the raster {counted(M, 'frame is', 'frames are')} there, taken as its first.")
    return np.stack([y[:M] * step_m[0], x[:M] * step_m[1]], axis=-1).astype(np.float64)
