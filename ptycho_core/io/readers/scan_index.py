"""Several scans in one file whose frames are numbered by scan: ``scan_index`` says which frame is of which."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from .entries import chosen_entry

__all__ = ["frames_of_one_scan"]


def frames_of_one_scan(
    index: NDArray[Any] | None, M: int, wanted: str | None, name: str, notes: list[str]
) -> NDArray[np.int64] | None:
    """Numbers of the frames of the scan that is read, or None where they are all.

    Args:
        index: (M,) number of the scan of each frame, or None where the file has none. One whose numbers all differ
            counts frames, not scans.
        M: frames in the file.
        wanted: ``options.entry``.
        name: the file, for messages.
        notes: what was left out is added here.

    Raises:
        DataError: several scans and none chosen, which would make one image of two samples; or no such one.
    """
    values = np.zeros(0, np.int64) if index is None else np.asarray(index).ravel()
    whole = values.dtype.kind in "iuf" and np.array_equal(values, np.rint(values))
    if values.size and (len(values) != M or not whole):
        raise DataError(
            f"{name}: 'scan_index' holds {values.size} {values.dtype} values for {M} frames; it must be one whole "
            "number a frame. Write the file again without it, or with it."
        )
    scans = np.unique(values).astype(np.int64)
    if len(scans) < 2 or len(scans) == M:
        chosen_entry([str(scans[0]) if len(scans) == 1 else "0"], wanted, name)
        return None
    entry = chosen_entry([str(scan) for scan in scans], wanted, f"{name}: by its 'scan_index'")
    frames = np.flatnonzero(values == int(entry)).astype(np.int64)
    notes.append(
        f"Of {len(scans)} scans in the file, that with scan_index {entry} was read: {len(frames)} of {M} frames."
    )
    return frames
