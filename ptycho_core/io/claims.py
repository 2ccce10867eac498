"""What a recording says of its frames, against what its file can hold: nothing is read of more than can be there."""

from __future__ import annotations

import math
import os
from pathlib import Path

from ..data.frame_parts import bottom_sources
from ..data.frames import FrameSource, Hdf5Frames
from ..data.recording import Recording
from ..errors import DataError
from ..limits import MEGABYTE, Limits
from .h5_values import open_h5, places
from .readers.arrays import Hdf5Arrays
from .readers.stored_frames import StoredFrames

__all__ = ["check_claims", "most_frame_px"]

_MOST_GROWN = 100_000
"""Values that a byte of a file may stand for. Frames of a scan that was stopped soon are zeros that nobody wrote."""

_BYTES_PER_FRAME = 48  # its place, its number and its total, with copies of each


def most_frame_px(limits: Limits) -> int:
    """Pixels that a frame may have: some float64 copies of one are made."""
    return limits.array_bytes // 8


def check_claims(recording: Recording, path: Path, limits: Limits) -> None:
    """Refuse frames that are larger or more than reading may cost, or of which the file can hold next to none.

    Args:
        recording: what a reader found.
        path: the file, folder or pattern.
        limits: of reading.

    Raises:
        DataError: they are.
    """
    M, height, width = recording.frames.shape
    allow = "If it does hold that, allow more with --max_memory (Limits.memory_mb)."
    if height * width > most_frame_px(limits):
        raise DataError(
            f"{path}: frames are {height}×{width}; a frame may have {most_frame_px(limits)} pixels at most. {allow}"
        )
    most = limits.memory_mb * MEGABYTE / _BYTES_PER_FRAME
    if most < M:
        raise DataError(f"{path}: has {M} frames; {most:.0f} are read at most. {allow}")
    for source in bottom_sources(recording.frames):
        _check_stored(source, path)


def _check_stored(source: FrameSource, path: Path) -> None:
    if isinstance(source, Hdf5Frames):
        stored = _in_hdf5(source.path, source.dataset, source.follow)
    elif isinstance(source, StoredFrames) and isinstance(source.arrays, Hdf5Arrays):
        stored = _in_hdf5(source.arrays.path, source.name, source.arrays.follow)
    elif isinstance(source, StoredFrames):
        stored = _bytes_of(source.arrays.path)
    else:
        return
    if stored is not None and math.prod(source.shape) > _MOST_GROWN * stored:
        M, height, width = source.shape
        raise DataError(
            f"{path}: says that it holds {M} frames of {height}×{width}, and has {stored} bytes for them: they "
            "were never written, or it is damaged. Copy or export it again."
        )


def _in_hdf5(path: Path, name: str, follow: bool) -> int | None:
    """Bytes that are there for a dataset; None of a file that is still being written."""
    with open_h5(path, follow) as h5:
        dataset = h5[name]
        if h5.swmr_mode:
            return None
        if not dataset.is_virtual:
            return int(dataset.id.get_storage_size())
        files = {source.file_name for source in dataset.virtual_sources()}
        main = Path(dataset.file.filename)
        if any("%" in file for file in files):
            return None
        found = (next((p for p in places(file, main) if p.exists()), None) for file in files - {"."})
        return sum(_bytes_of(file) for file in found if file is not None) + ("." in files) * _bytes_of(main)


def _bytes_of(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    if not path.is_dir():
        return path.stat().st_size
    return sum(os.stat(Path(folder, name)).st_size for folder, _, names in os.walk(path) for name in names)
