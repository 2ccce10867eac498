"""What one photon is in the values of frames, by their noise, and when that is certain enough to be said unasked.

Two things look like noise and are none of photons: detail of the light itself, which a strongly textured object spreads
to the finest scale of a frame, and noise that a detector shares among neighbouring pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["gain_by_noise", "gain_of_white_noise"]

_ORDERS = (4, 6, 8)
_CLEAN = 1.3  # light adds to the variance at low orders, where it does at all
_MIDDLE = 256  # side of the part of a frame in which noise is looked at
_GROUP = 32  # pixels of one level
_TRIED = 48  # groups through pairs of which lines are tried
_NEAR_LINE = 0.25
_MOST_ON_LINE = 0.4
_RANGE = 0.4
_ALIKE = 1.25
_WHITE = 1.2  # most that the power of noise may differ between lags
_HALVES_ALIKE = 1.5
_LEAST_GROUPS = 8

Lines = tuple[NDArray[np.float64], NDArray[np.float64]]


def gain_by_noise(frames: NDArray[np.float32], good: NDArray[np.bool_] | None = None) -> float | None:
    """What a photon is in the values of some frames, by how their noise grows with their brightness.

    A diffraction pattern is the power spectrum of a wave that fills part of its window, so the pattern's own Fourier
    transform ends at twice that part: the finest detail of a frame, from pixel to pixel in both directions, is noise.
    So the n-th difference along both axes, D, with coefficients c, measures the variance of the pixels it covers,

        E|D|² = Σ c² var,   var = gain · mean + readout²,

    and a straight line through (mean, var), binned by the mean over the frames, has the gain as its slope. Where the
    wave fills so much of its window that light reaches that detail, it adds to the variance, the less the higher the
    order of the difference: the orders must agree.

    Args:
        frames: (n, H, W) values, with or without a pedestal.
        good: (H, W) pixels to look at, or None for all.

    Returns:
        The gain, or None where the frames do not tell. It is too high where light is as fine as noise, and too low
        where a detector shares noise among its pixels, see :func:`gain_of_white_noise`.
    """
    frames, seen = _middle(frames, good)
    if min(frames.shape[1:]) <= 2 * _ORDERS[-1]:
        return None
    reach = _ORDERS[-1] // 2
    clean, fine, finest = _clean(frames, seen, reach)
    level = _level(frames, reach)
    slopes = [_line_through(level[clean], variance[clean]) for variance in (fine, finest)]
    if slopes[0] is None or slopes[1] is None or not 1 / _ALIKE < slopes[0] / slopes[1] < _ALIKE:
        return None
    return slopes[1]


def gain_of_white_noise(frames: NDArray[np.float32], good: NDArray[np.bool_] | None = None) -> float | None:
    """The gain of :func:`gain_by_noise` where it can be that of nothing but single photons; else None.

    A difference with coefficients c along y and d along x weighs the power S of the frames at a lag (u, v), the
    separation of two points r of the exit wave ψ that interfere there, pixels of the object:

        E|D|² / (Σc² Σd²) = Σ |ĉ(u) d̂(v)|² S(u, v) / Σ |ĉ(u) d̂(v)|²,
        S(u, v) = (gain · mean + readout²) |MTF(u, v)|² + |Σ_r ψ(r) ψ*(r + (u, v))|² / N².

    Of noise of single pixels S is flat. The texture of the object is the second term, which ends where the wave does;
    noise that pixels share falls by the detector's transfer function (MTF). Both fall as lags grow, so what does not
    fall is neither. The difference of order 8 along both axes looks at lags near (N/2, N/2). Order 8 along one of them
    and order 6 over every second pixel along the other looks at (N/2, N/4) and (N/4, N/2). Over the pixels on the line
    the median of these variances over that one must be within 1.2 of 1.

    A wave that fills its window evenly has texture that is flat too. In few frames its bright speckles are the bright
    pixels of the mean frame, and their variance the square of that. So the line is drawn again with the level of a
    pixel from one half of the frames and its variance from the other, and must have the same slope to 1.5.

    What neither tells: a weak, finely textured object in a beam that fills nine tenths of its window, at more than some
    ten scattered photons a pixel, looks like a gain.

    Args:
        frames: (n, H, W) values, with or without a pedestal.
        good: (H, W) pixels to look at, or None for all.

    Returns:
        The gain, or None where the frames do not tell, or where it may be texture, or noise that pixels share.
    """
    gain = gain_by_noise(frames, good)
    if gain is None or len(frames) < 2:
        return None
    frames, seen = _middle(frames, good)
    finest, middle = _difference(_ORDERS[-1]), _spread(_difference(6), 2)
    reach = len(middle) // 2
    if min(frames.shape[1:]) <= 2 * reach:
        return None
    clean, _, _ = _clean(frames, seen, reach)
    halves = (frames[::2], frames[1::2])
    level = np.concatenate([_level(half, reach)[clean] for half in halves[::-1]])
    groups = _groups(level)

    def by_level(*lines: NDArray[np.float64]) -> NDArray[np.float64]:
        power = np.concatenate([_power(half, (lines[0], lines[1]), reach)[clean] for half in halves])
        return np.array([power[group].mean() for group in groups])

    x, y = np.array([level[group].mean() for group in groups]), by_level(finest, finest)
    on = _on_line(x, y)
    if on is None:
        return None
    slope = _weighted_slope(x[on], y[on])
    if slope is None or not 1 / _HALVES_ALIKE < slope / gain < _HALVES_ALIKE:
        return None
    for lines in ((finest, middle), (middle, finest)):
        if not 1 / _WHITE < np.median(by_level(*lines)[on] / y[on]) < _WHITE:
            return None
    return gain


def _middle(
    frames: NDArray[np.float32], good: NDArray[np.bool_] | None
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The middle of the frames, and its good pixels."""
    part = tuple(slice(max(0, (n - _MIDDLE) // 2), (n + _MIDDLE) // 2) for n in frames.shape[1:])
    frames = frames[(slice(None), *part)]
    return frames, np.ones(frames.shape[1:], bool) if good is None else good[part]


def _clean(
    frames: NDArray[np.float32], good: NDArray[np.bool_], reach: int
) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64]]:
    """Pixels about which all is good and the variance does not depend on the order; it by the two highest orders."""
    lines = [_difference(order) for order in _ORDERS]
    rough, fine, finest = (_power(frames, (line, line), reach) for line in lines)
    box = np.full(2 * reach + 1, 1 / (2 * reach + 1))
    covered = _correlated(good.astype(np.float64), (box, box)) > 1 - 1e-9
    return covered & (rough < _CLEAN * finest) & (finest < _CLEAN * rough), fine, finest


def _level(frames: NDArray[np.float32], reach: int) -> NDArray[np.float64]:
    """Mean around each pixel, weighted as the difference of the highest order weighs variances."""
    weights = _difference(_ORDERS[-1]) ** 2
    weights = weights / weights.sum()
    mean = np.asarray(np.mean(frames, axis=0, dtype=np.float64))
    return _cut(_correlated(mean, (weights, weights)), weights, weights, reach)


def _power(frames: NDArray[np.float32], lines: Lines, reach: int) -> NDArray[np.float64]:
    """Variance around each pixel, by a difference with coefficients along y and x, `reach` and more from the edges."""
    total: NDArray[np.float64] | float = 0.0
    for frame in frames:
        total = total + np.square(_correlated(frame.astype(np.float64), lines))
    power = np.asarray(total) / (len(frames) * np.sum(lines[0] ** 2) * np.sum(lines[1] ** 2))
    return _cut(power, *lines, reach)


def _cut(
    image: NDArray[np.float64], along_y: NDArray[np.float64], along_x: NDArray[np.float64], reach: int
) -> NDArray[np.float64]:
    """What two lines of weights gave, cut to pixels that lines with so many pixels to either side cover."""
    edges = (reach - len(line) // 2 for line in (along_y, along_x))
    return image[tuple(slice(edge, n - edge) for edge, n in zip(edges, image.shape, strict=True))]


def _spread(line: NDArray[np.float64], by: int) -> NDArray[np.float64]:
    """A line of weights over every so many-th pixel."""
    spread = np.zeros(by * (len(line) - 1) + 1)
    spread[::by] = line
    return spread


def _difference(order: int) -> NDArray[np.float64]:
    """Coefficients of a difference of an order."""
    line = np.ones(1)
    for _ in range(order):
        line = np.convolve(line, [1.0, -1.0])
    return line


def _correlated(image: NDArray[np.float64], lines: Lines) -> NDArray[np.float64]:
    """An image with a line of weights along y and one along x, where it is covered whole."""
    down, across = (len(line) - 1 for line in lines)
    rows = sum(weight * image[k : image.shape[0] - down + k] for k, weight in enumerate(lines[0]))
    both = sum(weight * rows[:, k : image.shape[1] - across + k] for k, weight in enumerate(lines[1]))
    return np.asarray(both)


def _groups(level: NDArray[np.float64]) -> list[NDArray[np.int64]]:
    """Pixels in groups of one level, the dark ones first; none where they are too few for a line."""
    n = len(level) // _GROUP
    return np.array_split(np.argsort(level, kind="stable"), n) if n >= _LEAST_GROUPS else []


def _line_through(level: NDArray[np.float64], variance: NDArray[np.float64]) -> float | None:
    """Slope of the line that most groups of pixels of one level lie on."""
    groups = _groups(level)
    x, y = (np.array([values[group].mean() for group in groups]) for values in (level, variance))
    on = _on_line(x, y)
    return None if on is None else _weighted_slope(x[on], y[on])


def _on_line(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_] | None:
    """Which groups, by level and variance, lie on the line that most lie on; None where there is none.

    Where light itself has detail as fine as noise, as at the rim of an aperture, the variance is far above the line.
    """
    n = len(x)
    if not (y > 0).any():
        return None
    chosen = np.unique(np.linspace(0, n - 1, min(n, _TRIED)).astype(np.int64))
    first, second = (chosen[side] for side in np.triu_indices(len(chosen), 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes = (y[second] - y[first]) / (x[second] - x[first])
        offsets = y[first] - slopes * x[first]
    usable = np.isfinite(slopes) & (slopes > 0)
    best, most = None, 0.0
    for slope, offset in zip(slopes[usable], offsets[usable], strict=True):
        on = np.abs(y - slope * x - offset) < _NEAR_LINE * (slope * x + offset)
        if on.mean() > most:
            best, most = on, float(on.mean())
    if best is None or most < _MOST_ON_LINE:
        return None
    if not np.ptp(x[best]) > max(0.3 * np.ptp(x), _RANGE * x.max()):  # a slope needs brighter and darker pixels
        return None
    return np.asarray(best)


def _weighted_slope(x: NDArray[np.float64], y: NDArray[np.float64]) -> float | None:
    """Slope of the line through points (x, y), each known to a part of y."""
    weight, slope = 1 / np.maximum(y, 1e-3 * y.max()) ** 2, 0.0
    for _ in range(8):
        centre = np.sum(weight * x) / np.sum(weight)
        slope = float(np.sum(weight * (x - centre) * y) / np.sum(weight * (x - centre) ** 2))
        offset = float(np.sum(weight * y) / np.sum(weight)) - slope * float(centre)
        weight = 1 / np.maximum(slope * x + offset, 1e-3 * y.max()) ** 2
    return slope if slope > 0 else None
