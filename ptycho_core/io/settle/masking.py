"""Which detector pixels are good: the file's mask, one that is given, and what values mean that no light has."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...data.recording import Recording
from ...errors import DataError
from ...reader_protocol import ReadOptions

__all__ = ["good_pixels_of"]


def good_pixels_of(
    recording: Recording, options: ReadOptions, name: str, notes: list[str], warnings: list[str]
) -> NDArray[np.bool_] | None:
    """Good pixels (H, W) of the frames as stored, or None where all are.

    Raises:
        DataError: a mask of another shape than the frames.
    """
    mask = recording.mask
    if mask is None:
        return None
    if mask.shape != recording.frames.shape[1:]:
        height, width = recording.frames.shape[1:]
        raise DataError(f"{name}: the mask has shape {mask.shape} but frames are {height}×{width}.")
    return mask.astype(bool)
