"""How positions lie against frames that move as one picture: the motion's matrix says it, at no cost (FIND-4).

With the sample out of focus its shadow moves by s = ∓κ r over the detector as the beam moves by r on it, the minus sign
downstream of the focus and for every near field. Where positions are stored as r′ with r = R(a) W r′, W one of the
eight orientations and R(a) a turn, s = A r′ with A = ∓κ R(a) W. So A/κ gives W and a, in a far field up to a turn by
180°, which goes with the sign of the defocus.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..data.orientation import ORIENTATIONS, matrix_of
from ..data.raw import RawData
from .far_field import ShadowMotion, measure_shadow_motion

__all__ = ["ShadowAxes", "axes_of_motion", "axes_of_shadow"]

_TURNED_FROM_DEG = 3.0  # the motion of some hundred pairs of frames is known to a degree


@dataclass(frozen=True)
class ShadowAxes:
    """How positions lie against the frames.

    Attributes:
        orientation: W, what positions need first; in a far field it or its turn by 180°.
        rotate_deg: a, what they need then, −45° to 45°.
        agreement: part of the pairs of frames that move so.
    """

    orientation: str
    rotate_deg: float
    agreement: float

    @property
    def turned(self) -> bool:
        """Whether the turn is more than the motion is uncertain by."""
        return abs(self.rotate_deg) > _TURNED_FROM_DEG


def axes_of_motion(matrix: NDArray[np.float64], *, near: bool) -> tuple[str, float]:
    """W and a (degrees) of A = ∓κ R(a) W with the least turn; the minus sign alone in a near field.

    Args:
        matrix: A, (2, 2) detector pixels (y, x) for each object pixel (y, x) that the beam moves.
        near: whether the field is near. In a far field either sign may be, and the one that needs no change is taken.
    """
    choices = []
    for sign in (-1.0,) if near else (-1.0, 1.0):
        for word in ORIENTATIONS:
            turn = sign * np.asarray(matrix) @ matrix_of(word).T
            if np.linalg.det(turn) > 0:
                angle = math.degrees(math.atan2(turn[1, 0] - turn[0, 1], turn[0, 0] + turn[1, 1]))
                choices.append((round(abs(angle), 6), ORIENTATIONS.index(word), word, angle))
    _, _, word, angle = min(choices)
    return word, angle


def axes_of_shadow(raw: RawData, motion: ShadowMotion | None = None) -> ShadowAxes | None:
    """How positions lie against the frames of a scan, where they move as one picture.

    Args:
        raw: the scan.
        motion: of its frames, where it has been measured.

    Returns:
        The axes, or None where the frames do not move so.
    """
    found = measure_shadow_motion(raw.frames, raw.positions_px, raw.mask) if motion is None else motion
    if found is None or not found.consistent:
        return None
    word, angle = axes_of_motion(np.array(found.matrix), near=raw.propagation.is_near)
    return ShadowAxes(word, angle, found.agreement)
