"""An image on the client's grid: the client keeps the centre of the object that it had, so ours has to lie there.

The client maps a pixel to metres by the centre of the array, (H−1)/2 and (W−1)/2, and its positions were counted from
the first pixel of its own array. So an array of its shape, whose first pixel is at scan coordinate (0, 0), is right;
and so is one that is larger by the same number of pixels on both sides.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["likely_grid", "on_grid"]

_WHOLE_PX = 0.01


def on_grid(
    object: NDArray[np.complex64], origin_px: NDArray[np.float64], grid: tuple[int, int]
) -> tuple[NDArray[np.complex64], tuple[int, int]]:
    """Lay an image on an array that has the centre of the client's.

    Args:
        object: (H, W) complex, 0 where no frame reached.
        origin_px: (2,) scan coordinates (y, x) of the centre of its pixel (0, 0), whole numbers.
        grid: shape of the client's array.

    Returns:
        the array, and by how many pixels it is larger than `grid` on each side in y and in x, where the image reaches
        beyond it.
    """
    rows, columns = np.flatnonzero(object.any(axis=1)), np.flatnonzero(object.any(axis=0))
    first = np.array([rows[0], columns[0]]) if len(rows) else np.zeros(2, int)
    last = np.array([rows[-1], columns[-1]]) + 1 if len(rows) else np.zeros(2, int)
    lit = object[first[0] : last[0], first[1] : last[1]]
    corner = np.round(origin_px).astype(int) + first
    beyond = np.maximum(-corner, corner + lit.shape - np.array(grid)).clip(min=0)
    out = np.zeros(tuple(np.array(grid) + 2 * beyond), np.complex64)
    y, x = corner + beyond
    out[y : y + lit.shape[0], x : x + lit.shape[1]] = lit
    return out, (int(beyond[0]), int(beyond[1]))


def likely_grid(positions_px: NDArray[np.float64]) -> tuple[tuple[int, int], bool]:
    """Shape of the client's object array where only positions (M, 2) (y, x) are known, and whether it is sure.

    The client builds an object about the middle of the bounding box of its scan. Then the least and the greatest
    position of an axis add up to the array's size less 1, a whole number.
    """
    total = positions_px.min(axis=0) + positions_px.max(axis=0)
    sides = np.round(total).astype(int) + 1
    return (int(sides[0]), int(sides[1])), bool((np.abs(total - np.round(total)) < _WHOLE_PX).all())
