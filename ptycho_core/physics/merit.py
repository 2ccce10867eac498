"""How good an image is beside what noise allows: deviance, R-factor and Fourier error, with floors (FM-11, FM-22).

A figure says little without the value that the true image would have. So each sum over pixels comes with the
expectation of the same sum under k ~ Poisson(λ). At low counts that expectation is far from its limit (a pixel of 0.01
expected counts adds 0.09 to the deviance, not 1), hence it is taken pixel by pixel and not from the number of pixels.

The expectation is that of the image's own λ, so two images of one scan have two floors. Which of them explains the
frames better is told by Σd alone, the column ``deviance`` of :func:`frame_sums`, whose order is that of the Poisson
loss. Far below one count a pixel the reduced deviance can not tell at all: a flat λ with the right sum has 1 as well,
and a λ that is too high less.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .likelihood import RATE_FLOOR

__all__ = [
    "SUMS",
    "Figures",
    "expected_abs_amplitude_error",
    "expected_deviance",
    "expected_sq_amplitude_error",
    "frame_sums",
    "gain_squared",
    "unit_deviance",
]

SUMS = ("deviance", "deviance_floor", "abs_error", "abs_floor", "sqrt_counts", "sq_error", "sq_floor", "counts")
"""Names of the columns of :func:`frame_sums`."""

# Table nodes: ln λ in equal steps up to 1, λ in equal steps from there on, so that every whole number is a node:
# E|√k − √λ| has a kink there. With 1/128 a step the interpolation errs by less than 2e-5 of the value.
_NODES_PER_UNIT = 128
_TABLE_END = 64
_LOG_NODES = math.ceil(-math.log(RATE_FLOOR) * _NODES_PER_UNIT)
_LOG_STEP = -math.log(RATE_FLOOR) / _LOG_NODES
# twelve standard deviations above the table's last rate: what is left out has a probability below 1e-20
_LAST_COUNT = _TABLE_END + 12 * math.isqrt(_TABLE_END)
# pixels worked on at once: what is in between stays in the processor's cache
_BLOCK_PIXELS = 1 << 15


def unit_deviance(counts: NDArray[Any], rate: NDArray[Any]) -> NDArray[np.float64]:
    """d(k, λ) = 2 (λ − k + k ln(k/λ)) of each pixel, 0 ln 0 = 0 (FM-11).

    Args:
        counts: (...) measured counts k ≥ 0.
        rate: (...) expected counts λ, clamped to ≥ 1e-8.

    Returns:
        (...) float64 ≥ 0, up to rounding; 0 where k = λ.
    """
    lam, k = _clamped(rate), np.asarray(counts, dtype=np.float64)
    return _deviance(k, lam, np.log(lam))


def expected_deviance(rate: NDArray[Any]) -> NDArray[np.float64]:
    """E d(k, λ) under k ~ Poisson(λ) of each pixel, to 1e-4 of its value (FM-22).

    About −2λ ln λ for small λ, 1 + 1/(6λ) for large.

    Args:
        rate: (...) expected counts λ, clamped to ≥ 1e-8.

    Returns:
        (...) float64.
    """
    return _expected(0, rate)


def expected_abs_amplitude_error(rate: NDArray[Any]) -> NDArray[np.float64]:
    """E|√k − √λ| under k ~ Poisson(λ) of each pixel, in √counts, to 1e-4 of its value (FM-22).

    About √λ for small λ, 1/√(2π) for large.

    Args:
        rate: (...) expected counts λ, clamped to ≥ 1e-8.

    Returns:
        (...) float64.
    """
    return _expected(1, rate)


def expected_sq_amplitude_error(rate: NDArray[Any]) -> NDArray[np.float64]:
    """E(√k − √λ)² under k ~ Poisson(λ) of each pixel, in counts, to 1e-4 of its value (FM-22).

    About 2λ for small λ, 1/4 for large.

    Args:
        rate: (...) expected counts λ, clamped to ≥ 1e-8.

    Returns:
        (...) float64.
    """
    return _expected(2, rate)


def gain_squared(expected: float, measured: float, background: float) -> float:
    """g² = (Σk − Σb) / (Σλ − Σb): with it as many counts are expected as were measured (FM-11).

    Args:
        expected: Σλ over the good pixels of some frames, > Σb.
        measured: Σk over the same.
        background: Σb over the same.
    """
    return (measured - background) / (expected - background)


def frame_sums(rate: NDArray[Any], counts: NDArray[Any], mask: NDArray[np.bool_] | None) -> NDArray[np.float64]:
    """The sums of each frame that the figures are made of, over its good pixels (FM-11, FM-22).

    Sums of all frames add up, so a scan can be scored in pieces. What lies in bad pixels is never looked at.

    Args:
        rate: (J, N, N) expected counts λ with the gain in them, clamped to ≥ 1e-8.
        counts: (J, N, N) measured counts k.
        mask: (N, N) True = good, or None.

    Returns:
        (J, 8) float64, columns named by :data:`SUMS`: Σd, ΣE d, Σ|√k − √λ|, its expectation, Σ√k, Σ(√λ − √k)², its
        expectation, Σk.
    """
    sums = np.zeros((len(counts), len(SUMS)))
    step = max(1, _BLOCK_PIXELS // max(1, math.prod(counts.shape[1:])))
    for first in range(0, len(counts), step):
        block = slice(first, first + step)
        sums[block] = _sums_of_pixels(_good_pixels(rate[block], mask), _good_pixels(counts[block], mask))
    return sums


@dataclass(frozen=True)
class Figures:
    """How well an image explains frames, and how well the truth would (FM-11, FM-22).

    Attributes:
        deviance: Σd / ΣE d, no unit; 1 is all that noise allows; no measure to choose between images.
        r_factor: Σ|√k − √λ| / Σ√k, no unit.
        r_factor_floor: what noise alone makes of ``r_factor``.
        fourier_error: Σ(√λ − √k)² / Σk, no unit.
        fourier_error_floor: what noise alone makes of ``fourier_error``.
        n_frames: frames that were summed over.

    A figure is NaN where it has nothing to be divided by: no frames, no good pixels, or (all but the deviance) no
    counts.
    """

    deviance: float
    r_factor: float
    r_factor_floor: float
    fourier_error: float
    fourier_error_floor: float
    n_frames: int

    @classmethod
    def of(cls, sums: NDArray[np.float64]) -> Figures:
        """Figures of all frames together.

        Args:
            sums: (n, 8) from :func:`frame_sums`.
        """
        total = dict(zip(SUMS, np.asarray(sums).sum(axis=0).tolist(), strict=True))
        return cls(
            deviance=_ratio(total["deviance"], total["deviance_floor"]),
            r_factor=_ratio(total["abs_error"], total["sqrt_counts"]),
            r_factor_floor=_ratio(total["abs_floor"], total["sqrt_counts"]),
            fourier_error=_ratio(total["sq_error"], total["counts"]),
            fourier_error_floor=_ratio(total["sq_floor"], total["counts"]),
            n_frames=len(sums),
        )

    def to_mapping(self) -> dict[str, float | int | None]:
        """Plain values for a JSON file; None where a figure is not finite."""
        return {name: value if math.isfinite(value) else None for name, value in asdict(self).items()}


def _clamped(rate: NDArray[Any]) -> NDArray[np.float64]:
    return np.maximum(np.asarray(rate, dtype=np.float64), RATE_FLOOR)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole != 0 else math.nan


def _good_pixels(frames: NDArray[Any], mask: NDArray[np.bool_] | None) -> NDArray[np.float64]:
    """The good pixels of frames (J, N, N) as (J, n_good) float64."""
    picked = frames.reshape(len(frames), -1) if mask is None else frames[:, mask]
    return np.asarray(picked, dtype=np.float64)


def _deviance(k: NDArray[np.float64], lam: NDArray[np.float64], log_lam: NDArray[np.float64]) -> NDArray[np.float64]:
    # the smallest number in place of 0 keeps the logarithm finite, and k = 0 in front of it makes the term 0
    log_k = np.log(np.maximum(k, np.finfo(np.float64).tiny))
    return 2 * (lam - k + k * (log_k - log_lam))


def _sums_of_pixels(rate: NDArray[np.float64], k: NDArray[np.float64]) -> NDArray[np.float64]:
    """(J, 8) from good pixels (J, n_good)."""
    lam = _clamped(rate)
    log_lam = np.log(lam)
    root_k = np.sqrt(k)
    error = np.sqrt(lam) - root_k
    deviance_floor, abs_floor, sq_floor = _interpolated(lam, log_lam)
    columns = (
        *(_deviance(k, lam, log_lam), deviance_floor),
        *(np.abs(error), abs_floor, root_k),
        *(error**2, sq_floor, k),
    )
    return np.stack([column.sum(axis=-1) for column in columns], axis=-1)


def _expected(which: int, rate: NDArray[Any]) -> NDArray[np.float64]:
    """One of E d, E|√k − √λ| and E(√k − √λ)² of each pixel."""
    lam = _clamped(rate)
    return np.asarray(_interpolated(lam, np.log(lam))[which])


@cache
def _table() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The three expectations on the nodes and their differences from node to node, (3, nodes) and (3, nodes − 1).

    Exact sums over Poisson's probabilities, p_k = p_{k−1} λ / k.
    """
    small = np.exp(-_LOG_STEP * np.arange(_LOG_NODES, 0, -1))
    lam = np.concatenate([small, 1 + np.arange((_TABLE_END - 1) * _NODES_PER_UNIT + 1) / _NODES_PER_UNIT])
    log_lam, root = np.log(lam), np.sqrt(lam)
    probability = np.exp(-lam)
    values = np.zeros((3, len(lam)))
    for k in range(_LAST_COUNT + 1):
        error = root - math.sqrt(k)
        values[0] += probability * _deviance(np.array(float(k)), lam, log_lam)
        values[1] += probability * np.abs(error)
        values[2] += probability * error**2
        probability = probability * lam / (k + 1)
    return values, np.diff(values)


def _interpolated(lam: NDArray[np.float64], log_lam: NDArray[np.float64]) -> NDArray[np.float64]:
    """The three expectations, (3, ...), of clamped rates: linear between nodes, the series beyond the table."""
    values, differences = _table()
    place = np.where(lam < 1, _LOG_NODES + log_lam / _LOG_STEP, _LOG_NODES + (lam - 1) * _NODES_PER_UNIT)
    # comparisons with NaN are false: such a rate reads cell 0 and stays NaN through its place
    inside = np.where(place > 0, np.minimum(place, differences.shape[1] - 1), 0)
    cell = inside.astype(np.intp)
    rest = place - cell
    out = np.take(values, cell, axis=1) + rest * np.take(differences, cell, axis=1)
    beyond = lam > _TABLE_END
    if beyond.any():
        out[:, beyond] = _series(lam[beyond])
    return out


def _series(lam: NDArray[np.float64]) -> NDArray[np.float64]:
    """The three expectations, (3, ...), of rates above 64, by their series in 1/λ; they err by less than 1e-5.

    The sum over whole k of |√k − √λ|, which has a kink at λ = n + t, differs from its integral by −B₂(t)/2 times the
    jump of the slope (Euler and Maclaurin), hence t(1 − t).
    """
    inverse = 1 / lam
    t = np.mod(lam, 1)
    return np.stack(
        [
            1 + inverse * (1 / 6 + inverse / 6),
            (1 + inverse * (1 / 12 + t * (1 - t) / 2 + inverse * 631 / 4320)) / math.sqrt(2 * math.pi),
            1 / 4 + inverse * (7 / 64 + inverse * 75 / 512),
        ]
    )
