"""What of an object is shown, and what was done to it for showing.

Colour limits are percentiles of the well-covered region, so that one wild pixel at the rim does not decide the picture;
what was removed or clipped is in :class:`ObjectView`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.results import Image
from ..physics.gauge import TakenOff, taken_off
from ..physics.relative import LIT_FROM

__all__ = ["LIMITS", "MAX_SHOWN_PX", "ObjectView", "object_view", "paired_views", "well_covered"]

LIMITS = (0.5, 99.5)
MAX_SHOWN_PX = 1400

_WRAPS_FROM = 1.6 * math.pi
_NEAR_PI = 2.5
_MOST_VORTICES = 0.003
"""Part of the pixels about which the phase may wind: with more, unwrapping would cut lines through the picture."""


@dataclass(frozen=True, kw_only=True)
class ObjectView:
    """What of an object is shown, and what was done to it for showing.

    Attributes:
        amplitude: (h, w) float32, cropped to the well-covered region, NaN outside it.
        phase: (h, w) float32 radians, global phase and ramp taken off, NaN outside the region; in (−π, π] or unwrapped.
        corner_px: row and column of the crop in the object.
        step_px: side of the block of object pixels averaged into one shown pixel; 1 shows every pixel.
        coverage_threshold: least coverage that counts as well covered.
        taken_off: global phase and ramp that were taken off.
        amplitude_limits: percentiles of the amplitude in the region.
        phase_limits: percentiles of the phase in the region, or (−π, π) where the phase wraps.
        phase_wraps: whether the phase fills so much of the circle, and cannot be unwrapped, that it is shown on a
            cyclic colour scale.
        phase_unwrapped: whether whole turns were added so that it goes on smoothly.
    """

    amplitude: NDArray[np.float32]
    phase: NDArray[np.float32]
    corner_px: tuple[int, int]
    step_px: int
    coverage_threshold: float
    taken_off: TakenOff
    amplitude_limits: tuple[float, float]
    phase_limits: tuple[float, float]
    phase_wraps: bool
    phase_unwrapped: bool


def well_covered(coverage: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """Smoothed coverage, and a tenth of that of the best-lit pixels: the region shown is where it is at least that.

    Smoothing over 5 pixels keeps the speckle of a probe's rim from fraying the outline. The threshold is 0, so that
    everything is shown, when nothing is lit.
    """
    from scipy.ndimage import uniform_filter

    smooth = np.asarray(uniform_filter(coverage, 5, mode="constant"), dtype=np.float32)
    lit = smooth[smooth > 0]
    return smooth, LIT_FROM * float(np.percentile(lit, 95)) if lit.size else 0.0


def _box(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _shrunk(values: NDArray[Any], mask: NDArray[np.bool_], step: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Average the masked-in pixels of step × step blocks; a block with none is masked out."""
    if step == 1:
        return values, mask
    height, width = (-(-n // step) * step for n in values.shape)
    pad = ((0, height - values.shape[0]), (0, width - values.shape[1]))
    blocks = (height // step, step, width // step, step)
    n = np.pad(mask, pad).reshape(blocks).sum(axis=(1, 3))
    total = np.pad(np.where(mask, values, 0), pad).reshape(blocks).sum(axis=(1, 3))
    return (total / np.maximum(n, 1)).astype(values.dtype), n > 0


def _widened(low: float, high: float) -> tuple[float, float]:
    """Limits with room between them: a constant image is drawn mid-grey, not as noise of its last bit."""
    least = 1e-3 * max(abs(low), abs(high), 1e-3)
    middle = (low + high) / 2
    return (low, high) if high - low > least else (middle - least, middle + least)


def _limits(values: NDArray[np.float32], mask: NDArray[np.bool_]) -> tuple[float, float]:
    low, high = (float(v) for v in np.percentile(values[mask], LIMITS))
    return low, high


def _vortices(phase: NDArray[np.float32], mask: NDArray[np.bool_]) -> float:
    """Part of the squares of four pixels of a region about which the phase winds: there it cannot be unwrapped."""
    turns = np.zeros((phase.shape[0] - 1, phase.shape[1] - 1))
    corners = (phase[:-1, :-1], phase[:-1, 1:], phase[1:, 1:], phase[1:, :-1])
    for here, there in zip(corners, (*corners[1:], corners[0]), strict=True):
        turns += np.angle(np.exp(1j * (there - here)))
    whole = mask[:-1, :-1] & mask[:-1, 1:] & mask[1:, 1:] & mask[1:, :-1]
    return float(np.mean(np.abs(turns[whole]) > math.pi)) if whole.any() else 1.0


def _unwrapped(phase: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32] | None:
    """The phase with whole turns added so that it goes on smoothly, its median in (−π, π]; None where none is needed.

    Neither is it where it winds about too many points: a line would be cut from each to another.
    """
    near_pi = np.abs(phase[mask]) > _NEAR_PI
    if near_pi.mean() < 1e-3 or min(phase.shape) < 3 or _vortices(phase, mask) > _MOST_VORTICES:
        return None
    from skimage.restoration import unwrap_phase

    masked = np.ma.array(phase, mask=~mask)
    smooth = np.asarray(np.ma.getdata(unwrap_phase(masked, rng=0)), np.float64)  # type: ignore[no-untyped-call,unused-ignore]
    turns = np.round((smooth - phase) / (2 * math.pi))
    turns -= np.round(np.median((phase + 2 * math.pi * turns)[mask]) / (2 * math.pi))
    return (phase + 2 * math.pi * turns).astype(np.float32)


def object_view(
    obj: NDArray[np.complex64], coverage: NDArray[np.float32], *, window: tuple[slice, slice] | None = None
) -> ObjectView:
    """Prepare an object for display.

    Args:
        obj: (H, W) complex64.
        coverage: (H, W) float32.
        window: rows and columns to show; None shows the box of what is well covered.
    """
    smooth, threshold = well_covered(coverage)
    mask = smooth >= threshold
    rows, columns = _box(mask) if window is None or not mask[window].any() else window
    shape = (rows.stop - rows.start, columns.stop - columns.start)
    step = max(1, -(-max(shape) // MAX_SHOWN_PX))
    off = taken_off(obj, coverage)
    flat = obj[rows, columns] * np.conj(off.wave(shape, (rows.start, columns.start)))
    shown, mask = _shrunk(flat, mask[rows, columns], step)
    turned = np.angle(shown).astype(np.float32)
    smooth_phase = _unwrapped(turned, mask)
    phase = turned if smooth_phase is None else smooth_phase
    amplitude = np.abs(shown).astype(np.float32)
    low, high = _limits(phase, mask)
    wraps = smooth_phase is None and high - low > _WRAPS_FROM
    return ObjectView(
        amplitude=np.where(mask, amplitude, np.float32(np.nan)),
        phase=np.where(mask, phase, np.float32(np.nan)),
        corner_px=(rows.start, columns.start),
        step_px=step,
        coverage_threshold=threshold,
        taken_off=off,
        amplitude_limits=_widened(*_limits(amplitude, mask)),
        phase_limits=(-math.pi, math.pi) if wraps else _widened(low, high),
        phase_wraps=wraps,
        phase_unwrapped=smooth_phase is not None,
    )


def paired_views(first: Image, last: Image) -> tuple[ObjectView, ObjectView]:
    """Two images of one scan on one scale, and of one region where both canvases have it.

    Args:
        first: what was gone on from.
        last: what became of it; its region is shown.
    """
    after = object_view(last.object, last.coverage)
    step = after.step_px
    corner = np.array(after.corner_px) + np.round(np.asarray(last.origin_px) - np.asarray(first.origin_px)).astype(int)
    end = corner + step * np.array(after.phase.shape)
    end = np.minimum(end, corner + np.array(last.object.shape) - after.corner_px)
    fits = (corner >= 0).all() and (end <= first.object.shape).all()
    window = (slice(int(corner[0]), int(end[0])), slice(int(corner[1]), int(end[1]))) if fits else None
    before = object_view(first.object, first.coverage, window=window)
    wraps = before.phase_wraps or after.phase_wraps

    def joined(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
        return min(one[0], other[0]), max(one[1], other[1])

    common: dict[str, Any] = {
        "amplitude_limits": joined(before.amplitude_limits, after.amplitude_limits),
        "phase_limits": joined(before.phase_limits, after.phase_limits),
        "phase_wraps": wraps,
    }
    if wraps:  # both around the circle, or they could not be told apart
        common |= {"phase_limits": (-math.pi, math.pi), "phase_unwrapped": False}
        before, after = (replace(view, phase=_around(view.phase)) for view in (before, after))
    return replace(before, **common), replace(after, **common)


def _around(phase: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(np.angle(np.exp(1j * phase)), np.float32)
