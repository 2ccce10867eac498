"""Applying a trained network to a whole scan: how frames are divided, and how predictions become an image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..config import InferenceConfig
from ..data.container import PtychoDataContainer
from ..data.results import Image
from ..physics.relative import peak_intensity
from ..protocol import Progress, ProgressEvent
from ..runtime import Runtime
from .groups import Groups, partition_of
from .network_model import NetworkModel
from .stitching import Stitcher, make_image

__all__ = ["BYTES_KEPT", "PatchPredictor", "bytes_kept", "groups_at_once", "laid_out_for", "stitch_predictions"]

BYTES_AT_ONCE = 384 * 2**20
"""Memory that the activations of one step may take, by estimate."""

BYTES_KEPT = 384 * 2**20
"""Memory that frames and shifted probes kept from sweep to sweep may take."""

_BYTES_PER_PIXEL_AND_CHANNEL = 40


def groups_at_once(data: Groups, runtime: Runtime, channels: int) -> int:
    """Groups in a step: as many as `frames_at_once` fill, fewer where their activations would not fit.

    Args:
        data: groups of the scan.
        runtime: ``frames_at_once`` is read.
        channels: of the network at full resolution.
    """
    C, N, P = data.group_size, data.scan.raw.side, len(data.scan.probe)
    per_frame = N * N * (_BYTES_PER_PIXEL_AND_CHANNEL * channels + 80 * P)
    return max(1, min(runtime.frames_at_once // C, BYTES_AT_ONCE // (per_frame * C)))


def bytes_kept(data: Groups) -> int:
    """Bytes that keeping every frame's counts, shifted probe, weights and constants of a sweep would take."""
    return int(data.frame_indices.size * data.scan.raw.side**2 * (28 + 16 * len(data.scan.probe)))


def laid_out_for(model: NetworkModel, scan: PtychoDataContainer) -> Groups:
    """The training frames of a scan, each once; one by one where groups may have any size: frames bound the memory."""
    frames = scan.train_frames
    if model.config.network.generator == "cnn":
        return partition_of(scan, frames, model.config.group_size)
    return Groups.of(scan, frames[:, None])


class PatchPredictor(Protocol):
    """A generator bound to a scan and a device, as an engine implements it.

    Attributes:
        sweeps: times that :meth:`scan_estimate` goes over the scan: parallel solver sweeps, and the learned passes
            but the last, which is what :meth:`predict` makes.
    """

    sweeps: int

    def scan_estimate(self, on_sweep: Callable[[int], None]) -> Any:
        """Canvas of the scan that :meth:`predict` starts from, in the engine's own form; `on_sweep` is told of each."""

    def predict(self, canvas: Any) -> Iterator[tuple[NDArray[np.int64], NDArray[np.complex64], NDArray[np.float32]]]:
        """Group numbers (b,), patches (b, C, N, N) and weights (b, C, N, N), a bounded number at a time."""


def stitch_predictions(
    predictor: PatchPredictor,
    data: Groups,
    scale: float,
    config: InferenceConfig,
    progress: Progress,
) -> Image:
    """Predict every counted frame once, and merge the patches.

    Args:
        predictor: bound to `data`.
        data: groups of the scan.
        scale: s.
        config: ``central_crop_px`` is read.
        progress: told of frames, once for each sweep and once for the network.
    """
    scan = data.scan
    M, sweeps = int(data.counted.sum()), predictor.sweeps

    def report(done: int) -> None:
        progress(ProgressEvent(stage="reconstruct", done=done, total=M * (sweeps + 1)))

    stitcher = Stitcher.for_scan(scan, config.central_crop_px)
    canvas = predictor.scan_estimate(lambda sweep: report(M * (sweep + 1)))
    done = M * sweeps
    for groups, patches, weights in predictor.predict(canvas):
        counted = data.counted[groups]
        corners = data.corners_px[groups] + data.canvas_origin_px[groups][:, None]
        stitcher.add(patches[counted], weights[counted], corners[counted])
        done += int(counted.sum())
        report(done)
    obj, coverage = stitcher.finish(peak_intensity(scan.probe))
    return make_image(
        obj, coverage, stitcher.origin_px, scan.probe, scale, scan.raw.positions_px,
        stats={"dropped_non_finite_patches": stitcher.n_non_finite},
    )  # fmt: skip
