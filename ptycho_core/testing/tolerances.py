"""How closely an engine's physics must agree with the oracle, with the reason for each figure.

ε is the rounding unit of a precision: 6.0e-8 in float32, 1.1e-16 in float64. All comparisons are relative to the
largest magnitude of the oracle's array, because a Fourier transform spreads the rounding error of its largest input
over every output: a dark pixel beside a bright one has the bright one's absolute error.

* A chain of transforms of N ≤ 64 points a side loses about log2(N²) ≈ 12 roundings a transform, which add as the
  square root of their number; three transforms in a row (shift and propagation) stay below 30 ε ≈ 2e-6 in float32.
* Phases of a shift ramp reach 2π · N/2 · ½ / N = π/2; their rounding is ε times the angle before the exponential.
* The sum of a loss over J N² pixels adds roundings of random sign: ε √(J N²) relative to its terms, all of one sign for
  the amplitude loss. The Poisson loss is a difference of like terms (λ and k ln λ), which costs one digit.
* A gradient has a division by λ that is clamped at 1e-8. Where λ is small against its neighbours its relative error is
  large, and 1 − k/λ passes it on: one to two digits.
* A gradient of the amplitude loss in a frame without counts is exact, 1; there is no √ of 0 to differentiate, because
  λ, not k, is the variable.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

__all__ = ["FLOAT32", "FLOAT64", "OTHER_IMAGE", "REPEATED", "SAME_IMAGE", "Quantity", "relative_error"]

Quantity = Literal["wave", "rate", "patches", "merge", "update", "loss", "gradient"]

FLOAT32: dict[Quantity, float] = {
    "wave": 1e-5,  # shift, propagation, exit waves
    "rate": 1e-5,  # |wave|²: twice the wave's error
    "patches": 0.0,  # extraction copies
    "merge": 1e-5,  # a quotient of sums of few terms
    "update": 1e-5,  # two propagations and a quotient whose denominator has a floor
    "loss": 1e-5,
    "gradient": 1e-4,
}
"""Largest error of an engine that computes in single precision, relative to the largest magnitude."""

FLOAT64: dict[Quantity, float] = {
    "wave": 1e-12,
    "rate": 1e-12,
    "patches": 0.0,
    "merge": 1e-12,
    "update": 1e-12,
    "loss": 1e-12,
    "gradient": 1e-11,
}
"""The same in double precision: the formula is the same, or it is not; nothing can hide behind rounding."""

REPEATED = 1e-5
"""The same training made twice in one process: equal to the last bit, but for sums that threads add in any order."""

SAME_IMAGE = 1e-4
"""The same model in another process, which may have chosen other kernels for the same operations."""

OTHER_IMAGE = 1e-3
"""What differs by less is the same image."""


def relative_error(found: Any, wanted: Any) -> float:
    """Largest absolute difference over the largest magnitude wanted; infinite for another shape."""
    found, wanted = np.asarray(found), np.asarray(wanted)
    if found.shape != wanted.shape:
        return float("inf")
    peak = float(np.abs(wanted).max())
    return float(np.abs(found - wanted).max()) / (peak if peak > 0 else 1.0)
