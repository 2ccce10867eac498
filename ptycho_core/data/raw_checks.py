"""What arrays must be to make a scan, checked once (specs/10-data, DATA-1)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DataError
from ..limits import DEFAULT_LIMITS, limits_at_work, memory_left
from ..text import counted
from .frames import ArrayFrames, FrameSource

__all__ = [
    "MAX_CANVAS_PX",
    "check_canvas",
    "check_counts",
    "checked_background",
    "checked_frames",
    "checked_mask",
    "checked_positions",
    "checked_probe",
    "read_only",
]

MAX_CANVAS_PX = DEFAULT_LIMITS.canvas_px
"""Most object pixels that the positions of a scan may span unless a caller allows more; others are refused unread."""

_BYTES_PER_PX = 16
"""Of an object (complex64), its coverage and a step of it: with less memory than that there is no image."""

_MOST_EMPTY = 1000
"""Times that a canvas may be larger than all frames together: two fields of a sample lie apart, not a world apart."""

_SMALL_CANVAS_PX = 2**22
"""A canvas that is allowed to any scan."""

_FAR_AWAY = 10.0  # times what nine tenths of the frames and a frame's side span: nothing that a scan does


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """A view of an array that cannot be written through."""
    array = array.view() if array.flags.owndata or array.base is not None else array
    array.flags.writeable = False
    return array


def checked_frames(counts: ArrayLike | FrameSource, name: str) -> FrameSource:
    """A source of frames (M, N, N), M at least 1; an array that its owner can still write to is copied.

    Args:
        counts: an array, or a source, which is taken as it is.
        name: of the scan, for messages.

    Raises:
        DataError: another shape, no frames, or no real numbers.
    """
    if isinstance(counts, (np.ndarray, list, tuple)) or not hasattr(counts, "read"):
        try:
            values = np.asarray(counts)
        except ValueError as error:
            raise DataError(f"{name}: frames must be one array (M, N, N): {error}.") from error
        if not np.issubdtype(values.dtype, np.number) and values.dtype != bool:
            raise DataError(f"{name}: frames hold {values.dtype} values; they must be real numbers.")
        if np.iscomplexobj(values):
            raise DataError(f"{name}: frames are complex; a detector records counts. Pass |wave|² in photons.")
        frames: FrameSource = ArrayFrames(read_only(values.copy() if values.flags.writeable else values))
    else:
        frames = counts  # type: ignore[assignment]
    if len(frames.shape) != 3 or frames.shape[1] != frames.shape[2]:
        raise DataError(f"{name}: frames have shape {frames.shape}; they must be (M, N, N).")
    if frames.shape[0] == 0:
        raise DataError(f"{name}: no frames.")
    return frames


def checked_positions(positions: ArrayLike, M: int, name: str) -> NDArray[np.float64]:
    """Positions (M, 2) float64 (y, x), object pixels, read-only.

    Raises:
        DataError: another shape, not finite, all the same, or metres by their size.
    """
    try:
        if np.iscomplexobj(positions):
            raise TypeError("complex")
        out = np.array(positions, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name}: positions_px must be numbers of shape (M, 2), (y, x) in object pixels.") from error
    if out.ndim != 2 or out.shape[1] != 2:
        raise DataError(f"{name}: positions_px has shape {out.shape}; it must be (M, 2), each row (y, x).")
    if len(out) != M:
        raise DataError(f"{name}: {M} frames but {len(out)} positions; every frame needs exactly one position.")
    bad = ~np.isfinite(out).all(axis=1)
    if bad.any():
        first = int(bad.argmax())
        those = counted(int(bad.sum()), "position is", "positions are")
        raise DataError(f"{name}: {those} not finite (first: frame {first}); leave such frames out.")
    span = np.ptp(out, axis=0)
    if M > 1 and not span.any():
        raise DataError(f"{name}: all {M} positions are the same point; ptychography needs a scan.")
    if M > 1 and span.max() < 1e-2:
        raise DataError(
            f"{name}: positions span {span.max():.3g} pixels; by their size they are metres. "
            "Divide them by the object pixel size and pass pixels."
        )
    return read_only(out)


def check_canvas(positions: NDArray[np.float64], N: int, numbers: NDArray[Any], name: str) -> None:
    """Refuse positions that span more than an object can be, before anything is allocated for one.

    Raises:
        DataError: they do; the frame that lies farthest from the others is named.
    """
    height, width = (float(extent) + N for extent in np.ptp(positions, axis=0))
    most = max(limits_at_work().canvas_px, len(positions) * N**2)  # frames that overlap have more than what they cover
    allowed = min(most, max(_MOST_EMPTY * len(positions) * N**2, _SMALL_CANVAS_PX))
    away = np.abs(positions - np.median(positions, axis=0)).max(axis=1)
    frame = int(away.argmax())
    usual = float(np.quantile(away, 0.9)) + N
    lost = away > _FAR_AWAY * usual
    if lost.any() and lost.sum() <= max(1, len(away) // 50):
        raise DataError(
            f"{name}: frame {int(numbers[frame])} lies {away[frame]:.4g} object pixels from the middle of all; nine "
            f"tenths of the frames lie within {usual:.4g} of it: the position of {int(lost.sum())} frames cannot be "
            "right. Leave them out (--frames), or correct them."
        )
    left = memory_left()
    if height * width <= allowed and left is not None and _BYTES_PER_PX * height * width > left:
        raise DataError(
            f"{name}: positions span {height - N:.4g} × {width - N:.4g} object pixels, which takes "
            f"{_BYTES_PER_PX * height * width / 1e9:.3g} GB of memory, and {left / 1e9:.3g} GB are left. Use fewer "
            "frames (--frames), or a smaller window (--crop) or binning (--bin), or a machine with more."
        )
    if height * width <= allowed:
        return
    allow = " If all of them are right, allow more with --max_canvas (Limits.canvas_px)." if allowed == most else ""
    raise DataError(
        f"{name}: positions span {height - N:.4g} × {width - N:.4g} object pixels, an object of {height * width:.3g} "
        f"pixels; at most {allowed} are allowed for {len(positions)} frames of {N}×{N}. Frame {int(numbers[frame])} "
        f"lies farthest, {away[frame]:.4g} pixels from the middle of all, whose median distance is "
        f"{float(np.median(away)):.4g}: leave it out (--frames), or correct the unit of the positions "
        f"(--position_unit) or the pixel size.{allow}"
    )


def checked_probe(probe: ArrayLike | None, N: int, name: str) -> NDArray[np.complex64] | None:
    """A probe (P, N, N) complex64, read-only, or None.

    Raises:
        DataError: another side, zero everywhere, or not finite.
    """
    if probe is None:
        return None
    out = np.array(probe)
    if out.ndim == 2:
        out = out[None]
    if out.ndim != 3 or out.shape[1:] != (N, N):
        raise DataError(
            f"{name}: the probe has shape {np.shape(probe)} but frames are {N}×{N}; it must be ({N}, {N}) or "
            f"(P, {N}, {N}). Crop or pad it (in the far field, resample it) or leave it out to have one estimated."
        )
    if not np.issubdtype(out.dtype, np.number):
        raise DataError(f"{name}: the probe holds {out.dtype} values; it must hold complex numbers.")
    out = out.astype(np.complex64)
    if not np.isfinite(out).all():
        raise DataError(f"{name}: the probe holds NaN or infinite values.")
    if not out.any():
        raise DataError(f"{name}: the probe is zero everywhere; leave it out to have one estimated from the data.")
    return read_only(out)


def _checked_plane(plane: ArrayLike | None, N: int, name: str, what: str, dtype: type) -> NDArray[Any] | None:
    """A plane (N, N) of a dtype, read-only, or None; `what` it is stands in messages.

    Raises:
        DataError: another shape, or no real numbers.
    """
    if plane is None:
        return None
    try:
        if np.iscomplexobj(plane):
            raise TypeError("complex values")
        out: NDArray[Any] = np.array(plane, dtype=dtype)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name}: the {what} must be real numbers of shape ({N}, {N}): {error}.") from error
    if out.shape != (N, N):
        raise DataError(f"{name}: the {what} has shape {out.shape} but frames are {N}×{N}.")
    return read_only(out)


def checked_mask(mask: ArrayLike | None, N: int, name: str) -> NDArray[np.bool_] | None:
    """A mask (N, N) bool, True = good pixel, read-only, or None.

    Raises:
        DataError: another shape, or no good pixel.
    """
    good = _checked_plane(mask, N, name, "mask", bool)
    if good is not None and not good.any():
        raise DataError(f"{name}: the mask hides every pixel (True means good; is it inverted?).")
    return good


def checked_background(background: ArrayLike | None, N: int, name: str) -> NDArray[np.float32] | None:
    """Expected background counts (N, N) float32, read-only, or None.

    Raises:
        DataError: another shape, or values that are negative or not finite.
    """
    level = _checked_plane(background, N, name, "background", np.float32)
    if level is not None and not (np.isfinite(level).all() and (level >= 0).all()):
        raise DataError(f"{name}: the background must be finite expected counts ≥ 0.")
    return level


def check_counts(indices: NDArray[np.int64], counts: NDArray[np.float32], name: str) -> None:
    """Refuse frames that no detector records.

    Args:
        indices: (n,) numbers of the frames.
        counts: (n, N, N) what was read of them.
        name: of the scan, for messages.

    Raises:
        DataError: values that are not finite, or negative.
    """
    if not np.isfinite(counts).all():
        frame = int(indices[~np.isfinite(counts).all(axis=(1, 2))][0])
        raise DataError(
            f"{name}: frame {frame} holds NaN or infinite counts; mask those pixels (--mask auto), or leave the "
            "frame out (--frames)."
        )
    if counts.min() < 0:
        frame = int(indices[counts.min(axis=(1, 2)) < 0][0])
        raise DataError(
            f"{name}: frame {frame} holds negative counts ({counts.min():.4g}); counts are ≥ 0. "
            "Mask those pixels (--mask auto), leave the frame out (--frames), or add what was taken off "
            "again (--offset), to frames and background alike."
        )
