"""One file a frame: a folder, or the files that a pattern with ``*`` names, in natural order (2 before 10).

Frames are TIFF, NPY, CBF or EDF, or HDF5 with one (H, W) dataset each. What is in the folder beside them is left out
and named; what a pattern names and is no frame is refused. Numbers that are missing in a numbered series are
named: frames are paired with positions by their order, so that a gap would shift all that come after it.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from ...data.raw import Source
from ...data.recording import Recording
from ...errors import DataError
from ...plugins.hookspecs import hookimpl
from ...reader_protocol import ReaderSpec, ReadOptions
from ...text import counted
from ..candidate import Candidate
from ..measurement import doubt
from ..probes import NO_PROBE
from ..settle.beside import read_beside
from .arrays import zarr_kind
from .bare import bare_measurement, empad_rows
from .frame_files import FORMATS, FileFrames, format_of, frame_dataset, read_frame

__all__ = ["ptycho_reader", "read", "recognises"]

_SUFFIXES = {".tif", ".tiff", ".npy", ".h5", ".hdf5", ".hdf", ".nxs", ".cbf", ".edf"}
_SHOWN = 8
_SAMPLE = 4


@hookimpl
def ptycho_reader() -> ReaderSpec:
    """Describe the dialect."""
    return ReaderSpec(
        name="files",
        title="one file a frame: a folder or a pattern of TIFF, NPY, HDF5, CBF, EDF",
        kind="folder",
        module=__name__,
        protocol_version=2,
        priority=10,
        one_scan=True,
    )


def recognises(file: Candidate) -> bool:
    """Whether a folder or pattern holds at least two files with an ending that frames have, and is no Zarr store."""
    if file.kind != "folder" or zarr_kind(file):
        return False
    return sum(path.suffix.lower() in _SUFFIXES for path in file.files) > 1


def read(file: Candidate, options: ReadOptions) -> Recording:
    """Read the scan; frames stay in their files.

    Args:
        file: a folder or pattern.
        options: measurement; where frames were taken; `follow` leaves a last file out that is still being written.

    Raises:
        DataError: files that are no frames, of two formats, or of different shapes; or a gap in their numbers that
            shifts them against the positions.
    """
    name = str(file.path)
    notes: list[str] = []
    warnings: list[str] = []
    kind, paths = _frames_among(file, notes)
    paths = _still_written(paths, kind, notes) if options.follow else paths
    dataset = frame_dataset(paths[0]) if kind == "hdf5" else ""
    first = read_frame(paths[0], kind, dataset)
    frames = FileFrames(tuple(paths), kind, (first.shape[0], first.shape[1]), dataset, limits=options.limits)
    numbers = _numbers(paths)
    gaps = _check_gaps(name, paths, numbers, options, warnings)
    spread = np.unique(np.linspace(0, len(paths) - 1, min(len(paths), _SAMPLE)).astype(np.int64))
    odd = [number for number in _of_other_size(paths) if number not in spread]
    sample = np.stack([frames.stored(int(number)) for number in spread])
    for number in odd:
        frames.stored(number)  # a file of another length may be of another shape
    measurement = bare_measurement(name, sample, options, notes, detector=kind in ("tiff", "cbf", "edf"))
    notes.append(f"{len(paths)} {FORMATS[kind]} files are a frame each, from {paths[0].name} to {paths[-1].name}.")
    mask, centre = empad_rows(frames.size, notes)
    return Recording(
        frames=replace(frames, measurement=measurement),
        positions=None,
        mask=mask,
        frame_indexes=np.array(numbers, np.int64) if gaps else None,
        centre_px=centre,
        source=Source(
            path=name,
            dialect="files",
            measurement=measurement,
            assumptions=(*notes, NO_PROBE),
            warnings=(*warnings, *doubt(measurement, sample)),
        ),
    )


def _frames_among(file: Candidate, notes: list[str]) -> tuple[str, list[Path]]:
    """The format of the frames, and the files that are of it."""
    formats = {path: format_of(path) if path.is_file() else "" for path in file.files}
    counted = Counter(kind for kind in formats.values() if kind)
    if not counted:
        raise DataError(
            f"{file.path}: none of its {len(formats)} files is TIFF, NPY, HDF5, CBF or EDF by its first bytes."
        )
    (kind, most), *others = counted.most_common()
    if others and others[0][1] > 1:
        held = ", ".join(f"{n} {FORMATS[other]}" for other, n in counted.most_common())
        raise DataError(
            f"{file.path}: holds frames of several formats ({held}); name those of the scan by a pattern with '*'."
        )
    strangers = [path for path, found in formats.items() if found != kind]
    frames = [path for path, found in formats.items() if found == kind]
    if strangers and (not file.path.is_dir() or _alike(strangers, frames)):
        raise DataError(
            f"{file.path}: {_listed(strangers)} {'is' if len(strangers) == 1 else 'are'} no {FORMATS[kind]}, unlike "
            f"the other {most}; take {'it' if len(strangers) == 1 else 'them'} out, or name the frames by a pattern "
            "with '*'."
        )
    if strangers:
        notes.append(
            f"{len(strangers)} of what is in the folder are no frames and were left out: {_listed(strangers)}."
        )
    if len(frames) < 2:
        raise DataError(f"{file.path}: holds one {FORMATS[kind]}, {frames[0].name}; one frame is no scan.")
    return kind, frames


def _alike(strangers: list[Path], frames: list[Path]) -> bool:
    """Whether one of some files is named as the frames are, so that it should have been one."""
    patterns = {_pattern(path) for path in frames}
    return any(_pattern(path) in patterns for path in strangers)


def _pattern(path: Path) -> str:
    return re.sub(r"\d+", "#", path.name)


def _listed(paths: list[Path]) -> str:
    names = ", ".join(path.name for path in paths[:_SHOWN])
    return names + (f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else "")


def _still_written(paths: list[Path], kind: str, notes: list[str]) -> list[Path]:
    """The files without the last one, where that is not whole yet."""
    try:
        read_frame(paths[-1], kind, frame_dataset(paths[-1]) if kind == "hdf5" else "")
    except (DataError, OSError):
        there = counted(len(paths) - 1, "frame is", "frames are")
        notes.append(f"{paths[-1].name} is not whole yet and was left out; {there} there.")
        return paths[:-1]
    return paths


def _of_other_size(paths: list[Path]) -> list[int]:
    """Numbers of the files whose length is not that of most."""
    sizes = [path.stat().st_size for path in paths]
    (usual, n), *_ = Counter(sizes).most_common()
    if n <= len(paths) // 2:  # compressed: lengths say nothing, and each is looked at when it is read
        return []
    return [number for number, size in enumerate(sizes) if size != usual]


def _check_gaps(name: str, paths: list[Path], numbers: list[int], options: ReadOptions, warnings: list[str]) -> bool:
    """Whether numbers of a series are missing, which is said, and refused where positions are paired with it by order.

    Raises:
        DataError: positions or a raster have a place for every number, the missing ones too.
    """
    missing = sorted(set(range(numbers[0], numbers[-1] + 1)) - set(numbers)) if numbers else []
    if not missing:
        return False
    shown = ", ".join(map(str, missing[:_SHOWN])) + (
        f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
    )
    text = counted(len(missing), "frame is", "frames are")
    text += f" missing in the series from {paths[0].name} to {paths[-1].name}: {shown}"
    places = _places(options)
    if places is not None and places != len(paths):
        raise DataError(
            f"{name}: {text}. There are {places} positions for {len(paths)} frames; take the positions with these "
            "numbers out, or find the files."
        )
    by = "in order; be sure that they have the same gaps" if places is not None else "by their numbers, or in order"
    warnings.append(f"{text}. Positions are paired with frames {by}.")
    return True


def _numbers(paths: list[Path]) -> list[int]:
    """The number in each name that counts the frames: the last one that differs; empty where names are no series."""
    parts = [re.findall(r"\d+", path.stem) for path in paths]
    if len({len(p) for p in parts}) != 1 or len({_pattern(path) for path in paths}) != 1:
        return []
    for column in reversed(range(len(parts[0]))):
        values = [int(p[column]) for p in parts]
        if len(set(values)) == len(values):
            return values if all(b > a for a, b in pairwise(values)) else []
    return []


def _places(options: ReadOptions) -> int | None:
    """How many positions the caller gives that are paired by order; None where they have numbers of frames."""
    if options.positions is not None:
        beside = read_beside(options.positions)
        return len(beside.positions) if beside.indexes is None else None
    return None if options.raster is None else options.raster[0] * options.raster[1]
