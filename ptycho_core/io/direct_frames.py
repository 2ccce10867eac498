"""Frames that lie in an HDF5 file as they are, in one piece: they are mapped from it, and no library reads them.

A damaged file cannot lead NumPy anywhere: place, shape and type were told in the child, and held against the size of
the file. So such frames need no child, and are read as fast as the disk gives them.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from ..data.frame_parts import with_parts
from ..data.frames import FrameSource, Hdf5Frames, NpzFrames
from .h5_values import open_h5
from .readers.arrays import ArrayHeader, Hdf5Arrays, RawArray
from .readers.stored_frames import Layout, StoredFrames

__all__ = ["direct_frames"]

_LEAST_BYTES = 2**24
"""Of frames for which it matters how they are read."""


def direct_frames(source: FrameSource) -> FrameSource:
    """A source of which every part whose frames lie in an HDF5 file in one piece is mapped; the rest is as it is."""
    if isinstance(source, Hdf5Frames):
        found = _in_one_piece(source.path, source.dataset, source.stored_shape, source.follow)
        return source if found is None else _of_hdf5(source, found)
    if isinstance(source, StoredFrames):
        if not isinstance(source.arrays, Hdf5Arrays):
            return source
        found = _in_one_piece(source.arrays.path, source.name, source.layout.shape, source.arrays.follow)
        return source if found is None else replace(source, arrays=found, name="frames")
    return with_parts(source, direct_frames) or source


def _in_one_piece(path: Path, name: str, shape: tuple[int, ...], follow: bool) -> RawArray | None:
    """Where the values of a dataset lie in their file, one after another; None where they do not."""
    import h5py

    with open_h5(path, follow) as h5:
        dataset = h5[name]
        made = dataset.id.get_create_plist()
        if h5.swmr_mode or made.get_layout() != h5py.h5d.CONTIGUOUS or made.get_external_count():
            return None
        if dataset.dtype.kind not in "iuf" or dataset.id.get_type() != h5py.h5t.py_create(dataset.dtype):
            return None
        offset, file = dataset.id.get_offset(), Path(dataset.file.filename)
        n_bytes = math.prod(shape) * dataset.dtype.itemsize
        if offset is None or dataset.shape != shape or n_bytes < _LEAST_BYTES:
            return None
        if offset + n_bytes > file.stat().st_size:
            return None
        return RawArray(file, ArrayHeader(shape, dataset.dtype), offset)


def _of_hdf5(source: Hdf5Frames, array: RawArray) -> FrameSource:
    axes, shape = (source.frame_axes, source.image_axes), source.stored_shape
    if axes == ((0,), (1, 2)) and len(shape) == 3:
        stored = (shape[0], shape[1], shape[2])
        return NpzFrames(array.path, array.offset, array.of.dtype.str, stored, measurement=source.measurement)
    used = {*source.frame_axes, *source.image_axes}
    fixed = tuple((axis, 0) for axis in range(len(shape)) if axis not in used)
    return StoredFrames(array, "frames", Layout(shape, *axes, fixed), source.measurement)
