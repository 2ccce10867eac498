"""Two complex images of one object on the same pixels: cropped by origin, registered, freed of what is unknowable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import EvaluationError
from .registration import _inside, _ramp, _sample, register

__all__ = ["Alignment", "align"]

_MIN_PIXELS = 256

_FAR_PX = 1e15
"""Where doubles no longer tell parts of a pixel."""


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """Two images on the same pixels, ready to be compared.

    Attributes:
        estimate: (H, W) complex128, its global phase, ramp and scale removed.
        truth: (H, W) complex128, resampled on the pixels of the estimate.
        region: (H, W) bool, where the two may be compared.
        weight: (H, W) float64 weights of the least squares, 0 outside the region.
        origin_px: (2,) float64 scan coordinates (y, x) of pixel (0, 0) by the estimate's origin.
        shift_px: (2,) float64 Δ (y, x): how far the estimate's content lies from where its origin says it is.
        ramp_rad_per_px: (2,) float64 k (y, x) that was removed.
        scale: modulus by which the estimate was divided.
        phase_rad: global phase that was removed, at the middle of the images.
    """

    estimate: NDArray[np.complex128]
    truth: NDArray[np.complex128]
    region: NDArray[np.bool_]
    weight: NDArray[np.float64]
    origin_px: NDArray[np.float64]
    shift_px: NDArray[np.float64]
    ramp_rad_per_px: NDArray[np.float64]
    scale: float
    phase_rad: float


def _image(image: NDArray[Any], name: str) -> NDArray[np.complex128]:
    if image.ndim != 2 or not np.iscomplexobj(image):
        raise EvaluationError(
            f"the {name} has shape {image.shape} and dtype {image.dtype}; it must be a complex image (H, W), "
            "amplitude · e^{iφ}."
        )
    return np.asarray(image, dtype=np.complex128)


def _coverage_weight(
    coverage: NDArray[Any] | None, shape: tuple[int, ...], min_coverage: float, name: str
) -> NDArray[np.float64]:
    """1 where an image is well covered, less where the light was weaker, 0 where there was too little of it."""
    if coverage is None:
        return np.ones(shape)
    if coverage.shape != shape:
        raise EvaluationError(f"the coverage of the {name} has shape {coverage.shape}, the image {shape}.")
    if not np.isfinite(coverage).all() or coverage.min() < 0 or not coverage.any():
        raise EvaluationError(f"the coverage of the {name} must be finite, ≥ 0 and somewhere positive.")
    # half of the light falls on pixels covered less than this: a wide faint border and bright spots hardly matter
    ordered = np.sort(coverage, axis=None).astype(np.float64)
    light = np.cumsum(ordered)
    typical = ordered[np.searchsorted(light, 0.5 * light[-1])]
    relative = np.asarray(coverage, dtype=np.float64) / typical
    return np.where(relative >= min_coverage, np.minimum(relative, 1.0), 0.0)


def align(
    estimate: NDArray[Any],
    estimate_origin_px: ArrayLike,
    truth: NDArray[Any],
    truth_origin_px: ArrayLike,
    *,
    coverage: NDArray[Any] | None = None,
    truth_coverage: NDArray[Any] | None = None,
    min_coverage: float = 0.3,
    positions_px: NDArray[Any] | None = None,
    max_shift_px: float = 16.0,
) -> Alignment:
    """Crop two images to their common pixels and take shift, global phase, phase ramp and scale out of one.

    Args:
        estimate: (H, W) complex.
        estimate_origin_px: (2,) scan coordinates (y, x) of the centre of its pixel (0, 0).
        truth: (H', W') complex.
        truth_origin_px: (2,) the same of the truth.
        coverage: (H, W) ≥ 0, how much light each pixel of the estimate saw; also its weight. None: all alike.
        truth_coverage: (H', W') the same of the truth, when that is a reconstruction too.
        min_coverage: least coverage of a compared pixel, in units of its typical value inside the scan.
        positions_px: (M, 2) frame centres (y, x); when given, only pixels inside their bounding box are compared.
        max_shift_px: largest shift along each axis that is looked for.

    Returns:
        The two images on the pixels of the estimate.

    Raises:
        EvaluationError: not complex images, no overlap, too few covered pixels, NaN inside them, a constant image.
    """
    a, b = _image(estimate, "estimate"), _image(truth, "truth")
    weight = _coverage_weight(coverage, a.shape, min_coverage, "estimate")
    b_weight = _coverage_weight(truth_coverage, b.shape, min_coverage, "truth")
    if truth_coverage is not None and (b_weight > 0).any():
        b = np.where(b_weight > 0, b, b[b_weight > 0].mean())  # unlit pixels would ring into the lit ones
    origin, b_origin = (np.asarray(o, dtype=np.float64) for o in (estimate_origin_px, truth_origin_px))
    for name, start in (("estimate", origin), ("truth", b_origin)):
        if not (np.abs(start) < _FAR_PX).all():
            raise EvaluationError(
                f"the {name} starts at {start.tolist()}; its origin (y, x) must be finite, in pixels."
            )
    d = origin - b_origin
    low = np.maximum(np.floor(0.5 - d), 0).astype(int)
    high = np.minimum(np.ceil(np.array(b.shape) - 0.5 - d), a.shape).astype(int)
    if (high - low < 1).any():
        raise EvaluationError(
            f"the images do not overlap: the estimate of shape {a.shape} starts at {origin.tolist()}, the truth of "
            f"shape {b.shape} at {b_origin.tolist()}; check both origins (y, x)."
        )
    crop = (slice(low[0], high[0]), slice(low[1], high[1]))
    a, weight, origin, d = a[crop], weight[crop], origin + low, d + low
    if positions_px is not None:
        box = np.asarray(positions_px)
        at = [origin[i] + np.arange(a.shape[i]) for i in range(2)]
        held = [(at[i] >= box[:, i].min()) & (at[i] <= box[:, i].max()) for i in range(2)]
        weight = weight * (held[0][:, None] & held[1])
    weight = _checked_weight(a, weight * _nearest(b_weight, d, a.shape))
    a = np.where(weight > 0, a, 0)
    if not np.isfinite(b).all():
        raise EvaluationError("the truth holds NaN or infinite values.")
    _, ramp, shift = register(a, b, weight, offset_px=d, max_shift_px=max_shift_px)
    return _finish(a, b, weight * (_nearest(b_weight, d - shift, a.shape) > 0), origin, d, ramp, shift)


def _nearest(image: NDArray[np.float64], offset_px: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.float64]:
    """Value of an image at the pixel nearest to r + offset, 0 beyond its border."""
    whole = np.floor(offset_px + 0.5).astype(int)
    rows, columns = (
        np.clip(np.arange(n) + start, 0, limit - 1) for n, start, limit in zip(shape, whole, image.shape, strict=True)
    )
    return image[np.ix_(rows, columns)] * _inside(offset_px, shape, image.shape)


def _checked_weight(image: NDArray[np.complex128], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    n = int((weight > 0).sum())
    if n < _MIN_PIXELS:
        raise EvaluationError(
            f"only {n} pixels lie in both images, in the scan and under enough light; at least {_MIN_PIXELS} are "
            "needed. Lower min_coverage, or check the origins."
        )
    if not np.isfinite(image[weight > 0]).all():
        raise EvaluationError("the estimate holds NaN or infinite values in the compared region.")
    return weight


def _finish(
    a: NDArray[np.complex128],
    b: NDArray[np.complex128],
    weight: NDArray[np.float64],
    origin_px: NDArray[np.float64],
    offset_px: NDArray[np.float64],
    ramp: NDArray[np.float64],
    shift_px: NDArray[np.float64],
) -> Alignment:
    """Take the fit out of the estimate; the scale comes from the moduli, which errors of phase leave as they are."""
    truth = _sample(b, offset_px - shift_px, a.shape)[0]
    _checked_weight(a, weight)
    flat = a * np.conj(_ramp(ramp, a.shape))
    phase = float(np.angle(np.sum(weight * flat * np.conj(truth))))
    scale = float(np.sum(weight * np.abs(a) ** 2) / np.sum(weight * np.abs(a) * np.abs(truth)))
    aligned = flat * np.exp(-1j * phase) / scale
    return Alignment(
        estimate=aligned,
        truth=truth,
        region=weight > 0,
        weight=weight,
        origin_px=origin_px,
        shift_px=shift_px,
        ramp_rad_per_px=ramp,
        scale=scale,
        phase_rad=phase,
    )
