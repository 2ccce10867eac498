"""Scans whose axes disagree with their positions: negate a scan coordinate, exchange the axes of the frames."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .frames import TransposedFrames
from .raw import RawData

__all__ = ["orient_scan"]


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False
    return array


def _transposed(plane: NDArray[Any] | None) -> NDArray[Any] | None:
    return None if plane is None else _frozen(np.ascontiguousarray(plane.swapaxes(-2, -1)))


def orient_scan(raw: RawData, *, flip_y: bool = False, flip_x: bool = False, transpose: bool = False) -> RawData:
    """Return the scan with scan coordinates negated and the axes of every patch exchanged; frames stay lazy.

    Exchanging the axes of a patch means exchanging those of frames, mask, background and probe, which leaves the
    forward model as it is: the far field of a transposed wave is the transposed far field. Positions are not
    exchanged. An object given with the scan is left out when anything changes, because it cannot be known in which of
    the two orientations it was made; ``source.assumptions`` says so.

    Args:
        raw: the scan.
        flip_y: negate the y scan coordinate.
        flip_x: negate the x scan coordinate.
        transpose: exchange the axes of every patch.
    """
    if not (flip_y or flip_x or transpose):
        return raw
    words = [f"the {axis} scan coordinate was negated" for axis, flip in (("y", flip_y), ("x", flip_x)) if flip]
    if transpose:
        words.append("the axes of every frame, the mask, the background and the probe were exchanged")
    if raw.object_guess is not None:
        words.append("the object given with the scan was left out, its orientation being unknown after that")
    signs = np.array([-1.0 if flip_y else 1.0, -1.0 if flip_x else 1.0])
    oriented = replace(
        raw,
        positions_px=_frozen(raw.positions_px * signs),
        object_guess=None,
        source=replace(raw.source, assumptions=(*raw.source.assumptions, *words)),
    )
    if not transpose:
        return oriented
    return replace(
        oriented,
        frames=TransposedFrames(raw.frames),
        probe=_transposed(raw.probe),
        mask=_transposed(raw.mask),
        background=_transposed(raw.background),
    )
