"""Frames that the child reads: the parent gets the counts, and opens no file."""

from __future__ import annotations

import functools
import logging
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.frame_parts import with_parts
from ...data.frames import ArrayFrames, FrameSource, Hdf5Frames, NpzFrames, as_counts
from ...limits import DEFAULT_LIMITS, Limits
from ..readers.arrays import Loaded, NpyArrays, NpzArrays, RawArray
from ..readers.stored_frames import StoredFrames
from .reading import in_child

__all__ = ["GuardedFrames", "guarded_frames"]

_log = logging.getLogger(__name__)

_HELD_BYTES = 2**16
"""Bytes of arrays in a source from which on it holds its frames in memory, and reads no file for them."""

_COPIES = 4
"""Times the bytes of the frames asked for that reading them takes: stored, selected, as counts, sent."""


@dataclass(frozen=True)
class GuardedFrames:
    """Frames of a source that opens files, read where a damaged file can do no harm.

    Attributes:
        source: the source, pickled by this program.
        shape: (M, H, W).
        path: of the scan, for messages.
        limits: of one read.
    """

    source: bytes
    shape: tuple[int, int, int]
    path: Path
    limits: Limits = DEFAULT_LIMITS

    def read(self, frame_numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        """Counts (n, H, W) float32 of the numbered frames.

        Raises:
            DataError: a frame cannot be read; see ``in_child``.
        """
        numbers = np.asarray(frame_numbers, np.int64)
        _, height, width = self.shape
        taken = _COPIES * 8 * max(1, len(numbers)) * height * width
        counts: NDArray[np.float32] = in_child(
            _read, self.source, numbers, about=self.path, limits=self.limits, more_bytes=taken, use=_as_counts
        )
        return counts


@functools.lru_cache(maxsize=4)
def _source(pickled: bytes) -> FrameSource:
    source: FrameSource = pickle.loads(pickled)
    return source


def _read(pickled: bytes, numbers: NDArray[np.int64]) -> tuple[NDArray[Any], str]:
    """In the child: frames as they are stored, which are smaller on their way, with what they are; else as counts."""
    source = _source(pickled)
    if isinstance(source, (Hdf5Frames, StoredFrames)):
        return source.stored(numbers), source.measurement
    return source.read(numbers), "counts"


def _as_counts(read: tuple[NDArray[Any], str]) -> NDArray[np.float32]:
    """Counts, a copy, of what lies in shared memory."""
    return as_counts(*read)


def guarded_frames(source: FrameSource, path: Path, limits: Limits) -> FrameSource:
    """A source of which every part that opens files by a library is read in the child; the rest is left as it is.

    Frames in memory, and those mapped from a file without any library, need no guard.
    """
    if isinstance(source, (ArrayFrames, NpzFrames, GuardedFrames)) or not limits.guard:
        return source
    if isinstance(source, StoredFrames) and isinstance(source.arrays, (Loaded, NpyArrays, NpzArrays, RawArray)):
        return source
    composed = with_parts(source, lambda part: guarded_frames(part, path, limits))
    if composed is not None:
        return composed
    held: list[pickle.PickleBuffer] = []
    try:
        pickle.dumps(source, protocol=5, buffer_callback=held.append)
    except Exception as error:  # whatever a class of somebody else raises
        _log.info("%s: its frames are read here, since what reads them cannot be sent (%s)", path, error)
        return source
    if sum(array.raw().nbytes for array in held) > _HELD_BYTES:
        return source
    return GuardedFrames(pickle.dumps(source), source.shape, path, limits)
