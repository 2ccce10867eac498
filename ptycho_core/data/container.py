"""PtychoDataContainer: a scan divided into groups, each with its own canvas (specs/10-data)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..physics.probe import initial_scale
from .grouping import group_frames, partition_frames
from .raw import RawData, _read_only

__all__ = ["PtychoDataContainer", "Statistics", "integer_corners"]


def integer_corners(positions_px: NDArray[np.float64], N: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Split frame centres into the integer corner of the patch and the rest that the probe carries (FM-2).

    corner = centre − (N−1)/2,  n = floor(corner + ½),  δ = corner − n in [−½, ½).

    Args:
        positions_px: (..., 2) frame centres (y, x), object pixels.
        N: side of a frame.

    Returns:
        n (..., 2) int64 and δ (..., 2) float32.
    """
    corner = np.asarray(positions_px, dtype=np.float64) - (N - 1) / 2
    whole = np.floor(corner + 0.5)
    rest = (corner - whole).astype(np.float32)
    # float32 rounds 0.49999999 up to 0.5, which is outside the half-open interval
    return whole.astype(np.int64), np.minimum(rest, np.nextafter(np.float32(0.5), np.float32(0)))


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Constants of the training split, reused unchanged at inference.

    Attributes:
        mean_counts: mean counts in the good pixels of a frame; the divisor of every loss.
        n_frames: frames they were measured on.
        scale: s that training starts from: see ``physics.probe.initial_scale``; 1 for a calibrated probe.
    """

    mean_counts: float
    n_frames: int
    scale: float

    @classmethod
    def of(cls, raw: RawData) -> Statistics:
        """Measure them on a scan that has a probe."""
        if raw.probe is None:
            raise DataError(f"{raw.source.path or 'scan'}: no probe; initialise one before measuring statistics.")
        mean_counts = float(raw.frame_totals.mean())
        if mean_counts == 0:
            raise DataError(f"{raw.source.path or 'scan'}: all {raw.n_frames} frames are empty; choose other frames.")
        scale = 1.0 if raw.probe_calibrated else initial_scale(mean_counts, raw.probe, raw.mask, raw.background)
        return cls(mean_counts=mean_counts, n_frames=raw.n_frames, scale=scale)


@dataclass(frozen=True, kw_only=True)
class PtychoDataContainer:
    """Groups over a scan. Frames are referred to, not copied; counts of a group are read when asked for.

    Attributes:
        raw: the scan.
        frame_indices: (B, C) int64 frames of each group, indices into `raw`.
        counted: (B, C) bool, False where a slot only fills its group up (partition of a scan that C does not divide).
        corners_px: (B, C, 2) int64 integer corner (y, x) of each patch on its group's canvas, ≥ 0.
        subpixel_px: (B, C, 2) float32 rest (y, x) in [−½, ½), carried by the probe.
        canvas_origin_px: (B, 2) int64 integer corner of the canvas in scan coordinates.
        canvas_shape: (B, 2) int64 canvas height and width.
        probe: (P, N, N) complex64 probe used.
        statistics: constants of the training split.
    """

    raw: RawData
    frame_indices: NDArray[np.int64]
    counted: NDArray[np.bool_]
    corners_px: NDArray[np.int64]
    subpixel_px: NDArray[np.float32]
    canvas_origin_px: NDArray[np.int64]
    canvas_shape: NDArray[np.int64]
    probe: NDArray[np.complex64]
    statistics: Statistics

    @classmethod
    def from_groups(
        cls,
        raw: RawData,
        frame_indices: NDArray[np.int64],
        counted: NDArray[np.bool_] | None = None,
        statistics: Statistics | None = None,
    ) -> PtychoDataContainer:
        """Lay out the canvas of each group.

        Args:
            raw: the scan; it must have a probe (see ``ptycho_core.physics.probe.initial_probe``).
            frame_indices: (B, C) frames of each group.
            counted: (B, C), default all True.
            statistics: of the training split; measured on `raw` when None.

        Raises:
            DataError: no probe, an index that is no frame, or arrays of other shapes.
        """
        if raw.probe is None:
            raise DataError(f"{raw.source.path or 'scan'}: no probe; initialise one before making groups.")
        given = frame_indices.shape
        if len(given) != 2 or 0 in given or frame_indices.min() < 0 or frame_indices.max() >= raw.n_frames:
            raise DataError(f"group indices {given} must be (B, C) numbers of the scan's {raw.n_frames} frames.")
        if counted is not None and counted.shape != given:
            raise DataError(f"counted has shape {counted.shape}; it must be that of the group indices, {given}.")
        whole, rest = integer_corners(raw.positions_px[frame_indices], raw.side)
        origin = whole.min(axis=1)
        corners = whole - origin[:, None]
        counted = np.ones(frame_indices.shape, dtype=bool) if counted is None else counted
        return cls(
            raw=raw,
            frame_indices=_read_only(frame_indices.astype(np.int64)),
            counted=_read_only(counted.astype(bool)),
            corners_px=_read_only(corners),
            subpixel_px=_read_only(rest),
            canvas_origin_px=_read_only(origin),
            canvas_shape=_read_only(corners.max(axis=1) + raw.side),
            probe=raw.probe,
            statistics=statistics or Statistics.of(raw),
        )

    @classmethod
    def for_training(
        cls,
        raw: RawData,
        group_size: int,
        *,
        n_groups: int | None = None,
        neighbor_pool_size: int | None = None,
        seed: int = 0,
        statistics: Statistics | None = None,
    ) -> PtychoDataContainer:
        """Group a scan for training; see :func:`group_frames` for the arguments."""
        indices = group_frames(
            raw.positions_px, group_size, n_groups=n_groups, neighbor_pool_size=neighbor_pool_size, seed=seed
        )
        return cls.from_groups(raw, indices, statistics=statistics)

    @classmethod
    def for_reconstruction(
        cls, raw: RawData, group_size: int, *, statistics: Statistics | None = None
    ) -> PtychoDataContainer:
        """Divide a scan so that every frame counts exactly once; see :func:`partition_frames`."""
        indices, counted = partition_frames(raw.positions_px, group_size)
        return cls.from_groups(raw, indices, counted, statistics)

    def without(self, frames: NDArray[np.int64]) -> PtychoDataContainer:
        """The same groups with some frames (n,) not counted: an image made of it knows nothing of them."""
        return replace(self, counted=_read_only(self.counted & ~np.isin(self.frame_indices, frames)))

    @property
    def n_groups(self) -> int:
        """B, the number of groups."""
        return len(self.frame_indices)

    @property
    def group_size(self) -> int:
        """C, the frames in a group."""
        return int(self.frame_indices.shape[1])

    def read_group_counts(self, groups: int | NDArray[np.int64]) -> NDArray[np.float32]:
        """Counts (C, N, N) of one group, or (b, C, N, N) of b groups, float32."""
        frames = self.frame_indices[groups]
        return self.raw.read_counts(frames).reshape(*frames.shape, self.raw.side, self.raw.side)
