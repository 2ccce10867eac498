"""What refined positions say of the stage: an affine map, which is calibration, and a rest, which is jitter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["PositionReport", "position_report"]


@dataclass(frozen=True, kw_only=True)
class PositionReport:
    """How refined positions differ from those read: r′ − c = A (r − c) + rest, with c the mean position.

    Attributes:
        scale_y: stretch of the y axis, 1 for none.
        scale_x: stretch of the x axis.
        rotation_mrad: turn from y towards x, milliradians.
        shear_mrad: departure of the axes from a right angle, milliradians.
        rms_px: root mean square length of the whole change, object pixels.
        residual_rms_px: the same of what the affine map leaves.
        largest_px: longest change.
        at_limit: positions that the limit stopped in y or x.
    """

    scale_y: float
    scale_x: float
    rotation_mrad: float
    shear_mrad: float
    rms_px: float
    residual_rms_px: float
    largest_px: float
    at_limit: int

    def describe(self) -> str:
        """One line for people."""
        return (
            f"moved by {self.rms_px:.2f} px rms, {self.largest_px:.2f} px at most, {self.at_limit} at the limit; "
            f"affine: scale {self.scale_y:.4f} (y) {self.scale_x:.4f} (x), rotation {self.rotation_mrad:.1f} mrad, "
            f"shear {self.shear_mrad:.1f} mrad; {self.residual_rms_px:.2f} px rms beside it"
        )


def position_report(
    nominal_px: NDArray[np.float64], refined_px: NDArray[np.float64], limit_px: float
) -> PositionReport:
    """Fit the affine map by least squares.

    Args:
        nominal_px: (M, 2) positions as read (y, x).
        refined_px: (M, 2) positions as refined.
        limit_px: farthest that a position was allowed to move in y and in x.

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
    affine = np.eye(2) + extra
    rest = free - centred @ extra.T
    length = np.linalg.norm(change, axis=1)
    turn_y, turn_x = np.arctan2(affine[1, 0], affine[0, 0]), np.arctan2(-affine[0, 1], affine[1, 1])
    return PositionReport(
        scale_y=float(np.linalg.norm(affine[:, 0])),
        scale_x=float(np.linalg.norm(affine[:, 1])),
        rotation_mrad=float(500 * (turn_y + turn_x)),
        shear_mrad=float(1000 * (turn_x - turn_y)),
        rms_px=float(np.sqrt(np.mean(length**2))),
        residual_rms_px=float(np.sqrt(np.mean(np.sum(rest**2, axis=1)))),
        largest_px=float(length.max()),
        at_limit=int((np.abs(change) >= limit_px - 1e-6).any(axis=1).sum()) if limit_px > 0 else 0,
    )
