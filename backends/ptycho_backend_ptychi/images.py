"""The part of an object that a scan covers, scored as every engine's is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptycho_core.data.container import PtychoDataContainer, integer_corners
from ptycho_core.data.results import Reconstruction
from ptycho_core.errors import DataError
from ptycho_core.physics.patches import extract
from ptycho_core.protocol import Progress, ProgressEvent, no_progress
from ptycho_core.stitching import Stitcher, finish_reconstruction, probe_weights

__all__ = ["cut_out"]

_CHUNK = 64


def cut_out(
    obj: NDArray[np.complex64],
    origin_px: NDArray[np.int64],
    probe: NDArray[np.complex64],
    scale: float,
    data: PtychoDataContainer,
    *,
    central_crop_px: int | None = None,
    nominal_positions_px: NDArray[np.float64] | None = None,
    progress: Progress = no_progress,
) -> Reconstruction:
    """Cut the part of an object that a scan covers out, and score it.

    Args:
        obj: (H, W) complex64.
        origin_px: (2,) int64 scan coordinates (y, x) of the corner of pixel (0, 0).
        probe: (P, N, N) complex64.
        scale: s.
        data: the scan, with the positions to use.
        central_crop_px: side of the central square of each patch that is kept.
        nominal_positions_px: (M, 2) positions as read, when they were refined.
        progress: called after each chunk of frames.

    Raises:
        DataError: the scan leaves the object; a solver knows nothing beyond it.
    """
    raw = data.raw
    stitcher = Stitcher.for_scan(raw, central_crop_px)
    corners, rest = integer_corners(raw.positions_px, raw.side)
    inner = corners - origin_px
    if inner.min() < 0 or (inner.max(axis=0) + raw.side > np.array(obj.shape)).any():
        raise DataError(
            f"{raw.source.path or 'scan'}: it reaches beyond the object that engine 'ptychi' solved; a solver's model "
            "holds for the scan it was made from. Train on this scan."
        )
    peak = 0.0
    for start in range(0, raw.n_frames, _CHUNK):
        chosen = slice(start, start + _CHUNK)
        weights = probe_weights(probe, rest[chosen])
        peak = max(peak, float(weights.max()))
        stitcher.add(extract(obj, inner[chosen], raw.side), weights, corners[chosen])
        done = min(start + _CHUNK, raw.n_frames)
        progress(ProgressEvent(stage="reconstruct", done=done, total=raw.n_frames))
    found, coverage = stitcher.finish(peak)
    return finish_reconstruction(
        found, coverage, stitcher.origin_px, probe, scale, data, nominal_positions_px=nominal_positions_px
    )
