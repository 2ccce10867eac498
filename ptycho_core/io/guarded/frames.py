"""Frames that the child reads: the parent gets the counts, and opens no file."""

from __future__ import annotations

import functools
import pickle
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.frames import ArrayFrames, FrameSource, NpzFrames
from ...limits import DEFAULT_LIMITS, Limits
from .reading import in_child

__all__ = ["GuardedFrames", "guarded_frames"]

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
            _read, self.source, numbers, about=self.path, limits=self.limits, more_bytes=taken, use=np.array
        )
        return counts


@functools.lru_cache(maxsize=4)
def _source(pickled: bytes) -> FrameSource:
    source: FrameSource = pickle.loads(pickled)
    return source


def _read(pickled: bytes, numbers: NDArray[np.int64]) -> NDArray[np.float32]:
    """In the child."""
    return _source(pickled).read(numbers)


def guarded_frames(source: FrameSource, path: Path, limits: Limits) -> FrameSource:
    """A source of which every part that opens files by a library is read in the child; the rest is left as it is.

    Frames in memory, and those mapped from a file without any library, need no guard.
    """
    if isinstance(source, (ArrayFrames, NpzFrames, GuardedFrames)) or not limits.guard:
        return source
    if is_dataclass(source):
        inner: dict[str, Any] = {}
        for field in fields(source):
            value = getattr(source, field.name)
            if field.name == "base":
                inner["base"] = guarded_frames(value, path, limits)
            if field.name == "parts":
                inner["parts"] = tuple(guarded_frames(part, path, limits) for part in value)
        if inner:
            return replace(source, **inner)  # type: ignore[type-var, return-value]
    held: list[pickle.PickleBuffer] = []
    pickle.dumps(source, protocol=5, buffer_callback=held.append)
    if sum(array.raw().nbytes for array in held) > _HELD_BYTES:
        return source
    return GuardedFrames(pickle.dumps(source), tuple(source.shape), path, limits)
