"""What no frame tells of an object: its global phase and its ramp, taken off in one way wherever a phase is shown.

λ does not change when the object is multiplied by e^{iθ} and the probe by e^{−iθ}, nor when the object is multiplied by
e^{ik·r} and each frame's probe by the inverse. A complex object is kept as its engine left it, beside the probe that
belongs to it. A phase that is drawn or written for eyes has both taken off, here and nowhere else, so that it is the
same in files, pictures and exports (docs/decisions/0049).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["TakenOff", "phase_ramp", "ramp_wave", "shown_phase", "taken_off"]

_MOST_PIXELS = 2**20
_STEPS = 12


def _middle(weight: NDArray[Any]) -> tuple[float, float]:
    """Centre of mass (y, x) of weights (H, W), pixels of the array; its middle where there are none."""
    total = float(weight.sum(dtype=np.float64))
    if not total > 0:
        return (weight.shape[0] - 1) / 2, (weight.shape[1] - 1) / 2
    down, across = weight.sum(axis=1, dtype=np.float64), weight.sum(axis=0, dtype=np.float64)
    return float(down @ np.arange(len(down))) / total, float(across @ np.arange(len(across))) / total


def ramp_wave(ramp: tuple[float, float], middle: tuple[float, float], shape: tuple[int, ...]) -> NDArray[np.complex128]:
    """e^{ik·(r − r₀)} on an array (H, W).

    Args:
        ramp: k (y, x), radians per pixel.
        middle: r₀ (y, x), pixels of the array.
        shape: (H, W).
    """
    y, x = (np.exp(1j * k * (np.arange(n) - at)) for k, at, n in zip(ramp, middle, shape, strict=True))
    return np.asarray(y[:, None] * x[None, :])


def _mean_slope(obj: NDArray[np.complex128], weight: NDArray[np.float64]) -> tuple[float, float]:
    """Mean step of the phase from pixel to pixel along y and x, radians, by the sum of O(r + 1) O*(r)."""
    slopes = []
    for axis in (0, 1):
        n = obj.shape[axis]
        here, there = (np.take(obj, np.arange(i, n - 1 + i), axis) for i in (0, 1))
        both = np.minimum(*(np.take(weight, np.arange(i, n - 1 + i), axis) for i in (0, 1)))
        total = complex(np.sum(both * there * here.conj()))
        slopes.append(float(np.angle(total)) if total != 0 else 0.0)
    return slopes[0], slopes[1]


def phase_ramp(obj: NDArray[Any], weight: NDArray[Any]) -> tuple[float, float]:
    """The plane wave that an object is most like: k where |Σ w O e^{−ik·r}| is largest, radians per pixel (FM-37).

    Steps of least squares from no ramp and from the mean slope, and the better end: a far peak, as a grating has, is no
    ramp. For a phase that varies by less than a turn this is the plane of least squares, and nothing is unwrapped.

    Args:
        obj: (H, W) complex.
        weight: (H, W) ≥ 0.

    Returns:
        k (y, x); zeros where nothing is lit.
    """
    step = max(1, int(np.ceil(np.sqrt(obj.size / _MOST_PIXELS))))
    w = np.asarray(weight, np.float64)
    z = (w * obj)[::step, ::step].astype(np.complex128)
    if not np.abs(z).sum() > 0:
        return 0.0, 0.0
    slope = _mean_slope(np.asarray(obj, np.complex128), w)
    best, found = -1.0, (0.0, 0.0)
    for start in ((0.0, 0.0), (slope[0] * step, slope[1] * step)):
        k = _fitted(z, start)
        height = float(np.abs(np.sum(z * ramp_wave((-k[0], -k[1]), (0, 0), z.shape))))
        if height > best * (1 + 1e-9):
            best, found = height, k
    return found[0] / step, found[1] / step


def _fitted(z: NDArray[np.complex128], start: tuple[float, float]) -> tuple[float, float]:
    """Where steps of least squares of the phase lead from a ramp, of a weighted object z (H, W)."""
    light = np.abs(z)
    middle = _middle(light)
    y, x = (np.arange(n) - at for n, at in zip(z.shape, middle, strict=True))
    across = float(y @ light @ x)
    matrix = np.array([[light.sum(axis=1) @ y**2, across], [across, light.sum(axis=0) @ x**2]], dtype=np.float64)
    k = np.array(start, np.float64)
    for _ in range(_STEPS):
        flat = z * ramp_wave((-float(k[0]), -float(k[1])), middle, z.shape)
        pull = (flat * np.exp(-1j * np.angle(flat.sum()))).imag
        move = np.linalg.lstsq(matrix, np.array([pull.sum(axis=1) @ y, pull.sum(axis=0) @ x]), rcond=None)[0]
        k = k + move
        if np.abs(move * z.shape).max() < 1e-7:
            break
    return float(k[0]), float(k[1])


@dataclass(frozen=True, kw_only=True)
class TakenOff:
    """What is taken off an object to show its phase: e^{i(θ + k·(r − r₀))} (FM-37).

    Attributes:
        phase_rad: θ, the global phase.
        ramp_rad_per_px: k (y, x), radians per pixel.
        about_px: r₀ (y, x), pixels of the array: the middle of the light, where the ramp is 0.
    """

    phase_rad: float
    ramp_rad_per_px: tuple[float, float]
    about_px: tuple[float, float]

    def wave(self, shape: tuple[int, ...], corner_px: tuple[int, int] = (0, 0)) -> NDArray[np.complex128]:
        """The factor itself on a piece (H, W) of the array that begins at a corner (y, x)."""
        about = (self.about_px[0] - corner_px[0], self.about_px[1] - corner_px[1])
        return np.asarray(np.exp(1j * self.phase_rad) * ramp_wave(self.ramp_rad_per_px, about, shape))

    def describe(self) -> str:
        """What was taken off, in words."""
        y, x = self.ramp_rad_per_px
        return f"a global phase of {self.phase_rad:.4f} rad and a ramp of {y:.3g} (y) and {x:.3g} (x) rad a pixel"


def taken_off(obj: NDArray[Any], weight: NDArray[Any]) -> TakenOff:
    """Find the ramp of an object, and the global phase of what is left.

    Args:
        obj: (H, W) complex.
        weight: (H, W) ≥ 0, the coverage.
    """
    ramp, middle = phase_ramp(obj, weight), _middle(np.asarray(weight))
    down, across = (np.exp(-1j * k * (np.arange(n) - at)) for k, at, n in zip(ramp, middle, obj.shape, strict=True))
    total = complex(down @ (np.asarray(weight) * obj) @ across)
    theta = float(np.angle(total)) if total != 0 else 0.0
    return TakenOff(phase_rad=theta, ramp_rad_per_px=ramp, about_px=middle)


def shown_phase(obj: NDArray[Any], weight: NDArray[Any]) -> tuple[NDArray[np.float32], TakenOff]:
    """The phase (H, W) float32 of an object as it is shown, radians in (−π, π], and what was taken off for it.

    Args:
        obj: (H, W) complex.
        weight: (H, W) ≥ 0, the coverage.
    """
    off = taken_off(obj, weight)
    return np.angle(obj * np.conj(off.wave(obj.shape))).astype(np.float32), off
