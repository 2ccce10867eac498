"""Which frames are held out: drawn once from positions and a seed, for views of a scan and for roles alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..config import SPLITS
from ..errors import ConfigError, suggest

__all__ = ["draw_heldout", "draw_subsample", "outlying_frames"]

_FAR_ABOVE = 10.0
_LEAST_FRAMES = 8
_MOST_OUTLYING = 0.02


def outlying_frames(frame_totals: NDArray[np.float64]) -> NDArray[np.int64]:
    """Frames with ten times the counts of any other, such as one with a nonsense value or another exposure.

    Totals of a scan may vary by what the sample absorbs, so one far below the others says nothing; far above *all*
    others is nothing that a sample does. At most a fiftieth of the frames, or one, can be such; of fewer than 8 frames
    none is, since too few are left to say what is usual.

    Args:
        frame_totals: (M,) float64 counts; NaN for a frame that was not looked at.

    Returns:
        (n,) int64 frame numbers, sorted.
    """
    known = np.flatnonzero(np.isfinite(frame_totals) & (frame_totals > 0))
    if len(known) < _LEAST_FRAMES:
        return np.zeros(0, np.int64)
    order = known[np.argsort(-frame_totals[known], kind="stable")]
    totals = frame_totals[order]
    most = max(1, int(_MOST_OUTLYING * len(known)))
    gaps = np.flatnonzero(totals[:most] >= _FAR_ABOVE * totals[1 : most + 1])
    return np.sort(order[: gaps[-1] + 1]).astype(np.int64) if len(gaps) else np.zeros(0, np.int64)


def draw_heldout(
    positions_px: NDArray[np.float64], test_fraction: float, seed: int, how: str = "random"
) -> NDArray[np.int64]:
    """Draw the frames to hold out.

    Args:
        positions_px: (M, 2) frame centres (y, x), object pixels.
        test_fraction: fraction of the frames; 0 holds none out.
        seed: decides the frames (``random``) or the centre of the region (``region``).
        how: ``random``, or ``region``: the frames nearest to one frame of the scan, so that their pixels are unseen.

    Returns:
        (n,) int64 frame numbers, sorted.

    Raises:
        ConfigError: nothing would be left to train on, a fraction below 0, or an unknown way to split.
    """
    if how not in SPLITS:
        raise ConfigError(f"test_split = {how!r}; allowed: {', '.join(SPLITS)}.{suggest(str(how), SPLITS)}")
    if not 0 <= test_fraction < 1:
        raise ConfigError(f"test_fraction = {test_fraction}; it must be at least 0 and below 1.")
    M = len(positions_px)
    n_test = round(M * test_fraction)
    if n_test == 0:
        return np.zeros(0, np.int64)
    if n_test >= M:
        raise ConfigError(f"test_fraction = {test_fraction} leaves no training frame of {M}.")
    rng = np.random.default_rng(seed)
    if how == "region":
        centre = positions_px[rng.integers(M)]
        order = np.argsort(np.sum((positions_px - centre) ** 2, axis=1), kind="stable")
    else:
        order = rng.permutation(M)
    return np.sort(order[:n_test]).astype(np.int64)


def draw_subsample(M: int, n_frames: int, seed: int) -> NDArray[np.int64]:
    """Draw `n_frames` of M frames without replacement, (n_frames,) int64 in scan order.

    Raises:
        ConfigError: no frame asked for, or more than there are.
    """
    if not 1 <= n_frames <= M:
        raise ConfigError(f"n_subsample = {n_frames}, but the scan has {M} frames; ask for 1 to all.")
    return np.sort(np.random.default_rng(seed).choice(M, n_frames, replace=False)).astype(np.int64)
