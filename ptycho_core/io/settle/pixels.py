"""What the values of detector pixels say of them: one place for the rules that reading and inspecting both go by.

A pixel is *marked* where its writer put a value that no light has (NaN, −1, −2, the largest number of a type) into
every frame; *stuck* where it holds one nonsense value in every frame, marked or far above all that varies; *dead*,
*hot* or *saturated* by its counts; and part of a *bright line* where a whole row or column of the detector is brighter
than its neighbours by one constant factor, as larger pixels at the border of a chip are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...data.frames import rounding

__all__ = [
    "SATURATED_FROM",
    "SATURATED_TIMES",
    "PixelStatistics",
    "bright_lines",
    "dead_and_hot",
    "is_cut_off",
    "marked",
    "stuck",
]

SATURATED_FROM, SATURATED_TIMES = 100, 8
"""A scan can look saturated where its highest counts are at least this, at least so many times."""

_MARKS = np.array([2**15 - 1, 2**16 - 2, 2**16 - 1, 2**31 - 1, 2**32 - 2, 2**32 - 1, 2**63 - 1, 2**64 - 1], np.float64)
"""The largest numbers of a type, and the ones below that detectors use too, by which files mark gaps and bad pixels."""

_BYTE = 2.0**8 - 1
_TELLING_FRAMES = 8  # fewer may share a value by chance
_LIT = 50  # counts of all frames together, beside which 0 is no chance
_STRAIGHT = 1 / 3  # of a row or column, which the straight edge of a dead module takes up at least
_SEGMENTS = 8
_LINE_COUNTS = 400  # of a segment of a line, so that its brightness is known to 5 %
_LINE_FACTOR = 1.25
_WORTH_A_LOOK = 1.1
_STEEP = 0.35  # logarithm of what light itself may do from line to line, above which a piece does not tell


@dataclass
class PixelStatistics:
    """What each pixel held in the frames that were looked at, (H, W) each; added to frame by frame.

    Attributes:
        n: frames that were looked at.
        total: sum of the values that are numbers ≥ 0.
        squares: sum of their squares.
        low: least value, negative ones too; inf where there was none.
        high: largest value; −inf where there was none.
        times: in how many frames the pixel had `high`.
        nan: in how many frames it was NaN or infinite.
        negative: in how many frames it was negative.
    """

    n: int
    total: NDArray[np.float64]
    squares: NDArray[np.float64]
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    times: NDArray[np.int64]
    nan: NDArray[np.int64]
    negative: NDArray[np.int64]

    @classmethod
    def of(cls, shape: tuple[int, int], frames: Iterable[NDArray[np.float32]], *, checked: bool) -> PixelStatistics:
        """Gather them.

        Args:
            shape: (H, W).
            frames: (H, W) each.
            checked: whether no value is NaN, infinite or negative.
        """
        found = cls(
            0,
            np.zeros(shape),
            np.zeros(shape),
            np.full(shape, np.inf, np.float32),
            np.full(shape, -np.inf, np.float32),
            np.zeros(shape, np.int64),
            np.zeros(shape, np.int64),
            np.zeros(shape, np.int64),
        )
        for frame in frames:  # one at a time: all that is made of it stays in the cache
            found._add(frame if checked else found._numbers(frame))
        return found

    def _numbers(self, frame: NDArray[np.float32]) -> NDArray[np.float32]:
        """Note what is no number of photons; NaN where there is none at all."""
        finite = np.isfinite(frame)
        self.nan += ~finite
        self.negative += finite & (frame < 0)
        return frame if finite.all() else np.where(finite, frame, np.float32(np.nan))

    def _add(self, frame: NDArray[np.float32]) -> None:
        self.n += 1
        light = np.fmax(frame, 0)
        self.total += light
        self.squares += np.square(light, dtype=np.float64)
        np.fmin(self.low, frame, out=self.low)
        self.times += frame == self.high
        np.copyto(self.times, 1, where=frame > self.high)
        np.fmax(self.high, frame, out=self.high)

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean of the values of each pixel, 0 for those that are none."""
        return self.total / max(self.n, 1)

    @property
    def spread(self) -> NDArray[np.float64]:
        """Variance of each pixel over the frames."""
        return np.maximum(self.squares / max(self.n, 1) - self.mean**2, 0)

    def silenced(self, bad: NDArray[np.bool_]) -> PixelStatistics:
        """The same, in which some pixels held 0 in every frame."""
        parts = (np.where(bad, 0, part) for part in (self.total, self.squares, self.low, self.high))
        total, squares, low, high = parts
        return PixelStatistics(
            self.n, total, squares, low, high, np.where(bad, 0, self.times), self.nan * ~bad, self.negative * ~bad
        )


def marked(found: PixelStatistics, *, amplitudes: bool = False) -> dict[str, NDArray[np.bool_]]:
    """Pixels that hold a mark for "no value here" in every frame, by what it is.

    Args:
        found: what the pixels held.
        amplitudes: whether the values are squares of what is stored.
    """
    nowhere = found.nan == found.n
    least = -4 if amplitudes else -2
    whole = (np.rint(found.low) == found.low) & (np.rint(found.high) == found.high)
    one_or_two = (found.low >= least) & (found.high <= -1) & whole
    one_value = (found.low == found.high) & whole
    negative = ~nowhere & (found.nan + found.negative == found.n) & (found.negative > 0) & (one_or_two | one_value)
    same = (found.low == found.high) & (found.high > 0) & (found.nan == 0)
    largest = np.zeros_like(same)
    if found.n >= 2:
        marks = np.concatenate([_MARKS, _MARKS**2]) if amplitudes else _MARKS
        marks = np.append(marks, _BYTE) if found.n >= _TELLING_FRAMES else marks
        values = found.high[same].astype(np.float64)
        largest[same] = (np.abs(values[:, None] - marks) <= rounding(np.float32) * marks).any(axis=-1)
    return {"NaN": nowhere, "a negative mark": negative, "the largest number of a type": largest}


def stuck(found: PixelStatistics, *, amplitudes: bool = False) -> NDArray[np.bool_]:
    """Pixels with one value in every frame that no light has: a mark of the file's type, or far above all that varies.

    Args:
        found: what the pixels held.
        amplitudes: whether the values are squares of what is stored.
    """
    same = (found.low == found.high) & (found.high > 0)
    if found.n < 2 or not same.any():
        return np.zeros_like(same)
    brightest = float(found.high[~same].max(initial=0))
    far_above = found.n >= _TELLING_FRAMES and brightest > 0
    glaring = found.high > 10 * brightest if far_above else np.zeros_like(same)
    return np.asarray(same & (marked(found, amplitudes=amplitudes)["the largest number of a type"] | glaring))


def dead_and_hot(
    found: PixelStatistics, good: NDArray[np.bool_], centre: tuple[float, float]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Pixels that are 0 amid or beside light, and such that are steady and far above their surroundings.

    Args:
        found: what the pixels held.
        good: (H, W) pixels to judge.
        centre: (y, x) of zero frequency; a direct beam is as sharp as a hot pixel, so the middle is left out.
    """
    from scipy.ndimage import minimum_filter, uniform_filter

    M, mean = found.n, found.mean
    # a median takes time, so only where it could matter: half of 25 pixels above a level make a mean above half of it
    may_be_dead = good & (mean == 0) & (uniform_filter(mean, 5, mode="nearest") * M > 25)
    y, x = np.indices(mean.shape)
    off = np.hypot(y - centre[0], x - centre[1]) > 3
    # light that varies by frame is no defect
    steady = found.spread < 4 * mean + (0.05 * mean) ** 2
    may_be_hot = good & off & steady & (mean * M > 200) & (mean > 20 * minimum_filter(mean, 5, mode="nearest"))
    around = _medians(mean, may_be_dead | may_be_hot)
    dead = (may_be_dead & (around * M > 50)) | _dead_fields(mean * M, good)
    return dead, may_be_hot & (mean > 20 * (around + 0.5 / M))


def _dead_fields(total: NDArray[np.float64], good: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Fields without a count that end in a straight line beside light, as a dead module does.

    Light fades, and the flat part of a round bright field's rim, 2√(side) pixels long at most, is too short.

    Args:
        total: (H, W) counts of all frames together.
        good: (H, W) pixels to judge.
    """
    from scipy.ndimage import label

    none, lit = good & (total == 0), good & (total > _LIT)
    if not none.any() or not lit.any():
        return np.zeros_like(none)
    edge = np.zeros_like(none)
    for turned in (False, True):
        dark, bright, out = (part.T if turned else part for part in (none, lit, edge))
        least = max(_STRAIGHT * dark.shape[1], 2.5 * np.sqrt(dark.shape[1]))
        for here, beside in ((slice(1, None), slice(None, -1)), (slice(None, -1), slice(1, None))):
            runs = dark[here] & bright[beside]
            # a row at a time: runs are joined along the row only
            numbers, _ = label(runs, structure=[[0, 0, 0], [1, 1, 1], [0, 0, 0]])
            out[here] |= runs & (np.bincount(numbers.ravel()) >= least)[numbers]
    fields, _ = label(none)
    return np.asarray(none & np.isin(fields, fields[edge]))


def _medians(image: NDArray[np.float64], wanted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The median of the 5 × 5 pixels around each wanted pixel, the edge repeated outwards; NaN elsewhere."""
    out = np.full(image.shape, np.nan)
    padded = np.pad(image, 2, mode="edge")
    places = np.argwhere(wanted)
    steps = np.argwhere(np.ones((5, 5), bool))
    for part in np.array_split(places, -(-max(len(places), 1) // 2**16)):
        rows, columns = (part[:, None] + steps).transpose(2, 0, 1)
        out[tuple(part.T)] = np.median(padded[rows, columns], axis=1)
    return out


def is_cut_off(peak: float, at_peak: int, near_peak: int) -> bool:
    """Whether counts pile up on one highest value, more of them than just below it: they were cut off there.

    Args:
        peak: the highest counts.
        at_peak: how many samples have them.
        near_peak: how many lie just below, within 2 %.
    """
    return peak >= SATURATED_FROM and at_peak >= SATURATED_TIMES and at_peak > near_peak


def bright_lines(mean: NDArray[np.float64], M: int, good: NDArray[np.bool_]) -> dict[str, dict[int, float]]:
    """Rows and columns brighter than their neighbours by one constant factor, as larger pixels are.

    A line is compared with those beside it, piece by piece: a streak of light is bright in the middle and fades, a line
    of larger pixels is brighter by the same factor everywhere.

    Args:
        mean: (H, W) mean counts.
        M: frames in the mean.
        good: (H, W) pixels to judge.

    Returns:
        ``rows`` and ``columns``, each number → factor.
    """
    return {"rows": _lines(mean.T * M, good.T), "columns": _lines(mean * M, good)}


def _lines(total: NDArray[np.float64], good: NDArray[np.bool_]) -> dict[int, float]:
    """Bright columns of an image of counts (H, W), number → factor."""
    height, width = total.shape
    if height < 2 * _SEGMENTS or width < 8:
        return {}
    pieces = np.array_split(np.arange(height), _SEGMENTS)
    found: dict[int, float] = {}
    present: NDArray[np.bool_] = np.asarray(good.sum(axis=0) >= height // 2)
    sums = np.where(present, np.where(good, total, 0).sum(axis=0), 0)
    for x in range(width):
        # what is not much brighter than the line before need not be looked at piece by piece
        if x in found or not present[x] or (x and sums[x] < _WORTH_A_LOOK * sums[x - 1]):
            continue
        for run in (1, 2):
            line = range(x, x + run)
            if x + run > width or not present[line].all():
                break
            factor = _factor(total, good, present, pieces, x, run)
            if factor is not None:
                found |= dict.fromkeys(line, factor)
                break
    return found


def _factor(
    total: NDArray[np.float64],
    good: NDArray[np.bool_],
    present: NDArray[np.bool_],
    pieces: list[NDArray[np.int64]],
    x: int,
    run: int,
) -> float | None:
    """By how much `run` columns from `x` on are brighter than those beside them, or None where that is not constant."""
    sides = [[x - 1, x - 2], [x + run, x + run + 1]]
    sides = [side for side in sides if all(0 <= c < total.shape[1] and present[c] for c in side)]
    if not sides:
        return None
    columns = [*range(x, x + run), *[c for side in sides for c in side]]
    usable: NDArray[np.bool_] = np.asarray(good[:, columns].all(axis=1))
    ratios: list[float] = []
    for piece in pieces:
        rows = piece[usable[piece]]
        lines = {c: float(total[rows, c].sum()) for c in columns}
        if not len(rows) or min(lines.values()) < _LINE_COUNTS:
            continue
        own = np.log([lines[c] for c in range(x, x + run)])
        near = np.log([lines[side[0]] for side in sides])
        steps = near - np.log([lines[side[1]] for side in sides])  # of the light itself, towards the line
        if len(sides) == 2:
            trend, doubt = (near[1] - near[0]) / (run + 1), abs(float(steps.sum()))
            expected = near[0] + trend * np.arange(1, run + 1)
        else:
            first = np.arange(run, 0, -1) if sides[0][0] > x else np.arange(1, run + 1)
            expected, doubt = near[0] + steps[0] * first, abs(float(steps[0]))
        if doubt > _STEEP:
            continue
        factors = own - expected
        ratio = float(factors.mean())
        # what the light itself may do from line to line must be less than what this line does
        if ratio < np.log(_LINE_FACTOR) or ratio < 1.5 * doubt or np.ptp(factors) > 0.2 * ratio + 0.1:
            return None
        ratios.append(ratio)
    if len(ratios) < _SEGMENTS // 2 or np.std(ratios) > 0.12 * float(np.mean(ratios)) + 0.05:
        return None
    return float(np.exp(np.mean(ratios)))
