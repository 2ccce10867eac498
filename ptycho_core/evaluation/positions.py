"""What refined positions say of the stage: an affine map, which is calibration, and a rest, which is jitter."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..data.findings import PositionReport

__all__ = ["position_report"]


def position_report(
    nominal_px: NDArray[np.float64], refined_px: NDArray[np.float64], limit_px: float, *, affine: bool = False
) -> PositionReport:
    """Fit the affine map by least squares.

    Args:
        nominal_px: (M, 2) positions as read (y, x).
        refined_px: (M, 2) positions as refined.
        limit_px: farthest that a position was allowed to move in y and in x.
        affine: whether the limit counted from where the affine map of all puts a position.

    Returns:
        The report; the map is the identity where the positions lie on a line or are fewer than three.
    """
    centred = nominal_px - nominal_px.mean(axis=0)
    change = refined_px - nominal_px
    free = change - change.mean(axis=0)
    if len(nominal_px) >= 3 and np.linalg.matrix_rank(centred) == 2:
        extra = np.linalg.lstsq(centred, free, rcond=None)[0].T
    else:
        extra = np.zeros((2, 2))
    matrix = np.eye(2) + extra
    rest = free - centred @ extra.T
    length = np.linalg.norm(change, axis=1)
    turn_y, turn_x = np.arctan2(matrix[1, 0], matrix[0, 0]), np.arctan2(-matrix[0, 1], matrix[1, 1])
    return PositionReport(
        scale_y=float(np.linalg.norm(matrix[:, 0])),
        scale_x=float(np.linalg.norm(matrix[:, 1])),
        rotation_mrad=float(500 * (turn_y + turn_x)),
        shear_mrad=float(1000 * (turn_x - turn_y)),
        rms_px=float(np.sqrt(np.mean(length**2))),
        residual_rms_px=float(np.sqrt(np.mean(np.sum(rest**2, axis=1)))),
        largest_px=float(length.max()),
        at_limit=int((np.abs(rest if affine else change) >= limit_px - 1e-6).any(axis=1).sum()) if limit_px > 0 else 0,
    )
