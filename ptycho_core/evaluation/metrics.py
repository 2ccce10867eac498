"""How close a reconstruction is to a truth, or two half-data reconstructions are to one another.

Every figure is taken after :func:`ptycho_core.evaluation.alignment.align`: on the pixels that both images cover inside
the scan, with shift, global phase, phase ramp and scale removed. A constant image is refused, not scored: against a
smooth truth a collapsed network gets a respectable PSNR.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..data.findings import Comparison, FourierRingCorrelation
from ..errors import EvaluationError
from ..physics.relative import CONSTANT_BELOW, relative_variation
from .alignment import Alignment, align
from .registration import register

__all__ = [
    "Alignment",
    "Comparison",
    "FourierRingCorrelation",
    "align",
    "compare_objects",
    "fourier_ring_correlation",
    "half_data_frc",
    "register",
    "soft_window",
]

_LEAST_CONTRAST = 1e-3
"""Range of a truth, relative to its modulus or in radians, up to which it has no contrast to score by: interpolation by
the last thousandth of a pixel leaves as much, and the ratio of an error to it means nothing."""

_SSIM_WINDOW_PX = 7
_FIRST_RINGS = 5


def soft_window(region: NDArray[np.bool_]) -> NDArray[np.float64]:
    """A window that rises from 0 outside a region to 1 inside it over an eighth of the region's lesser extent.

    Args:
        region: (H, W) bool; the border of the array counts as outside.

    Returns:
        (H, W) float64 in [0, 1], a raised cosine of the distance to the region's edge.
    """
    from scipy.ndimage import distance_transform_edt

    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    width = max(2.0, min(np.ptp(rows) + 1, np.ptp(columns) + 1) / 8)
    depth = distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]
    return np.asarray(np.sin(0.5 * np.pi * np.clip((depth - 0.5) / width, 0, 1)) ** 2)


def _cutoff(frequency: NDArray[np.float64], correlation: NDArray[np.float64], threshold: NDArray[np.float64]) -> float:
    """First fall of a curve through a threshold, interpolated; see :class:`FourierRingCorrelation`."""
    above = correlation - threshold
    # ptychography carries the lowest frequencies badly, and their rings hold few pixels: do not give up at the first
    start = next((i for i in range(min(_FIRST_RINGS, len(above))) if above[i] >= 0), None)
    if start is None:
        return 0.0
    for i in range(start + 1, len(above)):
        if above[i] < 0:
            part = above[i - 1] / (above[i - 1] - above[i])
            return float(frequency[i - 1] + part * (frequency[i] - frequency[i - 1]))
    return float(frequency[-1])


def fourier_ring_correlation(
    first: NDArray[Any], second: NDArray[Any], *, window: NDArray[np.float64] | None = None
) -> FourierRingCorrelation:
    """FRC(f) = Re Σ A B* / √(Σ|A|² Σ|B|²) over rings of one pixel of the shorter side (Saxton & Baumeister 1982).

    Both images have their mean removed and are multiplied by the same window before the transform; without it the
    edges of the image put a cross through every ring that two images share whatever they show.

    Args:
        first: (H, W) complex or real, on the same pixels as `second`.
        second: (H, W) complex or real.
        window: (H, W) weights in [0, 1]; a raised-cosine border when None.

    Raises:
        EvaluationError: shapes differ, fewer than 8 pixels a side, not finite, or an image that is constant.
    """
    if first.shape != second.shape or first.ndim != 2 or min(first.shape) < 8:
        raise EvaluationError(
            f"images of shape {first.shape} and {second.shape} have no ring correlation; "
            "they must be of one shape (H, W), at least 8 pixels a side."
        )
    window = soft_window(np.ones(first.shape, dtype=bool)) if window is None else window
    spectra = []
    for name, image in (("first", first), ("second", second)):
        if not np.isfinite(image).all():
            raise EvaluationError(f"the {name} image holds NaN or infinite values.")
        if relative_variation(image, window) < CONSTANT_BELOW:
            raise EvaluationError(f"the {name} image is constant; a constant image is not scored.")
        mean = np.sum(window * image) / window.sum()
        spectra.append(np.fft.fft2(window * (image - mean)))
    side = min(first.shape)
    radius = np.hypot(np.fft.fftfreq(first.shape[0])[:, None], np.fft.fftfreq(first.shape[1]))
    ring = np.floor(radius * side + 0.5).astype(int).ravel()
    n_rings = side // 2

    def over_rings(values: NDArray[Any]) -> NDArray[np.float64]:
        return np.asarray(np.bincount(ring, weights=values.ravel())[1 : n_rings + 1], dtype=np.float64)

    cross, power = over_rings((spectra[0] * spectra[1].conj()).real), [over_rings(np.abs(s) ** 2) for s in spectra]
    norm = np.sqrt(power[0] * power[1])
    correlation = np.divide(cross, norm, out=np.zeros(n_rings), where=norm > 0)
    n_pixels = np.bincount(ring)[1 : n_rings + 1]
    # a window leaves fewer independent pixels in a ring, and those of real images come in pairs
    share = np.sum(window**2) ** 2 / np.sum(window**4) / window.size
    real = not (np.iscomplexobj(first) or np.iscomplexobj(second))
    root = np.sqrt(np.maximum(n_pixels * share / (2 if real else 1), 1))
    half_bit = (0.2071 + 1.9102 / root) / (1.2071 + 0.9102 / root)
    frequency = np.arange(1, n_rings + 1) / side
    return FourierRingCorrelation(
        frequency=frequency,
        correlation=correlation,
        n_pixels=n_pixels,
        half_bit=half_bit,
        cutoff_half=_cutoff(frequency, correlation, np.full(n_rings, 1 / 2)),
        cutoff_one_seventh=_cutoff(frequency, correlation, np.full(n_rings, 1 / 7)),
        cutoff_half_bit=_cutoff(frequency, correlation, half_bit),
    )


def _region_frc(aligned: Alignment) -> FourierRingCorrelation:
    """FRC on the bounding box of the compared region, under its soft window."""
    rows, columns = (np.flatnonzero(aligned.region.any(axis=axis)) for axis in (1, 0))
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    if min(np.ptp(rows), np.ptp(columns)) < 8:
        raise EvaluationError(
            f"the compared region is {np.ptp(rows) + 1}×{np.ptp(columns) + 1} pixels; a ring correlation needs 9×9."
        )
    window = soft_window(aligned.region[box])
    if not window.any():
        raise EvaluationError("the compared region is too ragged for a ring correlation; lower min_coverage.")
    return fourier_ring_correlation(aligned.estimate[box], aligned.truth[box], window=window)


def _psnr_db(error: NDArray[np.float64], peak: float) -> float:
    """10 log₁₀(peak² / ⟨error²⟩); infinite for no error."""
    mean_square = float(np.mean(error**2))
    return 10 * math.log10(peak**2 / mean_square) if mean_square > 0 else math.inf


def _ssim(estimate: NDArray[np.float64], truth: NDArray[np.float64], region: NDArray[np.bool_], peak: float) -> float:
    """Mean structural similarity over the windows that lie wholly in a region; NaN when none does."""
    from scipy.ndimage import binary_erosion
    from skimage.metrics import structural_similarity

    whole = binary_erosion(region, np.ones((_SSIM_WINDOW_PX, _SSIM_WINDOW_PX), dtype=bool))
    if not whole.any():
        return math.nan
    images = (np.where(region, image, 0.0) for image in (truth, estimate))
    _, similarity = structural_similarity(  # type: ignore[no-untyped-call,unused-ignore]
        *images, win_size=_SSIM_WINDOW_PX, data_range=peak, full=True
    )
    return float(similarity[whole].mean())


def _score(
    estimate: NDArray[np.float64], truth: NDArray[np.float64], region: NDArray[np.bool_], least_peak: float
) -> tuple[float, float, float]:
    """PSNR, its peak and SSIM of real images; both figures NaN when the truth does not vary in the region."""
    peak = float(np.ptp(truth[region]))
    if peak <= least_peak:
        return math.nan, peak, math.nan
    return _psnr_db((estimate - truth)[region], peak), peak, _ssim(estimate, truth, region, peak)


def compare_objects(
    estimate: NDArray[Any],
    estimate_origin_px: ArrayLike,
    truth: NDArray[Any],
    truth_origin_px: ArrayLike,
    *,
    coverage: NDArray[Any] | None = None,
    min_coverage: float = 0.3,
    positions_px: NDArray[Any] | None = None,
    max_shift_px: float = 16.0,
) -> Comparison:
    """Score a reconstruction against a truth, after registration and removal of what no reconstruction can know.

    Args:
        estimate: (H, W) complex.
        estimate_origin_px: (2,) scan coordinates (y, x) of the centre of its pixel (0, 0).
        truth: (H', W') complex.
        truth_origin_px: (2,) the same of the truth.
        coverage: (H, W) ≥ 0 of the estimate (``Image.coverage``), or None to compare all of it.
        min_coverage: least coverage of a compared pixel, in units of its typical value inside the scan.
        positions_px: (M, 2) frame centres (y, x); when given, only pixels inside their bounding box are compared.
        max_shift_px: largest shift along each axis that is looked for.

    Raises:
        EvaluationError: not complex images, no overlap, too few covered pixels, NaN inside them, a constant image.
    """
    aligned = align(
        estimate,
        estimate_origin_px,
        truth,
        truth_origin_px,
        coverage=coverage,
        min_coverage=min_coverage,
        positions_px=positions_px,
        max_shift_px=max_shift_px,
    )
    a, b, region = aligned.estimate, aligned.truth, aligned.region
    mean_modulus = float(np.abs(b[region]).mean())
    amplitude = _score(np.abs(a), np.abs(b), region, _LEAST_CONTRAST * mean_modulus)
    # phases about their mean, and the estimate's as the truth's plus the error: both wrap at the same pixels
    truth_phase = np.angle(b * np.conj(b[region].sum()))
    phase = _score(truth_phase + np.angle(a * np.conj(b)), truth_phase, region, _LEAST_CONTRAST)
    u, v = a[region] - a[region].mean(), b[region] - b[region].mean()
    return Comparison(
        amplitude_psnr_db=amplitude[0],
        amplitude_peak=amplitude[1],
        phase_psnr_db=phase[0],
        phase_peak_rad=phase[1],
        amplitude_ssim=amplitude[2],
        phase_ssim=phase[2],
        correlation=float(np.abs(np.vdot(u, v)) / (np.linalg.norm(u) * np.linalg.norm(v))),
        frc=_region_frc(aligned),
        shift_px=(float(aligned.shift_px[0]), float(aligned.shift_px[1])),
        ramp_rad_per_px=(float(aligned.ramp_rad_per_px[0]), float(aligned.ramp_rad_per_px[1])),
        scale=aligned.scale,
        phase_rad=aligned.phase_rad,
        n_pixels=int(region.sum()),
    )


def half_data_frc(
    first: NDArray[Any],
    first_origin_px: ArrayLike,
    second: NDArray[Any],
    second_origin_px: ArrayLike,
    *,
    first_coverage: NDArray[Any] | None = None,
    second_coverage: NDArray[Any] | None = None,
    min_coverage: float = 0.3,
    positions_px: NDArray[Any] | None = None,
    max_shift_px: float = 16.0,
) -> FourierRingCorrelation:
    """FRC of two reconstructions of one scan, each from half of its frames, registered and freed of phase and ramp.

    The ramp between the two is taken out of the first, so the rings are centred on zero frequency of the second. Halves
    reconstructed with one probe have next to no ramp of their own.

    Args:
        first: (H, W) complex.
        first_origin_px: (2,) scan coordinates (y, x) of the centre of its pixel (0, 0).
        second: (H', W') complex.
        second_origin_px: (2,) the same of the second.
        first_coverage: (H, W) ≥ 0, or None.
        second_coverage: (H', W') ≥ 0, or None.
        min_coverage: least coverage of a compared pixel in each, in units of its typical value inside the scan.
        positions_px: (M, 2) frame centres (y, x); when given, only pixels inside their bounding box are compared.
        max_shift_px: largest shift along each axis that is looked for.

    Raises:
        EvaluationError: see :func:`compare_objects`.
    """
    return _region_frc(
        align(
            first,
            first_origin_px,
            second,
            second_origin_px,
            coverage=first_coverage,
            truth_coverage=second_coverage,
            min_coverage=min_coverage,
            positions_px=positions_px,
            max_shift_px=max_shift_px,
        )
    )
