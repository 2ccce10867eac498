"""Far field or near field? The question is asked of the frames, because files seldom say.

With the sample out of focus, its shadow moves over the detector as the sample moves, magnified m times. The beam, W
wide on the detector, is then W/m wide at the sample. A far-field pattern of pixels p at distance z describes a window
of λz/p at the sample (N object pixels of λz/(Np)), so that it can be one only if

    W / m ≤ λz / p,   in pixels:  W_px / κ ≤ N,   κ = detector pixels that the shadow moves per object pixel.

Otherwise the frames are Fresnel (near-field) images of the sample, magnified m = κ p / (λz / (Np)) times; their pixel
at the sample is p/m, with the Fresnel number F = p² / (m λ z) = 1 / (N κ) (FM-25). So a scan whose far-field window is
too small for its beam never aliases as a near field: κ < 1 means F · N > 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..data.frames import ArrayFrames, FrameSource, WindowedFrames
from ..data.orientation import axes_of_motion
from ..data.propagation import Propagation
from ..data.raw import Geometry
from ..errors import DataError
from ..physics.propagation import fresnel_number_of, wavelength_m

__all__ = [
    "FEW_PX",
    "MOST_PX",
    "ShadowMotion",
    "check_propagation",
    "instrument",
    "is_near_field",
    "magnified",
    "measure_shadow_motion",
    "vertex",
]

MOST_PX = 2**25
"""Pixels of frames that are read at each of four distances, to see how the frames move."""

FEW_PX = 2**21
"""The same while a scan too large to be read is inspected, at one distance."""

_MAX_PAIRS = 240
_LEAST_PAIRS = 15
_WIDEST = 256
_AT_ONCE_BYTES = 128 * 2**20
_BRIGHT = 0.1
_REACHES = (3, 12, 24, 48)
_MARGIN = 1.25  # the width of a beam is known no better
_LEAST_TURN_DEG = 3.0  # motions are known to a degree
_SKEW = 0.2  # how far the motion may be from −κ along both axes, as a part of κ: an astigmatic beam's is


@dataclass(frozen=True, kw_only=True)
class ShadowMotion:
    """How features of the frames follow the sample.

    Attributes:
        detector_px_per_object_px: κ.
        lit_px: W, detector pixels, √(area in which the mean pattern is above a tenth of its bright level).
        agreement: fraction of the frame pairs whose shift the motion explains within 2 pixels.
        beam_px: W/κ, width of the beam at the sample, object pixels.
        consistent: whether the frames really move as one magnified picture; if not, nothing follows.
        matrix: (2, 2) detector pixels (y, x) for each object pixel (y, x) that the beam moves, row by row.
    """

    detector_px_per_object_px: float
    lit_px: float
    agreement: float
    beam_px: float
    consistent: bool
    matrix: tuple[tuple[float, float], tuple[float, float]]


def _pairs(positions_px: NDArray[np.float64], reach: int, most: int) -> NDArray[np.int64]:
    """Frames and neighbours of theirs, (n, 2), `most` at most: the three that are about the `reach`-th nearest."""
    from scipy.spatial import cKDTree

    M = len(positions_px)
    if M < 10:
        return np.zeros((0, 2), np.int64)
    seeds = np.unique(np.linspace(0, M - 1, min(M, max(most // 3, 1))).astype(np.int64))
    _, near = cKDTree(positions_px).query(positions_px[seeds], k=min(reach + 1, M))
    near = near[:, -3:]
    pairs = np.stack([np.repeat(seeds, near.shape[1]), near.ravel()], axis=1)
    return pairs[np.any(positions_px[pairs[:, 0]] != positions_px[pairs[:, 1]], axis=1)].astype(np.int64)


def _shifts(
    frames: FrameSource, pairs: NDArray[np.int64], lit: NDArray[np.bool_], mean: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Shift (y, x) between the two frames of each pair, what never changes divided out, (n, 2) pixels."""
    N = frames.shape[1]
    out = np.zeros((len(pairs), 2))
    for row, pair in enumerate(pairs):
        contrast = np.where(lit, frames.read(pair), 1.0) / np.where(lit, mean, 1.0) - 1.0
        waves = np.fft.rfft2(contrast)
        correlation = np.fft.irfft2(waves[1] * waves[0].conj(), (N, N))
        y, x = (int(p) for p in np.unravel_index(int(correlation.argmax()), (N, N)))
        across = (correlation[(y + np.arange(-1, 2)) % N, x], correlation[y, (x + np.arange(-1, 2)) % N])
        out[row] = [(p + N // 2) % N - N // 2 + vertex(c) for p, c in zip((y, x), across, strict=True)]
    return out


def vertex(values: NDArray[np.float64]) -> float:
    """Where the parabola through a peak and its two neighbours (3,) is highest, −½ to ½; 0 where there is no peak."""
    below, peak, above = (float(v) for v in values)
    bend = 2 * peak - below - above
    return min(max((above - below) / (2 * bend), -0.5), 0.5) if bend > 0 else 0.0


def measure_shadow_motion(
    frames: FrameSource,
    positions_px: NDArray[np.float64],
    mask: NDArray[np.bool_] | None = None,
    *,
    most_px: int = MOST_PX,
) -> ShadowMotion | None:
    """Measure κ from pairs of frames, near ones first: far ones move more pixels but share less of the picture.

    Of the distances at which the motion is consistent the farthest counts, since it is known best there.

    Args:
        frames: (M, N, N) counts.
        positions_px: (M, 2) float64 (y, x), object pixels.
        mask: (N, N) True = good, or None.
        most_px: pixels of frames that are read at each of four distances, as far as a few pairs of frames allow; where
            fewer than usual, at the shortest alone.

    Returns:
        The motion, or None when there are too few frames to say.
    """
    if 4 * math.prod(frames.shape) <= _AT_ONCE_BYTES:
        # a file may keep pieces of many frames together, and would unpack them again for every pair
        frames = ArrayFrames(frames.read(np.arange(frames.shape[0])))
    most = min(max(most_px // (2 * math.prod(frames.shape[1:])), _LEAST_PAIRS), _MAX_PAIRS)
    reaches = _REACHES if most_px >= MOST_PX else _REACHES[:1]
    by = -(-frames.shape[1] // _WIDEST)
    if by == 1:
        return _measured(frames, positions_px, mask, most, reaches)
    # a picture that moves by several pixels does so in larger ones, and far less is transformed
    frames = WindowedFrames(frames, 0, 0, frames.shape[1] // by, by, mask)
    good = frames.good_pixels()
    coarse = _measured(frames, positions_px, None if good.all() else good, most, reaches)
    return None if coarse is None else _on_finer_pixels(coarse, by)


def _measured(
    frames: FrameSource,
    positions_px: NDArray[np.float64],
    mask: NDArray[np.bool_] | None,
    most: int,
    reaches: tuple[int, ...],
) -> ShadowMotion | None:
    """The motion at the farthest of some distances at which it is consistent, by `most` pairs at each."""
    motion = None
    for reach in reaches:
        found = _motion_of_pairs(frames, positions_px, mask, _pairs(positions_px, reach, most))
        if motion is not None and motion.consistent and (found is None or not found.consistent):
            break
        motion = found or motion
        if motion is None or reach >= len(positions_px):
            break
    return motion


def _on_finer_pixels(motion: ShadowMotion, by: int) -> ShadowMotion:
    """A motion in pixels that are `by` times smaller."""
    (a, b), (c, d) = motion.matrix
    return replace(
        motion,
        detector_px_per_object_px=motion.detector_px_per_object_px * by,
        lit_px=motion.lit_px * by,
        matrix=((a * by, b * by), (c * by, d * by)),
    )


def _lit(
    frames: FrameSource, mask: NDArray[np.bool_] | None, used: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Mean pattern of some frames, and where it is bright."""
    mean = np.zeros(frames.shape[1:])
    for chunk in np.array_split(used, -(-len(used) // 16)):
        mean += frames.read(chunk).sum(axis=0, dtype=np.float64) / len(used)
    good = np.isfinite(mean) if mask is None else mask & np.isfinite(mean)
    return mean, good & (mean > _BRIGHT * np.percentile(mean[good], 99)) if good.any() else good


def _motion_of_pairs(
    frames: FrameSource,
    positions_px: NDArray[np.float64],
    mask: NDArray[np.bool_] | None,
    pairs: NDArray[np.int64],
) -> ShadowMotion | None:
    if len(pairs) < 10:
        return None
    used, where = np.unique(pairs, return_inverse=True)
    if len(used) * math.prod(frames.shape[1:]) <= MOST_PX:  # each is in several pairs
        parts = [frames.read(part) for part in np.array_split(used, -(-len(used) // 4))]
        frames, pairs_in, used = ArrayFrames(np.concatenate(parts)), where.reshape(pairs.shape), np.arange(len(used))
    else:
        pairs_in = pairs
    mean, lit = _lit(frames, mask, used)
    if lit.sum() < 9:
        return None
    moved = positions_px[pairs[:, 1]] - positions_px[pairs[:, 0]]
    shifts = _shifts(frames, pairs_in, lit, mean)
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
        matrix=((float(motion[0, 0]), float(motion[1, 0])), (float(motion[0, 1]), float(motion[1, 1]))),
    )


def is_near_field(motion: ShadowMotion | None, N: int) -> bool:
    """Whether the beam at the sample is wider than what a far-field pattern describes.

    Args:
        motion: what :func:`measure_shadow_motion` found with positions in far-field object pixels λz/(Np).
        N: side of a frame, pixels.
    """
    return motion is not None and motion.consistent and motion.beam_px > _MARGIN * N


def magnified(motion: ShadowMotion, geometry: Geometry, name: str) -> tuple[float, Propagation]:
    """Magnification and Fresnel number of a near-field scan, from how its frames move (FM-25).

    Args:
        motion: what :func:`measure_shadow_motion` found; near field.
        geometry: of the scan, complete; ``pixel_size_m`` is the one that positions were measured in.
        name: the file, for messages.

    Returns:
        m, and the near field on the demagnified pixel.

    Raises:
        DataError: the frames are inverted, or move along other axes than the sample.
    """
    kappa, matrix = motion.detector_px_per_object_px, np.array(motion.matrix)
    if np.abs(matrix + kappa * np.eye(2)).max() > _SKEW * kappa:
        word, angle = axes_of_motion(matrix, near=True)
        advice = f"--orientation {word}" + (f" --rotate {angle:.3g}" if abs(angle) > _LEAST_TURN_DEG else "")
        inverted = np.abs(matrix - kappa * np.eye(2)).max() <= _SKEW * kappa
        why = "with the beam, so the sample lies before the focus" if inverted else "along other axes than the sample"
        raise DataError(
            f"{name}: this is a near-field scan whose frames move {why}: (y, x) by {np.round(matrix, 3).tolist()} of "
            f"an object pixel (y, x); it must be minus one number along both. Turn the positions ({advice}) or mirror "
            "the frames, or correct basis_vectors."
        )
    energy, z, p, pixel = instrument(geometry)
    m = kappa * p / pixel
    return m, Propagation("near_field", fresnel_number_of(energy, z, p, m, geometry.radiation))


def instrument(geometry: Geometry) -> tuple[float, float, float, float]:
    """Energy (eV), distance, detector pixel and object pixel (m) of a geometry; NaN for what is not known."""
    found = (geometry.energy_eV, geometry.distance_m, geometry.detector_pixel_size_m, geometry.pixel_size_m)
    energy, z, p, pixel = (math.nan if value is None else value for value in found)
    return energy, z, p, pixel


def check_propagation(
    motion: ShadowMotion | None, N: int, geometry: Geometry, propagation: Propagation, name: str
) -> None:
    """Refuse a scan whose frames contradict the way in which its waves are said to propagate.

    Args:
        motion: what :func:`measure_shadow_motion` found.
        N: side of a frame, pixels.
        geometry: of the scan; with a complete one the message is in metres.
        propagation: of the scan.
        name: the file, for messages.

    Raises:
        DataError: a far field, but the beam at the sample is wider than what a far-field pattern describes; or a near
            field whose frames do not move as its positions do.
    """
    if motion is None or not motion.consistent:
        return
    if propagation.is_near:
        found = motion.detector_px_per_object_px
        if not 1 / _MARGIN < found < _MARGIN:
            raise DataError(
                f"{name}: this is a {propagation}, but its frames move {found:.3g} pixels when the beam moves by one; "
                "positions must be in (demagnified) detector pixels. Correct them, or the Fresnel number."
            )
    elif is_near_field(motion, N):
        raise DataError(
            f"{name}: this is a near-field scan, the far-field condition is not met: {_in_words(motion, N, geometry)}. "
            "Give its Fresnel number (--propagation near_field:F, or fresnel_number in the file), with positions in "
            "demagnified detector pixels."
        )


def _in_words(motion: ShadowMotion, N: int, geometry: Geometry) -> str:
    """Why a scan is no far-field scan."""
    energy, z, p, pixel = instrument(geometry)
    if math.isnan(energy * z * p * pixel):
        return (
            f"the beam at the sample is about {motion.beam_px:.0f} object pixels wide, but a far-field pattern of "
            f"{N}×{N} pixels describes only {N}; or positions are not in object pixels but in smaller ones"
        )
    wavelength = wavelength_m(energy, geometry.radiation)
    m = motion.detector_px_per_object_px * p / pixel
    beam, F = motion.lit_px * p / m, fresnel_number_of(energy, z, p, m, geometry.radiation)
    return (
        f"distance {z:.4g} m, detector pixel {p * 1e6:.4g} µm and wavelength {wavelength * 1e9:.4g} nm describe "
        f"{wavelength * z / p * 1e6:.3g} µm of the sample, but the beam there is about {beam * 1e6:.2g} µm wide: "
        f"features follow the sample magnified {m:.0f} times, so the frames are images taken {z / m * 1e3:.3g} mm "
        f"behind a point focus (Fresnel number {F:.3g} of a demagnified pixel)"
    )
