"""What is refined: object, probe and positions on one canvas, taken from an image and turned into one again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.container import PtychoDataContainer, integer_corners
from ..data.raw import RawData
from ..data.results import Reconstruction
from ..errors import DataError
from ..physics.probe import add_modes
from ..stitching import finish_reconstruction, probe_weights

__all__ = ["ScanState", "coverage_of"]

_CHUNK = 256
_LIT = 0.1
"""Pixels with at least this fraction of the largest coverage say what level the object has."""


def coverage_of(
    raw: RawData, probe: NDArray[np.complex64], origin_px: NDArray[np.int64], shape: tuple[int, int]
) -> NDArray[np.float32]:
    """Σ_j w_j on a canvas in units of the largest weight, the coverage of a reconstruction (FM-7).

    Args:
        raw: the scan.
        probe: (P, N, N) complex64.
        origin_px: (2,) integer corner of the canvas in scan coordinates (y, x).
        shape: (H, W) of the canvas.

    Returns:
        (H, W) float32.
    """
    N = raw.side
    corners, rest = integer_corners(raw.positions_px, N)
    total, peak = np.zeros(shape, np.float32), 0.0
    for start in range(0, raw.n_frames, _CHUNK):
        weights = probe_weights(probe, rest[start : start + _CHUNK])
        peak = max(peak, float(weights.max()))
        for weight, (y, x) in zip(weights, corners[start : start + _CHUNK] - origin_px, strict=True):
            total[y : y + N, x : x + N] += weight
    return total / np.float32(peak) if peak > 0 else total


@dataclass
class ScanState:
    """Object, probe and positions while they are refined; the intensity scale is in the probe.

    Attributes:
        raw: the scan, with its positions as read.
        origin_px: (2,) int64 scan coordinates (y, x) of the corner of the canvas.
        object: (H, W) complex.
        probe: (P, N, N) complex, times √scale.
        positions_px: (M, 2) float64 frame centres (y, x) as they are now.
        scale: s that the probe was multiplied with the root of.
    """

    raw: RawData
    origin_px: NDArray[np.int64]
    object: NDArray[Any]
    probe: NDArray[Any]
    positions_px: NDArray[np.float64]
    scale: float

    @classmethod
    def flat(
        cls, raws: list[RawData], probe: NDArray[np.complex64], scale: float, dtype: type = np.complex64
    ) -> ScanState:
        """The flat object O = 1 on a canvas that holds every frame of some scans; the first is the one to refine on."""
        corners = np.concatenate([integer_corners(raw.positions_px, raw.side)[0] for raw in raws])
        origin = corners.min(axis=0)
        height, width = corners.max(axis=0) - origin + raws[0].side
        return cls(
            raw=raws[0],
            origin_px=origin,
            object=np.ones((height, width), dtype),
            probe=(probe * np.sqrt(scale)).astype(dtype),
            positions_px=raws[0].positions_px.copy(),
            scale=scale,
        )

    @classmethod
    def of_image(
        cls,
        initial: Reconstruction,
        raw: RawData,
        *,
        margin_px: int = 0,
        probe_modes: int | None = None,
        dtype: type = np.complex64,
    ) -> ScanState:
        """Start from an image; pixels that no frame has lit, and the margin, get the mean of those that were lit.

        Args:
            initial: the image.
            raw: its scan.
            margin_px: pixels added on every side, room for positions to move.
            probe_modes: incoherent modes to go on with; None keeps those of the image.
            dtype: complex64 or complex128.

        Raises:
            DataError: an image of another scan: frames of another side or number, or beyond its canvas.
            ConfigError: more modes than can be added.
        """
        N, name = raw.side, raw.source.path or "scan"
        if initial.probe.shape[-1] != N or len(initial.positions_px) != raw.n_frames:
            raise DataError(
                f"{name}: it has {raw.n_frames} frames of {N}×{N}, but the image to refine was made from "
                f"{len(initial.positions_px)} frames with a probe of {initial.probe.shape[-1]}×"
                f"{initial.probe.shape[-1]}; refine it with the scan it was made from."
            )
        origin = np.round(initial.origin_px).astype(np.int64)
        corners, _ = integer_corners(initial.positions_px, N)
        inner = corners - origin
        beyond = (inner < 0).any() or (inner + N > np.array(initial.object.shape)).any()
        if beyond or np.abs(initial.origin_px - origin).max() > 1e-6:
            raise DataError(
                f"{name}: its frames lie beyond the image to refine, which is {initial.object.shape} from "
                f"{initial.origin_px.tolist()}; refine it with the scan it was made from."
            )
        probe = initial.probe if probe_modes is None else add_modes(initial.probe, probe_modes)
        lit = initial.coverage >= _LIT * initial.coverage.max()
        level = complex(initial.object[lit].mean(dtype=np.complex128))
        obj = np.where(initial.coverage > 0, initial.object, level)
        return cls(
            raw=raw,
            origin_px=origin - margin_px,
            object=np.pad(obj, margin_px, constant_values=level).astype(dtype),
            probe=(probe * np.sqrt(initial.scale)).astype(dtype),
            positions_px=initial.positions_px.copy(),
            scale=initial.scale,
        )

    def copy(self) -> ScanState:
        """A state that later steps leave as it is."""
        return replace(self, object=self.object.copy(), probe=self.probe.copy(), positions_px=self.positions_px.copy())

    def corners(self, frames: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Integer corners (J, 2) on the canvas and sub-pixel rests (J, 2) of some frames, as they are now."""
        whole, rest = integer_corners(self.positions_px[frames], self.raw.side)
        return whole - self.origin_px, rest

    def image(self, data: PtychoDataContainer) -> Reconstruction:
        """Score the state on every frame and bind it as a reconstruction, cut to what the frames reach.

        Args:
            data: container of the scan; its nominal positions are those of its ``raw``.
        """
        N = self.raw.side
        moved = replace(self.raw, positions_px=self.positions_px)
        corners, _ = integer_corners(self.positions_px, N)
        origin = corners.min(axis=0)
        y, x = origin - self.origin_px
        height, width = corners.max(axis=0) - origin + N
        probe = (self.probe / np.sqrt(self.scale)).astype(np.complex64)
        coverage = coverage_of(moved, probe, origin, (int(height), int(width)))
        obj = np.where(coverage > 0, self.object[y : y + height, x : x + width], 0).astype(np.complex64)
        return finish_reconstruction(
            obj,
            coverage,
            origin,
            probe,
            self.scale,
            replace(data, raw=moved),
            nominal_positions_px=self.raw.positions_px,
        )
