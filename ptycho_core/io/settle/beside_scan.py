"""Positions of a file beside a scan, given to its frames; and which file beside it probably holds them."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...data.raw import Geometry
from ...data.recording import Recording
from ...errors import DataError, PtychoError
from ...reader_protocol import ReadOptions
from ...text import counted
from .beside import Beside, read_beside

__all__ = ["advice_without_positions", "with_positions_beside"]

_TEXT = {".txt", ".csv", ".dat", ".tsv"}
_SUFFIXES = _TEXT | {".npy", ".npz", ".h5", ".hdf5", ".hdf", ".nxs", ".cxi", ".mat"}
_ROLES = {
    "dp", "para", "data", "master", "pos", "position", "positions", "coords", "scan", "scanpos", "product",
    "diffraction", "frames", "motors", "patterns",
}  # fmt: skip
_MOST_LOOKED_AT = 50
_SAME_PIXEL = 1e-3  # energies of a wavelength in five digits differ by less


def with_positions_beside(
    recording: Recording, options: ReadOptions, name: str, notes: list[str], warnings: list[str]
) -> Recording:
    """A recording with the positions of the file that the caller gives, and what else that file knows.

    What the scan itself says of the instrument goes before what the other file says.

    Args:
        recording: what was read.
        options: `positions` is the file; without one nothing is changed.
        name: the scan, for messages.
        notes: what was taken for what is added here.
        warnings: what looks wrong is added here.

    Raises:
        DataError: the file holds no positions that can be told, or others than of these frames.
    """
    if options.positions is None:
        return recording
    beside = read_beside(options.positions)
    notes += beside.notes
    if recording.positions is not None:
        notes.append(f"The scan's own positions were left aside for those of {beside.path.name}, as given.")
    warnings += beside.warnings
    M = recording.frames.shape[0]
    positions, unit = beside.settled(), beside.unit
    if options.position_unit is not None:  # what the caller says is of the numbers as they are stored
        positions, unit = beside.positions, ""
        stated = " and ".join(dict.fromkeys(beside.units))
        notes += [f"{beside.path.name} itself states {stated}."] if beside.unit else []
    if beside.indexes is not None:
        positions = _by_index(beside, positions, recording, name, notes)
    if options.follow and options.frames is None and beside.indexes is None and len(positions) > M:
        notes.append(
            f"Of {len(positions)} positions of {beside.path.name} the first {M} were taken: more frames follow."
        )
        positions = positions[:M]
    if options.frames is None and len(positions) != M:
        raise DataError(
            f"{beside.path}: {len(positions)} positions, but {name} has {M} frames; every frame needs one. If those at "
            f"the end are too many, give --frames 0:{min(M, len(positions))}; else give the numbers of the frames that "
            "belong to the positions (--frames FILE)."
        )
    if beside.has_probe and recording.probe is None:
        notes.append(f"{beside.path.name} holds a probe too, which is not used; --probe {beside.path} takes it.")
    geometry = _filled(recording, beside, notes, warnings)
    return replace(recording, positions=positions, position_unit=unit, geometry=geometry)


def _by_index(
    beside: Beside, positions: NDArray[np.float64], recording: Recording, name: str, notes: list[str]
) -> NDArray[np.float64]:
    """Positions (M, 2) of the frames, by the numbers that file and scan give them; NaN where a frame has none."""
    assert beside.indexes is not None
    M = recording.frames.shape[0]
    stored = recording.frame_indexes
    numbers = np.arange(M) if stored is None else np.asarray(stored, np.int64)
    unique, inverse, times = np.unique(beside.indexes, return_inverse=True, return_counts=True)
    if len(unique) == 1 < len(beside.indexes):
        raise DataError(
            f"{beside.path}: all {len(beside.indexes)} positions are of frame {unique[0]}, so that frames and "
            "positions cannot be paired. Write the file again with one number for each frame."
        )
    mean = np.zeros((len(unique), 2))
    np.add.at(mean, inverse, positions)
    mean /= times[:, None]
    if times.max() > 1:
        those = counted(int((times > 1).sum()), "frame has", "frames have")
        notes.append(f"{beside.path.name}: {those} several positions; their mean is used, as ptychodus does.")
    place = np.minimum(np.searchsorted(unique, numbers), len(unique) - 1)
    has_one = unique[place] == numbers
    if not has_one.any():
        raise DataError(
            f"{beside.path}: its positions are of frames {unique[0]} to {unique[-1]}, and {name} has frames "
            f"{numbers.min()} to {numbers.max()}; they are of another scan, or counted from another number."
        )
    over = int((~np.isin(unique, numbers)).sum())
    if over:
        those = counted(over, "position is of a frame that is", "positions are of frames that are")
        notes.append(f"{beside.path.name}: {those} not in {Path(name).name}; left out.")
    notes.append(f"{beside.path.name}: positions were paired with frames by their numbers.")
    return np.where(has_one[:, None], mean[place], np.nan)


def _filled(recording: Recording, beside: Beside, notes: list[str], warnings: list[str]) -> Geometry:
    """What the scan knows of the instrument, and for the rest what the other file says.

    An object pixel follows where energy, distance and detector pixel are known; then that of the other file is checked
    against it and not taken.
    """
    known, said = recording.geometry, beside.geometry
    width = recording.frames.shape[2]
    if said.pixel_size_m is not None and beside.side not in (None, width):
        notes.append(
            f"{beside.path.name} is of frames of {beside.side} pixels a side, and those here have {width}: its object "
            "pixel is not theirs and is not used."
        )
        said = replace(said, pixel_size_m=None)
    z, p = known.distance_m or said.distance_m, known.detector_pixel_size_m or said.detector_pixel_size_m
    wavelength = known.wavelength_m or said.wavelength_m
    if z is not None and p is not None and wavelength is not None:
        follows = wavelength * z / (width * p)
        if said.pixel_size_m is not None and abs(said.pixel_size_m - follows) > _SAME_PIXEL * follows:
            warnings.append(
                f"{beside.path.name} states an object pixel of {said.pixel_size_m:.6g} m, but energy, distance and "
                f"detector pixel make that of these frames {follows:.6g} m, which is used: the two may not belong "
                "together."
            )
        said = replace(said, pixel_size_m=None)
    taken = {
        field.name: getattr(said, field.name)
        for field in fields(Geometry)
        if field.name != "radiation" and getattr(known, field.name) is None and getattr(said, field.name) is not None
    }
    if taken:
        told = ", ".join(f"{key} = {value:.6g}" for key, value in taken.items())
        notes.append(f"{told}, as {beside.path.name} says.")
    return replace(known, **taken)


def advice_without_positions(scan: Path, M: int) -> str:
    """Which file beside a scan probably holds its positions, in a sentence, or an empty text; it is never taken."""
    found = []
    for path in _like(scan):
        try:
            beside = read_beside(path)
        except PtychoError:
            continue
        if beside.indexes is not None or len(beside.positions) == M:
            found.append(path)
    if not found:
        return ""
    if len(found) == 1:
        return f" Positions are probably in {found[0].name}, which lies beside it: --positions {found[0]}"
    return f" Positions may be in {' or '.join(str(path) for path in found[:4])}: give one of them with --positions."


def _like(scan: Path) -> list[Path]:
    """Files beside a scan whose names differ from its own in words such as dp, para or master alone, or text in it."""
    if not scan.exists():
        return []
    own = _stem(scan)
    beside = sorted(p for p in scan.parent.iterdir() if p.suffix.lower() in _SUFFIXES and p != scan and p.is_file())
    alike = [p for p in beside if _stem(p) == own]
    if scan.is_dir():  # of one file a frame
        alike += sorted(p for p in scan.iterdir() if p.suffix.lower() in _TEXT and p.is_file())
    return alike[:_MOST_LOOKED_AT]


def _stem(path: Path) -> str:
    """The name of a file without its ending and without the words that say which part of a scan it holds."""
    words = re.split(r"([_\-. ]+)", path.stem.lower())
    return "".join(word for word in words[::2] if word not in _ROLES)
