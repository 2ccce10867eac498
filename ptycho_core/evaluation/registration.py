"""Registration of two complex images of one object: sub-pixel shift, phase ramp, phase and scale in one fit.

A reconstruction is known only up to a global phase, a scale, a linear phase ramp and a shift (each of which the probe
can undo), and two reconstructions need not share a pixel grid. The model, with r the pixel of the estimate, d the
difference of the origins and Δ the shift left after both origins were honoured, is

    estimate(r) ≈ c · e^{ik·r} · truth(r + d − Δ).

k and Δ start from correlation peaks and all six numbers are refined together by weighted least squares with analytical
derivatives, so that a ramp cannot pass for a shift. The truth is resampled, never the estimate: a Fourier shift spreads
the unlit border of a reconstruction over its inside, and a truth has no such border.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import EvaluationError
from ..physics.relative import CONSTANT_BELOW, relative_variation

__all__ = ["register"]

_TAPER_PX = 24
_BORDER_PX = 3
_FIT_PX = 640
_MAX_STEPS = 40


def _is_constant(image: NDArray[np.complex128], weight: NDArray[np.float64]) -> bool:
    """Whether an image is constant, or a constant times e^{ik·r}: then each pixel over its neighbour is constant."""
    if relative_variation(np.abs(image), weight) >= CONSTANT_BELOW:
        return False
    for axis in (0, 1):
        here, there = (np.take(image, np.arange(i, image.shape[axis] - 1 + i), axis) for i in (0, 1))
        both = np.minimum(*(np.take(weight, np.arange(i, weight.shape[axis] - 1 + i), axis) for i in (0, 1)))
        if both.any() and relative_variation(there * np.conj(here), both) >= CONSTANT_BELOW:
            return False
    return True


def _sample(
    image: NDArray[np.complex128], offset_px: NDArray[np.float64], shape: tuple[int, int]
) -> tuple[NDArray[np.complex128], NDArray[np.complex128], NDArray[np.complex128]]:
    """Values image(r + offset) on a grid (H, W) and their derivatives along y and x, by Fourier interpolation.

    A border is added (from the image where it has one, else its edge repeated) and faded to the mean, because an image
    that does not end as it begins would ring where the transform wraps it around.
    """
    whole = np.floor(offset_px + 0.5).astype(int)
    rest = offset_px - whole
    rows, columns = (
        np.clip(np.arange(-_TAPER_PX, n + _TAPER_PX) + start, 0, limit - 1)
        for n, start, limit in zip(shape, whole, image.shape, strict=True)
    )
    piece = image[np.ix_(rows, columns)]
    inside = (slice(_TAPER_PX, -_TAPER_PX),) * 2
    rise = np.sin(0.5 * np.pi * (np.arange(_TAPER_PX) + 0.5) / _TAPER_PX) ** 2
    fade_y, fade_x = (np.concatenate([rise, np.ones(n), rise[::-1]]) for n in shape)
    mean = piece[inside].mean()
    spectrum = np.fft.fft2((piece - mean) * fade_y[:, None] * fade_x)
    slope_y, slope_x = (2j * np.pi * np.fft.fftfreq(n) for n in piece.shape)
    spectrum *= np.exp(slope_y * rest[0])[:, None] * np.exp(slope_x * rest[1])
    values = np.fft.ifft2(spectrum)[inside] + mean
    return values, np.fft.ifft2(spectrum * slope_y[:, None])[inside], np.fft.ifft2(spectrum * slope_x)[inside]


def _inside(
    offset_px: NDArray[np.float64], shape: tuple[int, int], limit: tuple[int, ...], margin_px: float = -0.01
) -> NDArray[np.bool_]:
    """Pixels r of a grid (H, W) whose point r + offset lies on an image of shape `limit`, off its border."""
    good = []
    for n, start, size in zip(shape, offset_px, limit, strict=True):
        at = np.arange(n) + start
        good.append((at >= margin_px) & (at <= size - 1 - margin_px))
    return np.asarray(good[0][:, None] & good[1])


def _centred(shape: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pixel coordinates from the middle of an image, as a column and a row."""
    y, x = (np.arange(n, dtype=np.float64) - (n - 1) / 2 for n in shape)
    return y[:, None], x[None, :]


def _ramp(k: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.complex128]:
    y, x = _centred(shape)
    return np.asarray(np.exp(1j * k[0] * y) * np.exp(1j * k[1] * x))


def _coarse_ramp(
    estimate: NDArray[np.complex128], truth: NDArray[np.complex128], weight: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Ramp k of the strongest plane wave in estimate · truth*, to half a bin of a twofold padded transform."""
    shape = tuple(2 * n for n in estimate.shape)
    spectrum = np.abs(np.fft.fft2(weight * estimate * np.conj(truth), shape))
    peak = np.unravel_index(np.argmax(spectrum), spectrum.shape)
    return np.array([2 * np.pi * np.fft.fftfreq(n)[i] for n, i in zip(shape, peak, strict=True)])


def _detail(image: NDArray[np.complex128], weight: NDArray[np.float64], blur_px: float) -> NDArray[np.complex128]:
    """An image less its weighted local mean, 0 where it has no weight."""
    from scipy.ndimage import gaussian_filter

    around = gaussian_filter(weight * image, blur_px)
    share = gaussian_filter(weight, blur_px)
    lit = weight > 0
    return np.asarray(np.where(lit, image - around / np.where(lit, share, 1), 0))


def _coarse_shift(
    estimate: NDArray[np.complex128],
    truth: NDArray[np.complex128],
    weight: NDArray[np.float64],
    offset_px: NDArray[np.float64],
    reach: int,
) -> NDArray[np.float64]:
    """Whole-pixel Δ, at most `reach` along each axis, of the highest normalised correlation after mean removal.

    The mean removed is a local one: what is left of a ramp makes a slow wave of the global mean, which would drown the
    detail.
    """
    from scipy.signal import correlate

    H, W = estimate.shape
    blur_px = min(H, W) / 12
    wide, _, _ = _sample(truth, offset_px - reach, (H + 2 * reach, W + 2 * reach))
    wide = _detail(wide, np.ones(wide.shape), blur_px)
    overlap = np.abs(correlate(wide, weight * _detail(estimate, weight, blur_px), mode="valid", method="fft"))
    power = correlate(np.abs(wide) ** 2, weight, mode="valid", method="fft")
    level = np.abs(correlate(wide, weight.astype(complex), mode="valid", method="fft")) ** 2 / weight.sum()
    spread = np.maximum(power - level, 1e-6 * power.max())
    at = np.unravel_index(np.argmax(overlap / np.sqrt(spread)), overlap.shape)
    return reach - np.array(at, dtype=np.float64)


@dataclass
class _Fit:
    """c, k and Δ, and how well they explain the estimate."""

    factor: complex
    ramp: NDArray[np.float64]
    shift: NDArray[np.float64]

    def moved(self, step: NDArray[np.float64]) -> _Fit:
        return _Fit(self.factor + complex(step[0], step[1]), self.ramp + step[2:4], self.shift + step[4:6])


def _linearise(
    fit: _Fit,
    estimate: NDArray[np.complex128],
    truth: NDArray[np.complex128],
    weight: NDArray[np.float64],
    offset_px: NDArray[np.float64],
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Cost Σ w |estimate − model|², normal matrix (6, 6) and right side (6,) of the step that lowers it."""
    values, slope_y, slope_x = _sample(truth, offset_px - fit.shift, estimate.shape)
    wave = _ramp(fit.ramp, estimate.shape)
    y, x = _centred(estimate.shape)
    model = fit.factor * wave * values
    columns = [wave * values, 1j * wave * values, 1j * y * model, 1j * x * model]
    columns += [-fit.factor * wave * slope_y, -fit.factor * wave * slope_x]
    lit = weight > 0
    root = np.sqrt(weight[lit])
    jacobian = np.stack([root * column[lit] for column in columns])
    residual = root * (estimate - model)[lit]
    matrix = np.real(jacobian.conj() @ jacobian.T)
    return float(np.sum(np.abs(residual) ** 2)), matrix, np.real(jacobian.conj() @ residual)


def _fit_window(weight: NDArray[np.float64]) -> tuple[tuple[slice, slice], NDArray[np.int64]]:
    """A window about the centre of the weights, of a size that six numbers are plentifully determined on."""
    slices = []
    for axis, size in enumerate(weight.shape):
        profile = weight.sum(axis=1 - axis)
        middle = int(np.sum(profile * np.arange(size)) / max(profile.sum(), 1e-300))
        start = max(0, min(middle - _FIT_PX // 2, size - _FIT_PX))
        slices.append(slice(start, min(start + _FIT_PX, size)))
    return (slices[0], slices[1]), np.array([part.start for part in slices])


def register(
    estimate: NDArray[Any],
    truth: NDArray[Any],
    weight: NDArray[Any] | None = None,
    *,
    offset_px: ArrayLike = (0.0, 0.0),
    max_shift_px: float = 16.0,
) -> tuple[complex, NDArray[np.float64], NDArray[np.float64]]:
    """Fit estimate(r) ≈ c e^{ik·r} truth(r + d − Δ) by weighted least squares (Levenberg–Marquardt).

    Args:
        estimate: (H, W) complex.
        truth: (H', W') complex.
        weight: (H, W) ≥ 0; 1 when None. Pixels that fall outside the truth do not count.
        offset_px: d (y, x), pixel of the truth at the estimate's pixel (0, 0) when Δ = 0.
        max_shift_px: largest |Δ| along each axis.

    Returns:
        c (with r counted from the middle of the estimate), k (2,) radians per pixel and Δ (2,) pixels, both (y, x).

    Raises:
        EvaluationError: an image is constant, or the two do not overlap.
    """
    w = np.ones(estimate.shape) if weight is None else np.asarray(weight, dtype=np.float64)
    window, corner = _fit_window(w)
    a, b = np.asarray(estimate, dtype=np.complex128)[window], np.asarray(truth, dtype=np.complex128)
    w, d = w[window], np.asarray(offset_px, dtype=np.float64) + corner
    near = w * _inside(d, a.shape, b.shape)
    if not near.any():
        raise EvaluationError("the two images do not overlap; check their origins.")
    for name, image in (("estimate", a), ("truth", _sample(b, d, a.shape)[0])):
        if _is_constant(image, near):
            raise EvaluationError(
                f"the {name} is constant in the compared region, or a constant under a phase ramp; "
                "a constant image is not scored."
            )
    ramp, shift = np.zeros(2), np.zeros(2)
    for _ in range(2):  # the ramp is found better once the shift is known, and the other way round
        ramp = _coarse_ramp(a, _sample(b, d - shift, a.shape)[0], near)
        shift = _coarse_shift(a * np.conj(_ramp(ramp, a.shape)), b, near, d, int(max_shift_px))
    # interpolation at the truth's very border makes up what lies beyond, and would pull the fit
    w = w * _inside(d - shift, a.shape, b.shape, _BORDER_PX)
    if not w.any():
        raise EvaluationError(f"nothing is left to compare after a shift by {shift.tolist()} pixels (y, x).")
    wave = _ramp(ramp, a.shape) * _sample(b, d - shift, a.shape)[0]
    fit = _Fit(complex(np.sum(w * a * wave.conj()) / np.sum(w * np.abs(wave) ** 2)), ramp, shift)
    fit = _refine(fit, a, b, w, d, max_shift_px)
    to_middle = (np.array(estimate.shape) - np.array(a.shape)) / 2 - corner
    return fit.factor * complex(np.exp(1j * fit.ramp @ to_middle)), fit.ramp, fit.shift


def _refine(
    fit: _Fit,
    estimate: NDArray[np.complex128],
    truth: NDArray[np.complex128],
    weight: NDArray[np.float64],
    offset_px: NDArray[np.float64],
    max_shift_px: float,
) -> _Fit:
    """Lower the cost until a step no longer moves anything that could be seen."""
    cost, matrix, side = _linearise(fit, estimate, truth, weight, offset_px)
    damping = 1e-6
    for _ in range(_MAX_STEPS):
        diagonal = np.diag(matrix)
        step = np.asarray(
            np.linalg.solve(matrix + np.diag(damping * diagonal + 1e-15 * diagonal.max()), side), dtype=np.float64
        )
        trial = fit.moved(step)
        if np.abs(trial.shift).max() > max_shift_px + 1:
            damping *= 10
            continue
        new_cost, new_matrix, new_side = _linearise(trial, estimate, truth, weight, offset_px)
        if new_cost > cost:
            damping = max(10 * damping, 1e-6)
            settled = np.abs(step[4:]).max() < 1e-7  # nothing but rounding stands between this and the least cost
        else:
            settled = np.abs(step[4:]).max() < 1e-6 and np.abs(step[2:4]).max() * max(estimate.shape) < 1e-6
            fit, cost, matrix, side, damping = trial, new_cost, new_matrix, new_side, damping / 10
        if settled or damping > 1e8:
            break
    return fit
