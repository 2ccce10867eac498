"""Patches of an object on the integer grid: extraction and accumulation, an exact adjoint pair (FM-1).

``extract`` reads windows, ``accumulate`` adds windows; ⟨extract(O), Q⟩ = ⟨O, accumulate(Q)⟩ for every O and Q. Nothing
is interpolated: the sub-pixel rest of a position lives in the probe.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

__all__ = ["accumulate", "check_inside", "extract", "merge"]


def check_inside(corners_px: NDArray[np.int64], N: int, shape: tuple[int, int]) -> None:
    """Refuse corners (J, 2) whose patches of side N leave an object of the given shape, with a ``DataError``."""
    if len(corners_px) == 0:
        return
    low, high = corners_px.min(axis=0), corners_px.max(axis=0) + N
    if (low < 0).any() or (high > np.array(shape)).any():
        raise DataError(
            f"patches of side {N} with corners from {low.tolist()} to {(high - N).tolist()} do not fit the object "
            f"of shape {tuple(shape)}; enlarge it, no patch is clipped."
        )


def extract(obj: NDArray[Any], corners_px: NDArray[np.int64], N: int) -> NDArray[Any]:
    """Cut out Q_j[m] = O[n_j + m].

    Args:
        obj: (H, W) object.
        corners_px: (J, 2) integer corners (y, x).
        N: side of a patch.

    Returns:
        (J, N, N), same dtype.

    Raises:
        DataError: a patch leaves the object.
    """
    check_inside(corners_px, N, obj.shape)
    if len(corners_px) == 0:
        return np.zeros((0, N, N), dtype=obj.dtype)
    windows = np.lib.stride_tricks.sliding_window_view(obj, (N, N))
    return windows[corners_px[:, 0], corners_px[:, 1]].copy()


def accumulate(patches: NDArray[Any], corners_px: NDArray[np.int64], shape: tuple[int, int]) -> NDArray[Any]:
    """Add patches up: O[n_j + m] += Q_j[m], the adjoint of :func:`extract`.

    Args:
        patches: (J, N, N).
        corners_px: (J, 2) integer corners (y, x).
        shape: (H, W) of the result.

    Returns:
        (H, W), same dtype as the patches.

    Raises:
        DataError: a patch leaves the object.
    """
    N = patches.shape[-1]
    check_inside(corners_px, N, shape)
    out = np.zeros(shape, dtype=patches.dtype)
    for patch, (y, x) in zip(patches, corners_px, strict=True):
        out[y : y + N, x : x + N] += patch
    return out


def merge(
    patches: NDArray[Any], weights: NDArray[Any], corners_px: NDArray[np.int64], shape: tuple[int, int]
) -> NDArray[Any]:
    """Weighted mean of overlapping patches, O = Σ w_j Q_j / Σ w_j, and 0 where no weight falls (FM-7).

    Args:
        patches: (J, N, N) complex.
        weights: (J, N, N) real ≥ 0.
        corners_px: (J, 2) integer corners (y, x).
        shape: (H, W) of the canvas.

    Returns:
        (H, W) complex.
    """
    numerator = accumulate(patches * weights, corners_px, shape)
    denominator = accumulate(weights, corners_px, shape)
    lit = denominator > 0
    return np.where(lit, numerator / np.where(lit, denominator, 1), 0)
