"""ePIE: one frame after another pulls the object, and the probe if asked, towards its measured pattern.

Maiden and Rodenburg, Ultramicroscopy 109 (2009) 1256; with incoherent modes all modes of a frame are scaled by one
factor, Thibault and Menzel, Nature 494 (2013) 68.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ptycho_core.data.container import PtychoDataContainer, integer_corners
from ptycho_core.data.results import Image
from ptycho_core.physics.likelihood import amplitude_loss

from .physics import RATE_FLOOR, accumulate, exit_waves, extract, far_field, far_field_adjoint, fourier_shift

__all__ = ["Canvas", "frame_loss", "sweep"]


@dataclass
class Canvas:
    """An object in the making. Between sweeps it holds single precision, so that a checkpoint of it is exact.

    Attributes:
        object: (H, W) complex64.
        origin_px: (2,) int64 scan coordinates (y, x) of the corner of pixel (0, 0).
        probe: (P, N, N) complex64.
        positions_px: (M, 2) float64 frame centres (y, x).
        scale: s.
    """

    object: NDArray[np.complex64]
    origin_px: NDArray[np.int64]
    probe: NDArray[np.complex64]
    positions_px: NDArray[np.float64]
    scale: float

    @classmethod
    def flat(cls, scan: PtychoDataContainer) -> Canvas:
        """Make an object of ones that holds every used frame of a scan."""
        origin, shape = scan.canvas()
        return cls(np.ones(shape, np.complex64), origin, scan.probe, scan.raw.positions_px, scan.statistics.scale)

    @classmethod
    def of(cls, image: Image) -> Canvas:
        """Start from an image, whoever made it."""
        origin = np.round(image.origin_px).astype(np.int64)
        return cls(image.object, origin, image.probe, image.positions_px, image.scale)


def _measure(
    canvas: Canvas, scan: PtychoDataContainer, frame: int
) -> tuple[NDArray[np.complex128], NDArray[np.complex128], NDArray[np.float64], NDArray[np.int64], NDArray[np.float32]]:
    """Patch (N, N), far fields (P, N, N), λ (N, N), corner (1, 2) and rest (2,) of a frame."""
    corner, rest = integer_corners(canvas.positions_px[[frame]], scan.raw.side)
    corner = corner - canvas.origin_px
    patches = extract(canvas.object, corner, scan.raw.side)
    waves = far_field(exit_waves(patches, canvas.probe, rest))[0]
    rate = canvas.scale * np.sum(np.abs(waves) ** 2, axis=0)
    background = scan.raw.background
    return patches[0], waves, rate if background is None else rate + background, corner, rest[0]


def frame_loss(canvas: Canvas, scan: PtychoDataContainer, frames: NDArray[np.int64]) -> float:
    """Amplitude loss of some frames (n,), per frame and in units of the mean training counts."""
    total = 0.0
    for frame in frames:
        rate = _measure(canvas, scan, frame)[2]
        total += amplitude_loss(rate, scan.raw.read_counts(np.array([frame]))[0], scan.raw.mask, 1.0)
    return total / (len(frames) * scan.statistics.mean_counts)


def sweep(
    canvas: Canvas,
    scan: PtychoDataContainer,
    frames: NDArray[np.int64],
    *,
    refine_probe: bool,
    rng: np.random.Generator,
) -> tuple[Canvas, float]:
    """Visit every frame once in random order.

        ψ′_p = F†( √(k/λ) · F ψ_p ),   O += Σ_p (S P_p)* (ψ′_p − ψ_p) / max Σ_p|P_p|²,
        P_p += S†( O* (ψ′_p − ψ_p) ) / max|O|²

    Args:
        canvas: object and probe; left as it is.
        scan: counts, mask and background.
        frames: (n,) numbers of the frames to visit.
        refine_probe: update the probe too.
        rng: decides the order.

    Returns:
        The canvas after it, and the amplitude loss before each frame's update, as :func:`frame_loss` states it.
    """
    good = True if scan.raw.mask is None else scan.raw.mask
    now = replace(canvas, object=canvas.object.astype(complex), probe=canvas.probe.astype(complex))
    total = 0.0
    for frame in rng.permutation(frames):
        counts = scan.raw.read_counts(np.array([frame]))[0]
        patch, waves, rate, corner, rest = _measure(now, scan, frame)
        total += amplitude_loss(rate, counts, scan.raw.mask, 1.0)
        factor = np.where(good, np.sqrt(counts / np.maximum(rate, RATE_FLOOR)), 1.0)
        change = far_field_adjoint((factor - 1) * waves)
        shifted = fourier_shift(now.probe, rest)
        step = np.sum(np.conj(shifted) * change, axis=0) / np.sum(np.abs(shifted) ** 2, axis=0).max()
        now.object += accumulate(step[None], corner, now.object.shape)
        if refine_probe:
            now.probe += fourier_shift(np.conj(patch) * change, -rest.astype(np.float64)) / (np.abs(patch) ** 2).max()
    done = replace(now, object=now.object.astype(np.complex64), probe=now.probe.astype(np.complex64))
    return done, total / (len(frames) * scan.statistics.mean_counts)
