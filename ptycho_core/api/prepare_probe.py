"""The light of the beam in a mean pattern, and the probe that a scan without one starts from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..data.raw import RawData
from ..errors import DataError

__all__ = ["light_pattern"]

_MOST_FRAMES = 2000


def light_pattern(raw: RawData, frames: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean counts (N, N) of some frames (n,), evenly drawn where there are many, with the background taken off.

    Raises:
        DataError: the background accounts for every count.
    """
    if len(frames) > _MOST_FRAMES:
        frames = frames[np.linspace(0, len(frames) - 1, _MOST_FRAMES).astype(np.int64)]
    pattern = raw.subset(frames).mean_pattern()
    if raw.background is not None:
        pattern = np.maximum(pattern - np.where(True if raw.mask is None else raw.mask, raw.background, 0), 0)
    if not pattern.any():
        raise DataError(
            f"{raw.source.path or 'scan'}: it has no probe, and none can be estimated, because the background "
            "accounts for every count; give a probe, or the right background."
        )
    return pattern
