"""Raw files of an EMPAD detector: float32 frames of 130 × 128 on a raster; the last two rows are no pixels.

Such a file has no first bytes to know it by. It is one where its name ends in ``.raw`` and its length is that of whole
frames. The raster is in the name that the detector's program gives (``scan_x256_y128.raw``: 256 columns, 128 rows), in
``--raster``, or square. Frames are in the units of the detector's converter, so many to an electron.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np

from ...data.recording import Recording
from ...errors import DataError
from ...plugins.hookspecs import hookimpl
from ...reader_protocol import ReaderSpec, ReadOptions
from ..candidate import Candidate
from .arrays import ArrayHeader, RawArray
from .bare import EMPAD_SHAPE, bare_recording

__all__ = ["ptycho_reader", "read", "recognises"]

_FRAME_BYTES = 4 * math.prod(EMPAD_SHAPE)
_NAMED = re.compile(r"_x(\d+)_y(\d+)", re.IGNORECASE)


@hookimpl
def ptycho_reader() -> ReaderSpec:
    """Describe the dialect."""
    return ReaderSpec(
        name="empad",
        title="EMPAD: .raw with float32 frames of 130 × 128 on a raster",
        kind="other",
        module=__name__,
        protocol_version=2,
        priority=10,
        one_scan=True,
    )


def recognises(file: Candidate) -> bool:
    """Whether a file is called ``.raw`` and holds whole frames of an EMPAD, or is named as its program names them."""
    if file.kind != "other" or file.path.suffix.lower() != ".raw" or not file.path.is_file():
        return False
    size = file.path.stat().st_size
    return size >= 2 * _FRAME_BYTES and (size % _FRAME_BYTES == 0 or _NAMED.search(file.path.name) is not None)


def read(file: Candidate, options: ReadOptions) -> Recording:
    """Read the frames; they stay on disk.

    Args:
        file: a raw file.
        options: `raster` where name and number of frames do not tell it; `follow` takes the whole frames that are
            there; where the frames were taken.

    Raises:
        DataError: no whole frames, or no raster.
    """
    size = file.path.stat().st_size
    M = size // _FRAME_BYTES
    if size % _FRAME_BYTES and not options.follow:
        raise DataError(
            f"{file.path}: has {size} bytes, {M} frames of {_FRAME_BYTES} and a part of one. Copy it again, or read "
            "its whole frames with --follow while it is being written."
        )
    notes: list[str] = []
    raster = _raster(file.path, M, options, notes)
    shape = (*(raster or (M,)), *EMPAD_SHAPE)
    arrays = RawArray(file.path, ArrayHeader(shape, np.dtype("<f4")))
    return bare_recording(arrays, "frames", options, "empad", notes, detector=True)


def _raster(path: Path, M: int, options: ReadOptions, notes: list[str]) -> tuple[int, int] | None:
    """(Ny, Nx) of the scan; None where it is no raster, with positions beside it, or another than is given."""
    named = _NAMED.search(path.name)
    if options.raster is not None:
        return options.raster if math.prod(options.raster) == M else None
    if named is not None and int(named[1]) * int(named[2]) == M:
        notes.append(f"The raster of {named[2]} × {named[1]} (y, x) is that in the name of the file.")
        return int(named[2]), int(named[1])
    if named is not None and options.follow and int(named[1]) <= M:
        rows = M // int(named[1])
        notes.append(f"The file is still being written: {rows} of the {named[2]} rows of its name are there whole.")
        return rows, int(named[1])
    side = math.isqrt(M)
    if side * side == M:
        notes.append(f"Nothing says the raster of {M} frames; it was taken as square, {side} × {side}.")
        return side, side
    if options.positions is not None:
        return None
    raise DataError(f"{path}: holds {M} frames of 130×128, and nothing says on which raster; give --raster NY,NX.")
