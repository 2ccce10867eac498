"""Where zero frequency lies on a detector, from the mean pattern alone: no solver, so that it serves while reading.

The mean pattern of a far field is about the far field of the probe, |F P|², blurred by what the object scatters. An
aperture is symmetric under inversion, so that its centre is where the pattern is most like itself turned by 180°: that
is told to a quarter of a pixel, and neither an uneven illumination nor a module gap moves it much, which both move the
centre of mass. Where a probe is given, zero frequency is where its own far field says, whatever its symmetry (FIND-5).

A pattern that is s pixels off its centre is one whose probe, or whose object, has a phase ramp of 2π s / N a pixel: the
image is right but for that ramp, which a refined probe takes up in time. A short solve from the flat object has no
time, and a given probe is off by the ramp from the start; so one pixel off costs the star's first sweeps a factor 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .far_field import vertex

__all__ = ["SYMMETRIC_FROM", "CentreEstimate", "estimate_centre"]

SYMMETRIC_FROM = 0.8
"""Correlation of a pattern with itself turned by 180° from which its centre of symmetry is taken for its centre."""

_LARGEST = 512
_LEAST_SHARE = 0.6
_SPIKE = 8.0


@dataclass(frozen=True, kw_only=True)
class CentreEstimate:
    """Where zero frequency lies.

    Attributes:
        centre_px: (y, x) detector pixel, to about a quarter; to a whole one by a probe.
        how: ``probe``, ``symmetry`` or ``mass``: which of the candidates it is.
        candidates: name → (y, x): ``middle`` (H // 2, W // 2), ``mass``, ``symmetry``, and ``probe`` with a given one.
        symmetry: correlation of the amplitudes with themselves turned by 180° about the centre of symmetry.
        probe_likeness: the same with those that the given probe has at the detector; 0 without one.
        middle_likeness: the same with zero frequency of the probe in the middle.
    """

    centre_px: tuple[float, float]
    how: str
    candidates: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    symmetry: float = 0.0
    probe_likeness: float = 0.0
    middle_likeness: float = 0.0

    @property
    def off_px(self) -> float:
        """Distance from the middle, pixels."""
        middle = self.candidates["middle"]
        return math.hypot(self.centre_px[0] - middle[0], self.centre_px[1] - middle[1])

    @property
    def off_the_probe(self) -> bool:
        """Whether the given probe fits the pattern much better elsewhere than in the middle: half of what is unlike.

        A probe that is only roughly right, such as a model of a zone plate, fits a pixel or two beside as well.
        """
        return 1 - self.probe_likeness < 0.5 * (1 - self.middle_likeness)

    def describe(self) -> str:
        """One sentence for people."""
        names = {
            "probe": "where the far field of the given probe fits the mean pattern",
            "symmetry": f"the centre of symmetry of the mean pattern, which is {self.symmetry:.0%} symmetric",
            "mass": f"the centre of mass of the light; the pattern is only {self.symmetry:.0%} symmetric",
        }
        others = ", ".join(f"{name} ({y:.1f}, {x:.1f})" for name, (y, x) in self.candidates.items() if name != self.how)
        y, x = self.centre_px
        return f"The centre of the beam was found at pixel ({y:.1f}, {x:.1f}), {names[self.how]}; {others}."


def estimate_centre(
    mean_pattern: NDArray[np.float64],
    good: NDArray[np.bool_] | None = None,
    *,
    probe_intensity: NDArray[np.float64] | None = None,
    name: str = "scan",
) -> CentreEstimate:
    """Estimate the pixel of zero frequency.

    Args:
        mean_pattern: (H, W) mean counts of some frames; NaN where the detector has no value.
        good: (H, W) True = good, or None.
        probe_intensity: (H, W) |F P|² of a given probe, zero frequency at (H // 2, W // 2), or None.
        name: the file, for messages.

    Returns:
        The estimate: the probe's where one is given, else the centre of symmetry where the pattern is symmetric, else
        the centre of mass.

    Raises:
        DataError: the mean pattern is dark.
    """
    seen = np.isfinite(mean_pattern) if good is None else good & np.isfinite(mean_pattern)
    light = np.where(seen, np.maximum(np.nan_to_num(mean_pattern), 0.0), 0.0)
    if not light.any():
        raise DataError(f"{name}: the mean pattern is dark, so that no centre is found; give it (--centre y,x).")
    light = _without_spikes(light, seen)
    shape = light.shape
    candidates = {"middle": (float(shape[0] // 2), float(shape[1] // 2)), "mass": _mass(light)}
    amplitude = np.sqrt(light)
    candidates["symmetry"], symmetry = _symmetry(amplitude, seen)
    how, fits = "symmetry" if symmetry >= SYMMETRIC_FROM else "mass", (0.0, 0.0)
    if probe_intensity is not None and probe_intensity.any():
        candidates["probe"], fits = _fitted(amplitude, seen, np.sqrt(probe_intensity))
        how = "probe"
    return CentreEstimate(
        centre_px=candidates[how],
        how=how,
        candidates=candidates,
        symmetry=symmetry,
        probe_likeness=fits[0],
        middle_likeness=fits[1],
    )


def _without_spikes(light: NDArray[np.float64], seen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Pixels many times brighter than all their neighbours, which no far field has, cut down to those."""
    padded = np.pad(light, 1)
    rows = [padded[dy : dy + light.shape[0], dx : dx + light.shape[1]] for dy in range(3) for dx in range(3)]
    around = np.max([row for number, row in enumerate(rows) if number != 4], axis=0)
    floor = float(np.mean(light[seen]))
    return np.where(light > _SPIKE * np.maximum(around, floor), around, light)


def _mass(light: NDArray[np.float64]) -> tuple[float, float]:
    total = float(light.sum())
    y, x = light.sum(axis=1), light.sum(axis=0)
    return float(y @ np.arange(len(y))) / total, float(x @ np.arange(len(x))) / total


def _symmetry(amplitude: NDArray[np.float64], seen: NDArray[np.bool_]) -> tuple[tuple[float, float], float]:
    """The centre about which a pattern is most like itself turned by 180°, and how like.

    A large detector is binned first, and looked at in full about what was found then.
    """
    bin_ = -(-max(amplitude.shape) // _LARGEST)
    if bin_ == 1:
        return _symmetry_of(amplitude, seen)
    (y, x), _ = _symmetry_of(_binned(amplitude, bin_), _binned(seen.astype(np.float64), bin_) > 0.5 * bin_**2)
    starts = [
        min(max(round(bin_ * (at + 0.5)) - _LARGEST // 2, 0), max(length - _LARGEST, 0))
        for at, length in zip((y, x), amplitude.shape, strict=True)
    ]
    window = tuple(slice(start, start + _LARGEST) for start in starts)
    (y, x), likeness = _symmetry_of(amplitude[window], seen[window])
    return (y + starts[0], x + starts[1]), likeness


def _binned(plane: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    height, width = (length // n * n for length in plane.shape)
    blocks = plane[:height, :width].reshape(height // n, n, width // n, n)
    return np.asarray(blocks.sum(axis=(1, 3)))


def _symmetry_of(amplitude: NDArray[np.float64], seen: NDArray[np.bool_]) -> tuple[tuple[float, float], float]:
    """As :func:`_symmetry`: the correlation coefficient of A(q) and A(2c − q) over the pixels that both are seen at."""
    like = _correlation(amplitude, seen, amplitude, seen)
    y, x = (int(at) for at in np.unravel_index(int(like.argmax()), like.shape))
    lines = (like[y - 1 : y + 2, x], like[y, x - 1 : x + 2])
    # no parabola at the rim, nor through what is not alike
    rest = [vertex(line) if len(line) == 3 and line.min() >= 0 else 0.0 for line in lines]
    return ((y + rest[0]) / 2, (x + rest[1]) / 2), float(like[y, x])


def _correlation(
    a: NDArray[np.float64], seen_a: NDArray[np.bool_], b: NDArray[np.float64], seen_b: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Correlation coefficient over q of a(q) and b(s − q) for every s, (2H, 2W); −1 where little light is shared."""
    size = tuple(2 * length for length in a.shape)

    def wave(plane: NDArray[Any]) -> NDArray[np.complex128]:
        return np.asarray(np.fft.rfft2(plane, size))

    def summed(spectrum: NDArray[np.complex128]) -> NDArray[np.float64]:
        return np.asarray(np.fft.irfft2(spectrum, size))

    a, b = a * seen_a, b * seen_b
    ma, mb, fa, fb = wave(seen_a * 1.0), wave(seen_b * 1.0), wave(a), wave(b)
    n = np.maximum(summed(ma * mb), 1.0)
    sum_a, sum_b = summed(fa * mb), summed(ma * fb)
    sq_a, sq_b = summed(wave(a * a) * mb), summed(ma * wave(b * b))
    covariance = summed(fa * fb) - sum_a * sum_b / n
    tiny = 1e-9 * max(float(sq_a.max()), float(sq_b.max()))
    variance = np.sqrt(np.maximum(sq_a - sum_a**2 / n, tiny) * np.maximum(sq_b - sum_b**2 / n, tiny))
    shared = (sq_a >= _LEAST_SHARE * float(np.sum(a * a))) & (sq_b >= _LEAST_SHARE * float(np.sum(b * b)))
    return np.where(shared, covariance / variance, -1.0)


def _fitted(
    amplitude: NDArray[np.float64], seen: NDArray[np.bool_], expected: NDArray[np.float64]
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Where zero frequency of an expected pattern lies, to a pixel, when it is laid on the measured one.

    And how like they are then, and with it in the middle.
    """
    turned = expected[::-1, ::-1]
    like = _correlation(amplitude, seen, turned, np.ones(turned.shape, bool))
    s = np.unravel_index(int(like.argmax()), like.shape)
    # amplitude(q) is like turned(s − q) = expected(H − 1 − s + q), which has zero frequency where that is H // 2
    y, x = (float(length // 2 - (length - 1) + int(at)) for at, length in zip(s, amplitude.shape, strict=True))
    height, width = amplitude.shape
    return (y, x), (float(like.max()), float(like[height - 1, width - 1]))
