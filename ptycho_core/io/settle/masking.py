"""Which detector pixels are good: the file's mask, one that is given, and what values mean that no light has.

A pixel that is NaN, −1 or −2, or the largest number of a type, in every frame that was looked at has no value there:
its writer says so, and it is masked without being asked. Whatever else is masked was asked for (``mask``), by the same
rules that an inspection warns by (``pixels``). What is masked is counted by reason, and said.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...data.recording import MASK_POLARITIES, Recording
from ...errors import ConfigError, DataError
from ...reader_protocol import ReadOptions
from ...text import counted
from ..planes import one_in, read_mask
from .pixels import PixelStatistics, bright_lines, dead_and_hot, is_cut_off, marked, stuck
from .sampling import spread_frames

__all__ = ["good_pixels_of"]

_SAMPLE_PX = 2**23
_LEAST, _MOST = 8, 64
_FEW = 0.01  # of the pixels may lack a value now and then and be masked; more is a fault of the frames


def good_pixels_of(
    recording: Recording, options: ReadOptions, name: str, notes: list[str], warnings: list[str]
) -> NDArray[np.bool_] | None:
    """Good pixels (H, W) of the frames as stored, or None where all are.

    Args:
        recording: what was read.
        options: `mask`, `mask_polarity`, and `look_at`.
        name: the file, for messages.
        notes: how many pixels were masked, and why, is added here.
        warnings: what looks wrong about it is added here.

    Raises:
        DataError: a mask of another shape than the frames, one that hides most of the light, or values that are none in
            so many pixels that masking them would leave out light.
        ConfigError: a polarity that is none.
    """
    if options.mask_polarity not in (None, *MASK_POLARITIES):
        raise ConfigError(f"mask_polarity = {options.mask_polarity!r}; allowed: {', '.join(MASK_POLARITIES)}.")
    if not recording.frames.shape[0]:
        return recording.mask
    auto = options.mask == "auto"
    found = _looked_at(recording, options, every=auto)
    amplitudes = recording.source.measurement == "amplitude"
    by_mark = marked(found, amplitudes=amplitudes)
    valueless = np.any(list(by_mark.values()), axis=0)
    light = np.sqrt(np.where(valueless, 0, found.mean))
    good = _stated(recording, options, light, name, notes)
    if options.mask is not None and not auto:
        good &= _given(Path(options.mask), options.mask_polarity, light, name, notes)
    for reason, pixels in by_mark.items():
        _hide(good, pixels, f"{reason} in every frame that was looked at, as files mark pixels without a value", notes)
    _hide_sometimes(good, found, name, notes, warnings, every=auto)
    if auto:
        _hide_by_rules(good, found, recording, options, amplitudes, notes)
    if not good.any():
        reasons = ", ".join(f"{reason} in {int(pixels.sum())}" for reason, pixels in by_mark.items() if pixels.any())
        raise DataError(
            f"{name}: no pixel is left that is not masked ({reasons or 'see the masks given'}); frames must hold "
            "counts ≥ 0, and a mask leave some of them."
        )
    return None if good.all() else good


def _numbers(recording: Recording, options: ReadOptions, *, every: bool) -> NDArray[np.int64]:
    """Frames to look at, spread over the scan: all for `every`, unless fewer are to be looked at."""
    M, height, width = recording.frames.shape
    few = min(max(_SAMPLE_PX // max(height * width, 1), _LEAST), _MOST)
    return spread_frames(M, None if every else few, options.look_at)


def _looked_at(recording: Recording, options: ReadOptions, *, every: bool) -> PixelStatistics:
    """What the pixels hold in some frames, or in all."""
    numbers = _numbers(recording, options, every=every)
    shape = (recording.frames.shape[1], recording.frames.shape[2])
    at_once = max(1, _SAMPLE_PX // max(shape[0] * shape[1], 1))

    def frames() -> Iterator[NDArray[np.float32]]:
        for start in range(0, len(numbers), at_once):
            yield from recording.frames.read(numbers[start : start + at_once])

    return PixelStatistics.of(shape, frames(), checked=False)


def _checked_shape(mask: NDArray[np.bool_], recording: Recording, what: str) -> NDArray[np.bool_]:
    height, width = recording.frames.shape[1:]
    if mask.shape != (height, width):
        raise DataError(f"{what} has shape {mask.shape} but frames are {height}×{width}; they must agree.")
    return mask.astype(bool)


def _stated(
    recording: Recording, options: ReadOptions, light: NDArray[np.float64], name: str, notes: list[str]
) -> NDArray[np.bool_]:
    """The file's own mask, read as the caller says."""
    if recording.mask is None:
        return np.ones(recording.frames.shape[1:], bool)
    good = _checked_shape(recording.mask, recording, f"{name}: the mask")
    own = options.mask_polarity if options.mask in (None, "auto") else None  # else it is that of the mask given
    if own not in (None, recording.mask_polarity):
        notes.append(f"In the file's mask 1 was read as {own}, as given.")
        good = ~good
    if own is None:
        _check_polarity(good, light, recording.mask_polarity, f"{name}: the mask")
    return good.copy()


def _given(
    path: Path, polarity: str | None, light: NDArray[np.float64], name: str, notes: list[str]
) -> NDArray[np.bool_]:
    """The mask in a file that the caller gives."""
    good, how = read_mask(path, polarity)
    if good.shape != light.shape:
        height, width = light.shape
        raise DataError(f"{path}: the mask has shape {good.shape} but frames of {name} are {height}×{width}.")
    if polarity is None:
        _check_polarity(good, light, one_in(how), f"{path}: the mask")
    notes.append(
        f"{path.name} was laid over the scan as a mask ({how}); it hides {counted(int((~good).sum()), 'pixel')}."
    )
    return good


def _check_polarity(good: NDArray[np.bool_], light: NDArray[np.float64], one_means: str, what: str) -> None:
    """Refuse a mask that hides most of the light, as one does that is read the wrong way round.

    Light is counted as amplitude, so that a masked hot pixel or direct beam does not outweigh the frame.

    Raises:
        DataError: it does.
    """
    if not good.any():
        raise DataError(f"{what} hides every pixel; is it inverted? Give --mask_polarity good|bad.")
    seen = float(light[good].max())
    light = np.minimum(light, seen) if seen else light  # what is hidden may be anything, and where it is all, light
    total = float(light.sum())
    hidden = float(light[~good].sum()) / total if total else 0.0
    share = float((~good).mean())
    if hidden <= 0.5 and share <= 0.99:
        return
    other = MASK_POLARITIES[1 - MASK_POLARITIES.index(one_means)]
    raise DataError(
        f"{what} hides {share:.0%} of the pixels, with {hidden:.0%} of the light (as amplitude), so it seems to be "
        f"read the wrong way round: 1 was taken as {one_means}. Give --mask_polarity {other}, or, if it is right, "
        f"--mask_polarity {one_means}."
    )


def _hide(good: NDArray[np.bool_], pixels: NDArray[np.bool_], why: str, notes: list[str]) -> None:
    """Mask pixels that are not masked yet, and say so."""
    n = int((pixels & good).sum())
    if n:
        good[pixels] = False
        notes.append(f"{counted(n, 'pixel was', 'pixels were')} masked: {why}.")


def _hide_sometimes(
    good: NDArray[np.bool_],
    found: PixelStatistics,
    name: str,
    notes: list[str],
    warnings: list[str],
    *,
    every: bool,
) -> None:
    """Mask pixels that are no number ≥ 0 in some frames only, where they are few.

    Raises:
        DataError: they are many.
    """
    pixels = good & (found.nan + found.negative > 0)
    n = int(pixels.sum())
    if not n:
        return
    if n > max(_FEW * good.size, 2):
        least = float(found.low[pixels].min())
        what = ["NaN or infinite"] if found.nan[pixels].any() else []
        what += [f"negative (down to {least:.4g})"] if found.negative[pixels].any() else []
        raise DataError(
            f"{name}: counts of {n} pixels are {' or '.join(what)} in some frames, too many to be masked; counts "
            "are ≥ 0. If some frames are bad, leave them out (--frames); if a dark level was taken off, add it again "
            "(--offset NUMBER, above the least value); else mask those pixels (--mask FILE)."
        )
    good[pixels] = False
    those = counted(n, "pixel is", "pixels are")
    warnings.append(f"{those} NaN or negative in some frames, not in all; masked in every frame.")


def _hide_by_rules(
    good: NDArray[np.bool_],
    found: PixelStatistics,
    recording: Recording,
    options: ReadOptions,
    amplitudes: bool,
    notes: list[str],
) -> None:
    """Mask what an inspection would warn of (``--mask auto``)."""
    before = int(good.sum())
    _hide(good, stuck(found.silenced(~good), amplitudes=amplitudes), "one nonsense value in every frame", notes)
    seen = found.silenced(~good)
    height, width = good.shape
    given = options.centre if isinstance(options.centre, tuple) else None
    dead, hot = dead_and_hot(seen, good, given or recording.centre_px or (height // 2, width // 2))
    _hide(good, dead, "dead, 0 amid or beside light", notes)
    _hide(good, hot, "hot, steady and far above their surroundings", notes)
    _hide_cut_off(good, found.silenced(~good), recording, options, notes)
    for axis, lines in bright_lines(np.where(good, found.mean, 0), found.n, good).items():
        pixels = np.zeros_like(good)
        pixels[(list(lines), slice(None)) if axis == "rows" else (slice(None), list(lines))] = True
        factors = ", ".join(f"{line} ({factor:.2g} times)" for line, factor in sorted(lines.items()))
        _hide(good, pixels, f"{axis} {factors} are brighter than those beside them by one factor", notes)
    if int(good.sum()) == before:
        notes.append("No dead, hot, stuck or saturated pixels were found (--mask auto).")


def _hide_cut_off(
    good: NDArray[np.bool_], seen: PixelStatistics, recording: Recording, options: ReadOptions, notes: list[str]
) -> None:
    peak = float(seen.high.max(initial=0))
    at_peak = np.where((seen.high == peak) & (peak > 0), seen.times, 0)
    if not is_cut_off(peak, int(at_peak.sum()), 0):
        return
    bright = good & (seen.high > 0.98 * peak)
    near = 0
    for number in _numbers(recording, options, every=True):
        values = recording.frames.read(np.array([number]))[0][bright]
        near += int(((values > 0.98 * peak) & (values < peak)).sum())
    if is_cut_off(peak, int(at_peak.sum()), near):
        _hide(good, at_peak > 0, f"saturated at {peak:.6g} counts", notes)
