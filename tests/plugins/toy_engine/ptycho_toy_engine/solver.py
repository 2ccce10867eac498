"""ePIE: one frame after another pulls the object, and the probe if asked, towards its measured pattern.

Maiden and Rodenburg, Ultramicroscopy 109 (2009) 1256; with incoherent modes all modes of a frame are scaled by one
factor, Thibault and Menzel, Nature 494 (2013) 68.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptycho_core.data.container import Statistics, integer_corners
from ptycho_core.data.raw import RawData
from ptycho_core.physics.likelihood import amplitude_loss

from .physics import RATE_FLOOR, accumulate, exit_waves, extract, far_field, far_field_adjoint, fourier_shift

__all__ = ["Canvas", "frame_loss", "sweep"]


@dataclass
class Canvas:
    """An object in the making.

    Attributes:
        object: (H, W) complex128.
        origin_px: (2,) int64 scan coordinates (y, x) of the corner of pixel (0, 0).
        probe: (P, N, N) complex128.
    """

    object: NDArray[np.complex128]
    origin_px: NDArray[np.int64]
    probe: NDArray[np.complex128]

    @classmethod
    def flat(cls, scans: list[RawData], probe: NDArray[np.complex64]) -> Canvas:
        """Make an object of ones that holds every frame of some scans."""
        N = probe.shape[-1]
        corners = np.concatenate([integer_corners(raw.positions_px, N)[0] for raw in scans])
        origin = corners.min(axis=0)
        height, width = corners.max(axis=0) - origin + N
        return cls(np.ones((height, width), dtype=np.complex128), origin, probe.astype(np.complex128))


def _measure(
    canvas: Canvas, raw: RawData, frames: NDArray[np.int64], scale: float
) -> tuple[NDArray[np.complex128], NDArray[np.complex128], NDArray[np.float64], NDArray[np.int64], NDArray[np.float32]]:
    """Patches (J, N, N), far fields (J, P, N, N), λ (J, N, N), corners (J, 2) and rests (J, 2) of some frames."""
    corners, rest = integer_corners(raw.positions_px[frames], raw.side)
    corners = corners - canvas.origin_px
    patches = extract(canvas.object, corners, raw.side)
    waves = far_field(exit_waves(patches, canvas.probe, rest))
    rate = scale * np.sum(np.abs(waves) ** 2, axis=1)
    return patches, waves, rate if raw.background is None else rate + raw.background, corners, rest


def frame_loss(canvas: Canvas, raw: RawData, statistics: Statistics) -> float:
    """Amplitude loss of a whole scan, per frame and in units of the mean training counts."""
    total = 0.0
    for indices, counts in raw.chunks():
        for frame, count in zip(indices, counts, strict=True):
            _, _, rate, _, _ = _measure(canvas, raw, np.array([frame]), statistics.scale)
            total += amplitude_loss(rate[0], count, raw.mask, 1.0)
    return total / (raw.n_frames * statistics.mean_counts)


def sweep(
    canvas: Canvas,
    raw: RawData,
    frames: NDArray[np.int64],
    statistics: Statistics,
    *,
    refine_probe: bool,
    rng: np.random.Generator,
) -> float:
    """Visit every frame once in random order; update `canvas` in place.

        ψ′_p = F†( √(k/λ) · F ψ_p ),   O += Σ_p (S P_p)* (ψ′_p − ψ_p) / max Σ_p|P_p|²,
        P_p += S†( O* (ψ′_p − ψ_p) ) / max|O|²

    Args:
        canvas: object and probe.
        raw: the scan.
        frames: (J,) numbers of the frames to visit.
        statistics: scale and loss divisor.
        refine_probe: update the probe too.
        rng: decides the order.

    Returns:
        Amplitude loss before each frame's update, per frame and in units of the mean training counts.
    """
    good = np.ones((raw.side, raw.side), dtype=bool) if raw.mask is None else raw.mask
    total = 0.0
    for frame in rng.permutation(frames):
        chosen = np.array([frame])
        counts = raw.read_counts(chosen)[0]
        patches, waves, rate, corners, rest = _measure(canvas, raw, chosen, statistics.scale)
        total += amplitude_loss(rate[0], counts, raw.mask, 1.0)
        factor = np.where(good, np.sqrt(counts / np.maximum(rate[0], RATE_FLOOR)), 1.0)
        change = far_field_adjoint((factor - 1) * waves[0])
        shifted = fourier_shift(canvas.probe, rest)
        step = np.sum(np.conj(shifted) * change, axis=0) / np.sum(np.abs(shifted) ** 2, axis=0).max()
        canvas.object += accumulate(step[None], corners, canvas.object.shape)
        if refine_probe:
            back = fourier_shift(np.conj(patches[0]) * change, -rest.astype(np.float64))
            canvas.probe += back / (np.abs(patches[0]) ** 2).max()
    return total / (len(frames) * statistics.mean_counts)
