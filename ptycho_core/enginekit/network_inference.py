"""Applying a trained network to a whole scan: how frames are divided, and how predictions become an image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
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

__all__ = [
    "BYTES_KEPT",
    "Part",
    "PatchPredictor",
    "ScanLayout",
    "ScanPredictor",
    "ScanWork",
    "bytes_kept",
    "groups_at_once",
    "laid_out_for",
    "predict_groups",
    "reconstruct_network",
    "stitch_predictions",
]

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
    if model.network.record.fixed_group:
        return partition_of(scan, frames, model.config.group_size)
    return Groups.of(scan, frames[:, None])


@dataclass(frozen=True)
class Part:
    """A few groups of a scan, as they are read and swept at once.

    Attributes:
        groups: (b,) their numbers; the first of them again where the part was filled up.
        n_real: how many of them are there in their own right.
        counting: (b, C, 1, 1) float32, 1 where a slot counts, else 0.
        corners_px: (b, C, 2) corners (y, x) on the canvas of the scan.
        window_px: corner (y, x) on that canvas of the window in which these groups lie.
    """

    groups: NDArray[np.int64]
    n_real: int
    counting: NDArray[np.float32]
    corners_px: NDArray[np.int64]
    window_px: tuple[int, int]


class ScanLayout:
    """Where the groups of a scan lie on its canvas, and how many are worked on at once.

    Args:
        data: the groups.
        runtime: ``frames_at_once`` is read.
        channels: of the network at full resolution.
        filled: whether all parts have as many groups, the last being filled up, for engines that trace shapes.

    Attributes:
        shape: (H, W) of the canvas.
        window: (h, w) that holds the groups of any part, so that a sweep's work can grow with the frames alone.
    """

    def __init__(self, data: Groups, runtime: Runtime, channels: int, *, filled: bool) -> None:
        self.data, self.filled, N = data, filled, data.scan.raw.side
        self.step = min(groups_at_once(data, runtime, channels), data.n_groups)
        origin = data.canvas_origin_px.min(axis=0)
        self._corners_px = data.corners_px + (data.canvas_origin_px - origin)[:, None]
        spans = [np.ptp(self._corners_px[start : start + self.step], axis=(0, 1)) for start in self._starts]
        self.shape = _pair((data.canvas_origin_px + data.canvas_shape).max(axis=0) - origin)
        self.window = _pair(np.max(spans, axis=0) + N)

    @property
    def _starts(self) -> range:
        return range(0, self.data.n_groups, self.step)

    def parts(self) -> Iterator[Part]:
        """The groups, a few after another."""
        for start in self._starts:
            real = np.arange(start, min(start + self.step, self.data.n_groups))
            missing = self.step - len(real) if self.filled else 0
            groups = np.concatenate([real, np.full(missing, real[0])])
            counted = self.data.counted[groups] & (np.arange(len(groups)) < len(real))[:, None]
            corners = self._corners_px[groups]
            window = np.minimum(corners.min(axis=(0, 1)), np.subtract(self.shape, self.window))
            yield Part(groups, len(real), counted[..., None, None].astype(np.float32), corners, _pair(window))


def _pair(values: NDArray[np.int64]) -> tuple[int, int]:
    return int(values[0]), int(values[1])


class ScanWork(Protocol):
    """A generator bound to a scan and a device: what an engine does with tensors. Canvases and chunks are its own."""

    layout: ScanLayout

    def prepare(self, part: Part) -> Any:
        """A part on the device: counts, shifted probe, weights and the constants of a sweep."""

    def flat(self) -> Any:
        """The flat canvas of the scan."""

    def weigh(self, chunk: Any) -> None:
        """Add the weights of a chunk to those of the canvas; done once before a canvas is merged."""

    def add(self, chunk: Any, canvas: Any, learned: bool) -> None:
        """Add a chunk to the canvas that is being made, after a solver sweep over `canvas` or a learned pass."""

    def merged(self) -> Any:
        """The canvas that was made, by the weights; the next one starts empty."""

    def predict(self, chunk: Any, canvas: Any) -> tuple[NDArray[np.complex64], NDArray[np.float32]]:
        """Patches (b, C, N, N) of a chunk, and their weights; each group alone where `canvas` is None."""


class PatchPredictor(Protocol):
    """What makes the patches of a scan, from an estimate that goes over it some times.

    Attributes:
        sweeps: times that :meth:`scan_estimate` goes over the scan: parallel solver sweeps, and the learned passes
            but the last, which is what :meth:`predict` makes.
    """

    sweeps: int

    def scan_estimate(self, on_sweep: Callable[[int], None]) -> Any:
        """Canvas of the scan that :meth:`predict` starts from, in the engine's own form; `on_sweep` is told of each."""

    def predict(self, canvas: Any) -> Iterator[tuple[NDArray[np.int64], NDArray[np.complex64], NDArray[np.float32]]]:
        """Group numbers (b,), patches (b, C, N, N) and weights (b, C, N, N), a bounded number at a time."""


class ScanPredictor:
    """The sweeps and passes over a scan, each frame counting once; see :class:`PatchPredictor`.

    Args:
        work: an engine's.
        solver_sweeps: from the flat canvas.
        passes: learned passes after them.
    """

    def __init__(self, work: ScanWork, solver_sweeps: int, passes: int) -> None:
        self.work, self.solver_sweeps, self.sweeps = work, solver_sweeps, solver_sweeps + passes - 1
        self._kept: list[tuple[Part, Any]] | None = None
        if self.sweeps and bytes_kept(work.layout.data) <= BYTES_KEPT:
            self._kept = list(self._read())

    def _read(self) -> Iterator[tuple[Part, Any]]:
        for part in self.work.layout.parts():
            yield part, self.work.prepare(part)

    def _chunks(self) -> Iterator[tuple[Part, Any]]:
        """A few groups after another: kept from sweep to sweep where the scan is small, else read again each time."""
        yield from self._read() if self._kept is None else self._kept

    def scan_estimate(self, on_sweep: Callable[[int], None]) -> Any:
        """Canvas of the scan after the sweeps from the flat one, and all passes but the last."""
        canvas = self.work.flat()
        for sweep in range(self.sweeps):
            for _, chunk in self._chunks():
                if sweep == 0:  # weights are the same in every sweep
                    self.work.weigh(chunk)
                self.work.add(chunk, canvas, sweep >= self.solver_sweeps)
            canvas = self.work.merged()
            on_sweep(sweep)
        return canvas

    def predict(self, canvas: Any) -> Iterator[tuple[NDArray[np.int64], NDArray[np.complex64], NDArray[np.float32]]]:
        """All patches, from an estimate of the scan; from one of each group alone where `canvas` is None."""
        for part, chunk in self._chunks():
            patches, weights = self.work.predict(chunk, canvas)
            yield part.groups[: part.n_real], patches[: part.n_real], weights[: part.n_real]


Bind = Callable[[NetworkModel, Groups, float, int, Runtime], ScanWork]
"""(model, groups, scale, passes, runtime) → an engine's work with them."""


def reconstruct_network(
    model: NetworkModel,
    scan: PtychoDataContainer,
    config: InferenceConfig,
    runtime: Runtime,
    bind: Bind,
    progress: Progress,
) -> Image:
    """An image of the training frames of a scan; see ``ReconstructionBackend.reconstruct``."""
    groups, scale = laid_out_for(model, scan), model.scale_for(scan)
    predictor = _predictor(model, groups, config, runtime, bind)
    return stitch_predictions(predictor, groups, scale, config, progress)


def predict_groups(model: NetworkModel, groups: Groups, runtime: Runtime, bind: Bind) -> NDArray[np.complex64]:
    """Patches (B, C, N, N) complex64, each group by itself, before the last merge; see ``SupportsPatches``."""
    predictor = _predictor(model, groups, model.config.inference, runtime, bind)
    return np.concatenate([patches for _, patches, _ in predictor.predict(None)])


def _predictor(
    model: NetworkModel, groups: Groups, config: InferenceConfig, runtime: Runtime, bind: Bind
) -> ScanPredictor:
    model.check_groups(groups.scan, groups.group_size)
    passes = model.passes_for(config)
    work = bind(model, groups, model.scale_for(groups.scan), passes, runtime)
    return ScanPredictor(work, model.network.sweeps, passes)


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
