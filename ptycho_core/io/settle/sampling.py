"""Which frames are looked at before all are read."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["spread_frames"]


def spread_frames(M: int, most: int | None = None, look_at: int | None = None) -> NDArray[np.int64]:
    """Numbers (n,) of frames spread over a scan.

    Args:
        M: frames of the scan.
        most: of them, or None for all that may be looked at.
        look_at: most that may be looked at at all, or None; the same ones every time.
    """
    among = np.arange(M)
    for limit in (look_at, most):
        if limit is not None and limit < len(among):
            among = among[np.unique(np.linspace(0, len(among) - 1, limit).astype(np.int64))]
    return among.astype(np.int64)
