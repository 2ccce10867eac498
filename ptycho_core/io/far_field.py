"""Is a scan a far-field scan? The question is asked of the frames, because files seldom say.

With the sample out of focus, its shadow moves over the detector as the sample moves, magnified m times. The beam, W
wide on the detector, is then W/m wide at the sample. A far-field pattern of pixels p at distance z describes a window
of λz/p at the sample (N object pixels of λz/(Np)), so that it can be one only if

    W / m ≤ λz / p,   in pixels:  W_px / κ ≤ N,   κ = detector pixels that the shadow moves per object pixel.

Otherwise the frames are Fresnel (near-field) images, which no far-field engine can explain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..data.frames import FrameSource
from ..data.raw import Geometry
from ..errors import DataError

__all__ = ["ShadowMotion", "check_far_field", "measure_shadow_motion"]

_MAX_PAIRS = 240
_LIT = 0.1
_REACHES = (3, 12, 48)
_MARGIN = 1.25  # the width of a beam is known no better


@dataclass(frozen=True, kw_only=True)
class ShadowMotion:
    """How features of the frames follow the sample.

    Attributes:
        detector_px_per_object_px: κ.
        lit_px: W, detector pixels, √(area in which the mean pattern is above a tenth of its bright level).
        agreement: fraction of the frame pairs whose shift the motion explains within 2 pixels.
        beam_px: W/κ, width of the beam at the sample, object pixels.
        consistent: whether the frames really move as one magnified picture; if not, nothing follows.
    """

    detector_px_per_object_px: float
    lit_px: float
    agreement: float
    beam_px: float
    consistent: bool


def _pairs(positions_px: NDArray[np.float64], reach: int) -> NDArray[np.int64]:
    """Frames and neighbours of theirs, (n, 2): the three that are about the `reach`-th nearest."""
    from scipy.spatial import cKDTree

    M = len(positions_px)
    if M < 10:
        return np.zeros((0, 2), np.int64)
    seeds = np.unique(np.linspace(0, M - 1, min(M, _MAX_PAIRS // 3)).astype(np.int64))
    _, near = cKDTree(positions_px).query(positions_px[seeds], k=min(reach + 1, M))
    near = near[:, -3:]
    pairs = np.stack([np.repeat(seeds, near.shape[1]), near.ravel()], axis=1)
    return pairs[np.any(positions_px[pairs[:, 0]] != positions_px[pairs[:, 1]], axis=1)].astype(np.int64)


def _shifts(
    frames: FrameSource, pairs: NDArray[np.int64], lit: NDArray[np.bool_], mean: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Whole-pixel shift (y, x) between the two frames of each pair, what never changes divided out, (n, 2)."""
    N = frames.shape[1]
    out = np.zeros((len(pairs), 2))
    for row, pair in enumerate(pairs):
        contrast = np.where(lit, frames.read(pair), 1.0) / np.where(lit, mean, 1.0) - 1.0
        waves = np.fft.rfft2(contrast)
        correlation = np.fft.irfft2(waves[1] * waves[0].conj(), (N, N))
        peak = np.unravel_index(int(correlation.argmax()), (N, N))
        out[row] = [(int(p) + N // 2) % N - N // 2 for p in peak]
    return out


def measure_shadow_motion(
    frames: FrameSource, positions_px: NDArray[np.float64], mask: NDArray[np.bool_] | None = None
) -> ShadowMotion | None:
    """Measure κ from pairs of frames, near ones first: far ones move more pixels but share less of the picture.

    Args:
        frames: (M, N, N) counts.
        positions_px: (M, 2) float64 (y, x), object pixels.
        mask: (N, N) True = good, or None.

    Returns:
        The motion, or None when there are too few frames to say.
    """
    motion = None
    for reach in _REACHES:
        motion = _motion_of_pairs(frames, positions_px, mask, _pairs(positions_px, reach)) or motion
        if motion is None or motion.consistent or reach >= len(positions_px):
            break
    return motion


def _lit(
    frames: FrameSource, mask: NDArray[np.bool_] | None, used: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Mean pattern of some frames, and where it is bright."""
    mean = np.zeros(frames.shape[1:])
    for chunk in np.array_split(used, -(-len(used) // 16)):
        mean += frames.read(chunk).sum(axis=0, dtype=np.float64) / len(used)
    good = np.isfinite(mean) if mask is None else mask & np.isfinite(mean)
    return mean, good & (mean > _LIT * np.percentile(mean[good], 99)) if good.any() else good


def _motion_of_pairs(
    frames: FrameSource,
    positions_px: NDArray[np.float64],
    mask: NDArray[np.bool_] | None,
    pairs: NDArray[np.int64],
) -> ShadowMotion | None:
    if len(pairs) < 10:
        return None
    mean, lit = _lit(frames, mask, np.unique(pairs))
    if lit.sum() < 9:
        return None
    moved = positions_px[pairs[:, 1]] - positions_px[pairs[:, 0]]
    shifts = _shifts(frames, pairs, lit, mean)
    motion = np.linalg.lstsq(moved, shifts, rcond=None)[0]
    for _ in range(5):  # refit on the pairs that agree: one wrong peak is worth many right ones in least squares
        agree = np.abs(moved @ motion - shifts).max(axis=1) < 2
        if agree.sum() < 6:
            break
        motion = np.linalg.lstsq(moved[agree], shifts[agree], rcond=None)[0]
    predicted = moved @ motion
    agreement = float((np.abs(predicted - shifts).max(axis=1) < 2).mean())
    strength = np.linalg.svd(motion, compute_uv=False)
    kappa = math.sqrt(float(strength.prod()))
    width = math.sqrt(float(lit.sum()))
    power = math.sqrt(float(np.sum(predicted**2) * np.sum(shifts**2)))
    likeness = float(np.sum(predicted * shifts)) / power if power > 0 else 0.0
    # whole-pixel shifts near 0 agree with anything, and some far-field scans drag a little: only a picture that moves
    # by several pixels, the same along both axes, and nearly always, counts
    moves = float(np.median(np.abs(shifts).max(axis=1))) >= 3 and strength[1] > 0.7 * strength[0]
    return ShadowMotion(
        detector_px_per_object_px=kappa,
        lit_px=width,
        agreement=agreement,
        beam_px=width / kappa if kappa > 0 else math.inf,
        consistent=bool(moves and agreement > 0.8 and likeness > 0.95),
    )


def check_far_field(motion: ShadowMotion | None, N: int, geometry: Geometry, name: str) -> None:
    """Refuse a near-field scan.

    Args:
        motion: what :func:`measure_shadow_motion` found.
        N: side of a frame, pixels.
        geometry: of the scan; with a complete one the message is in metres.
        name: the file, for messages.

    Raises:
        DataError: the beam at the sample is wider than what a far-field pattern describes.
    """
    if motion is None or not motion.consistent or motion.beam_px <= _MARGIN * N:
        return
    reason = (
        f"the beam at the sample is about {motion.beam_px:.0f} object pixels wide, but a far-field pattern of "
        f"{N}×{N} pixels describes only {N}; or positions are not in object pixels but in smaller ones"
    )
    if geometry.energy_eV and geometry.distance_m and geometry.detector_pixel_size_m and geometry.pixel_size_m:
        wavelength = 1.239841984e-6 / geometry.energy_eV
        z, p = geometry.distance_m, geometry.detector_pixel_size_m
        magnification = motion.detector_px_per_object_px * p / geometry.pixel_size_m
        beam = motion.lit_px * p / magnification
        fresnel = beam**2 * magnification / (wavelength * z)
        reason = (
            f"distance {z:.4g} m, detector pixel {p * 1e6:.4g} µm and wavelength {wavelength * 1e9:.4g} nm describe "
            f"{wavelength * z / p * 1e6:.3g} µm of the sample, but the beam there is about {beam * 1e6:.2g} µm wide: "
            f"features follow the sample magnified {magnification:.0f} times, so the frames are images taken "
            f"{z / magnification * 1e3:.3g} mm behind a point focus (Fresnel number {fresnel:.0f}, far field needs < 1)"
        )
    raise DataError(
        f"{name}: this is a near-field scan, the far-field condition is not met: {reason}. "
        "Far-field engines cannot reconstruct it; use a near-field (Fresnel, holographic) code for this file."
    )
