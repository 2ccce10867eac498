"""The figures that the checks of an inspection look at, measured in one pass over the frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.raw import RawData
from ..io.settle.pixels import SATURATED_FROM, SATURATED_TIMES, PixelStatistics, stuck

__all__ = ["Facts"]


@dataclass(frozen=True)
class Facts:
    """Figures measured once, in one pass over the frames; of a scan too large to read, over those looked at.

    Attributes:
        mean: (N, N) mean counts of each pixel; 0 in bad and in stuck pixels.
        stuck: (N, N) counts of the pixels that hold one nonsense value in every frame, else 0.
        peak: largest counts in a good pixel that is not stuck.
        at_peak: (N, N) in how many frames each pixel has the counts `peak`.
        near_peak: how many samples lie just below it, within 2 %; 0 where too few are at it to ask.
        pixels: what the pixels held, 0 in bad and in stuck ones.
        n_looked_at: frames that were looked at.
        figures: everything worth reporting; checks add to it.
    """

    mean: NDArray[np.float64]
    stuck: NDArray[np.float64]
    peak: float
    at_peak: NDArray[np.int64]
    near_peak: int
    pixels: PixelStatistics
    n_looked_at: int
    figures: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, raw: RawData) -> Facts:
        """Measure a scan."""
        seen = PixelStatistics.of((raw.side, raw.side), _frames(raw), checked=True)
        held = np.where(stuck(seen), seen.high, 0).astype(np.float64)
        seen = seen.silenced(held > 0)
        peak = float(seen.high.max())
        at_peak = np.where((seen.high == peak) & (peak > 0), seen.times, 0)
        totals = raw.frame_totals[np.isfinite(raw.frame_totals)]
        figures = {
            "mean_counts": float(totals.mean()),
            "min_counts": float(totals.min()),
            "max_counts": float(totals.max()),
            "peak_pixel_counts": peak,
            "stuck_pixels": int((held > 0).sum()),
        }
        if raw.looked_at is not None:
            figures["frames_looked_at"] = seen.n
        asked = peak >= SATURATED_FROM and at_peak.sum() >= SATURATED_TIMES
        near = _near_peak(raw, seen.high, peak) if asked else 0
        return cls(seen.mean, held, peak, at_peak, near, seen, seen.n, figures)


def _frames(raw: RawData) -> Iterator[NDArray[np.float32]]:
    for _, counts in raw.chunks():
        yield from counts


def _near_peak(raw: RawData, high: NDArray[np.float32], peak: float) -> int:
    """How many samples lie within 2 % below the peak; only pixels that came so high are looked at."""
    bright = high > 0.98 * peak
    near = 0
    for _, counts in raw.chunks():
        values = counts[:, bright]
        near += int(((values > 0.98 * peak) & (values < peak)).sum())
    return near
