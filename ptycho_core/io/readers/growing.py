"""Frames of an HDF5 file that is still being written, up to the last whole one that has its position."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from ...text import counted
from ..h5_values import open_h5, whole_frames
from .arrays import Hdf5Arrays
from .stored_frames import Layout, StoredFrames, stored_frames

__all__ = ["counted_frames"]


def counted_frames(
    arrays: Hdf5Arrays, name: str, image_axes: tuple[int, int], lists: list[NDArray[Any] | None], notes: list[str]
) -> tuple[StoredFrames, list[NDArray[Any] | None]]:
    """Frames (M, …) of a dataset, counted along its first axis, and what there is of each frame, as long as they are.

    Args:
        arrays: of the file, which may still be being written.
        name: of the dataset, whose shape has been checked.
        image_axes: the (y, x) of a frame.
        lists: positions and the like, of each frame one, or None.
        notes: what is left out of a file that is still being written is added here.

    Raises:
        DataError: it is still being written, and no frame is whole yet.
    """
    shape = arrays.header(name).shape
    with open_h5(arrays.path, arrays.follow) as h5:
        growing = bool(h5.swmr_mode)
        whole = whole_frames(h5[name]) if growing else shape[0]
    if growing:
        whole = min([whole, *(len(values) for values in lists if values is not None)])
        if not whole:
            raise DataError(
                f"{arrays.path}: {name!r} is still being written and holds no whole frame yet; try again later."
            )
        notes.append(
            f"The file is still being written: of {counted(shape[0], 'frame')} the first "
            f"{counted(whole, 'is', 'are')} read."
        )
        lists = [None if values is None else np.asarray(values[:whole]) for values in lists]
    layout = replace(Layout(shape, (0,), image_axes), shape=(whole, *shape[1:]))
    return stored_frames(arrays, name, layout, "counts"), lists
