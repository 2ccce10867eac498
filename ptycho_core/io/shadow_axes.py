"""How positions lie against frames that move as one picture: the motion's matrix says it, at no cost (FIND-4).

With the sample out of focus its shadow moves by s = ∓κ r over the detector as the beam moves by r on it, the minus sign
downstream of the focus and for every near field. Where positions are stored as r′ with r = W R(a) r′, R(a) a turn and W
one of the eight orientations, s = A r′ with A = ∓κ W R(a). So A/κ gives W and a, in a far field up to a turn by 180°,
which goes with the sign of the defocus.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..data.orientation import axes_of_motion
from ..data.raw import RawData
from .far_field import ShadowMotion, measure_shadow_motion

__all__ = ["ShadowAxes", "axes_of_shadow"]

_TURNED_FROM_DEG = 3.0  # the motion of some hundred pairs of frames is known to a degree


@dataclass(frozen=True)
class ShadowAxes:
    """How positions lie against the frames.

    Attributes:
        rotate_deg: a, what positions need first, −45° to 45°.
        orientation: W, what they need then; in a far field it or its turn by 180°.
        agreement: part of the pairs of frames that move so.
    """

    rotate_deg: float
    orientation: str
    agreement: float

    @property
    def turned(self) -> bool:
        """Whether the turn is more than the motion is uncertain by."""
        return abs(self.rotate_deg) > _TURNED_FROM_DEG


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
    return ShadowAxes(angle, word, found.agreement)
