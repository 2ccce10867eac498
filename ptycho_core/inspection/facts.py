"""The figures that the checks of an inspection look at, measured in one pass over the frames."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.frames import rounding
from ..data.raw import RawData

__all__ = ["SATURATED_FROM", "SATURATED_TIMES", "Facts"]

SATURATED_FROM, SATURATED_TIMES = 100, 8
"""A scan can look saturated where its highest counts are at least this, at least so many times."""

_MARKS = np.array([2**15 - 1, 2**16 - 2, 2**16 - 1, 2**31 - 1, 2**32 - 2, 2**32 - 1, 2**63 - 1, 2**64 - 1], np.float64)
"""The largest numbers of a type, and the ones below that detectors use too, by which files mark gaps and bad pixels."""


@dataclass(frozen=True)
class Facts:
    """Figures measured once, in one pass over the frames.

    Attributes:
        mean: (N, N) mean counts of each pixel; 0 in bad and in stuck pixels.
        spread: (N, N) variance of each pixel over the frames; likewise.
        stuck: (N, N) counts of the pixels that hold one nonsense value in every frame, else 0.
        peak: largest counts in a good pixel that is not stuck.
        at_peak: (N, N) in how many frames each pixel has the counts `peak`.
        near_peak: how many samples lie just below it, within 2 %; 0 where too few are at it to ask.
        figures: everything worth reporting; checks add to it.
    """

    mean: NDArray[np.float64]
    spread: NDArray[np.float64]
    stuck: NDArray[np.float64]
    peak: float
    at_peak: NDArray[np.int64]
    near_peak: int
    figures: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, raw: RawData) -> Facts:
        """Measure a scan."""
        shape, M = (raw.side, raw.side), raw.n_frames
        total, squares, times = np.zeros(shape), np.zeros(shape), np.zeros(shape, dtype=np.int64)
        low, high = np.full(shape, np.inf, np.float32), np.zeros(shape, np.float32)
        for _, counts in raw.chunks():
            for frame in counts:  # one at a time: all that is made of it stays in the cache
                total += frame
                squares += np.square(frame, dtype=np.float64)
                np.minimum(low, frame, out=low)
                times += frame == high
                np.copyto(times, 1, where=frame > high)
                np.maximum(high, frame, out=high)
        stuck = np.where(_stuck(low, high, M), high, 0).astype(np.float64)
        mean, free = total / M, np.where(stuck > 0, 0, high)
        peak = float(free.max())
        at_peak = np.where((free == peak) & (peak > 0), times, 0)
        figures = {
            "mean_counts": float(raw.frame_totals.mean()),
            "min_counts": float(raw.frame_totals.min()),
            "max_counts": float(raw.frame_totals.max()),
            "peak_pixel_counts": peak,
            "stuck_pixels": int((stuck > 0).sum()),
        }
        spread = np.maximum(squares / M - mean**2, 0)
        mean[stuck > 0] = spread[stuck > 0] = 0
        asked = peak >= SATURATED_FROM and at_peak.sum() >= SATURATED_TIMES
        return cls(mean, spread, stuck, peak, at_peak, _near_peak(raw, free, peak) if asked else 0, figures)


def _stuck(low: NDArray[np.float32], high: NDArray[np.float32], M: int) -> NDArray[np.bool_]:
    """Pixels with one value in every frame that no light has: a mark of the file's type, or far above all that varies.

    Args:
        low: (N, N) least counts of each pixel.
        high: (N, N) largest counts.
        M: frames.
    """
    same = (low == high) & (high > 0)
    if M < 2 or not same.any():
        return np.zeros_like(same)
    marked = (np.abs(high[..., None] - _MARKS) <= rounding(np.float32) * _MARKS).any(axis=-1)
    brightest = float(high[~same].max(initial=0))
    glaring = high > 10 * brightest if M >= 8 and brightest > 0 else np.zeros_like(same)
    return np.asarray(same & (marked | glaring))


def _near_peak(raw: RawData, high: NDArray[np.float32], peak: float) -> int:
    """How many samples lie within 2 % below the peak; only pixels that came so high are looked at."""
    bright = high > 0.98 * peak
    near = 0
    for _, counts in raw.chunks():
        values = counts[:, bright]
        near += int(((values > 0.98 * peak) & (values < peak)).sum())
    return near
