"""The toy engine: what the engine protocol asks for, around the sweeps in ``solver``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptycho_core.bundle import Bundle, read_bundle, write_bundle
from ptycho_core.config import InferenceConfig, TrainingConfig
from ptycho_core.data.container import PtychoDataContainer, Statistics, integer_corners
from ptycho_core.data.raw import RawData
from ptycho_core.data.results import Reconstruction
from ptycho_core.errors import ArchiveError, Cancelled, DataError
from ptycho_core.io.atomic import ensure_output_folder
from ptycho_core.protocol import OPTIMISER_FIELDS, Capabilities, Progress, ProgressEvent, no_progress
from ptycho_core.refinement.image import heldout_frames
from ptycho_core.stitching import Stitcher, finish_reconstruction, probe_weights

from . import physics
from .solver import Canvas, frame_loss, sweep

__all__ = ["ToyBackend", "ToyModel"]

NAME = "toy"
CHECKPOINT = "toy_checkpoint.ptycho"
_CHUNK = 64


@dataclass(frozen=True)
class ToyModel:
    """A finished object: a solver has nothing that would apply to another sample.

    Attributes:
        config: as trained with.
        history: ``train_loss`` and, with held-out frames, ``test_loss``, one a sweep.
        probe: (P, N, N) complex64.
        statistics: of the training split.
        object: (H, W) complex64.
        origin_px: (2,) int64 scan coordinates (y, x) of the corner of pixel (0, 0).
        checkpoint_path: where it was written, or None.
        backend: engine name.
    """

    config: TrainingConfig
    history: dict[str, list[float]]
    probe: NDArray[np.complex64]
    statistics: Statistics
    object: NDArray[np.complex64]
    origin_px: NDArray[np.int64]
    checkpoint_path: Path | None = None
    backend: str = NAME


class ToyBackend:
    """ePIE sweeps in NumPy; ``epochs`` is the number of sweeps."""

    name = NAME
    capabilities = Capabilities(
        losses=("amplitude",),
        mask=True,
        background=True,
        probe_trainable=True,
        refine=True,
        resume=True,
        ignored_fields=(
            *OPTIMISER_FIELDS,
            "early_stopping_patience",
            "refinement.batch_size",
            "refinement.probe_modes",
            "refinement.patience",
        ),
    )

    def train(
        self,
        train: PtychoDataContainer,
        test: PtychoDataContainer | None,
        config: TrainingConfig,
        *,
        progress: Progress = no_progress,
    ) -> ToyModel:
        """Sweep over the frames of the training groups ``config.epochs`` times, those of a resumed run included."""
        canvas = Canvas.flat([train.raw] + ([test.raw] if test else []), train.probe)
        history: dict[str, list[float]] = {"train_loss": []} | ({"test_loss": []} if test else {})
        if config.resume_from is not None:
            history = self._resume(canvas, config.resume_from)
        frames = np.unique(train.frame_indices)
        path = ensure_output_folder(config.output_dir) / CHECKPOINT if config.output_dir is not None else None
        try:
            for epoch in range(len(history["train_loss"]), config.epochs):
                rng = np.random.default_rng([config.seed, epoch])
                loss = sweep(canvas, train.raw, frames, train.statistics, refine_probe=config.probe_trainable, rng=rng)
                history["train_loss"].append(loss)
                if test is not None:
                    history["test_loss"].append(frame_loss(canvas, test.raw, train.statistics))
                metrics = {name: values[-1] for name, values in history.items()}
                progress(ProgressEvent(stage="train", done=epoch + 1, total=config.epochs, metrics=metrics))
        except Cancelled as error:
            if path is not None:
                self.save(self._model(canvas, train, config, history, path), path)
                error.checkpoint_path = str(path)
            raise
        model = self._model(canvas, train, config, history, path)
        if path is not None:
            self.save(model, path)
        return model

    @staticmethod
    def _model(
        canvas: Canvas,
        train: PtychoDataContainer,
        config: TrainingConfig,
        history: dict[str, list[float]],
        path: Path | None,
    ) -> ToyModel:
        return ToyModel(
            config=config,
            history=history,
            probe=canvas.probe.astype(np.complex64),
            statistics=train.statistics,
            object=canvas.object.astype(np.complex64),
            origin_px=canvas.origin_px,
            checkpoint_path=path,
        )

    def _resume(self, canvas: Canvas, path: Path) -> dict[str, list[float]]:
        """Put a checkpoint's object and probe on the canvas and return its history."""
        model = self.load(path)
        if model.object.shape != canvas.object.shape or (model.origin_px != canvas.origin_px).any():
            raise ArchiveError(
                f"{path}: its object is {model.object.shape} from {model.origin_px.tolist()}, that of this scan is "
                f"{canvas.object.shape} from {canvas.origin_px.tolist()}; resume with the scan it was made from."
            )
        canvas.object[:] = model.object
        canvas.probe[:] = model.probe
        return {name: list(values) for name, values in model.history.items()}

    def reconstruct(
        self,
        model: ToyModel,
        data: PtychoDataContainer,
        config: InferenceConfig,
        *,
        progress: Progress = no_progress,
    ) -> Reconstruction:
        """Cut the part of the object that a scan covers out of the model, and score it.

        Raises:
            DataError: the scan leaves the object; a solver knows nothing beyond it.
        """
        raw = data.raw
        stitcher = Stitcher.for_scan(raw, config.central_crop_px)
        corners, rest = integer_corners(raw.positions_px, raw.side)
        inner = corners - model.origin_px
        if inner.min() < 0 or (inner.max(axis=0) + raw.side > np.array(model.object.shape)).any():
            raise DataError(
                f"{raw.source.path or 'scan'}: it reaches beyond the object that engine '{NAME}' solved; a solver's "
                "model holds for the scan it was made from. Train on this scan."
            )
        peak = 0.0
        for start in range(0, raw.n_frames, _CHUNK):
            chosen = slice(start, start + _CHUNK)
            weights = probe_weights(data.probe, rest[chosen])
            peak = max(peak, float(weights.max()))
            stitcher.add(physics.extract(model.object, inner[chosen], raw.side), weights, corners[chosen])
            done = min(start + _CHUNK, raw.n_frames)
            progress(ProgressEvent(stage="reconstruct", done=done, total=raw.n_frames))
        obj, coverage = stitcher.finish(peak)
        return finish_reconstruction(obj, coverage, stitcher.origin_px, data.probe, data.statistics.scale, data)

    def refine(
        self,
        initial: Reconstruction,
        data: PtychoDataContainer,
        config: TrainingConfig,
        *,
        progress: Progress = no_progress,
    ) -> Reconstruction:
        """Sweep over an image of a scan, whoever made it, and return what explains the held-out frames best."""
        raw, plan = data.raw, config.refinement
        held_out = heldout_frames(raw, config)
        judges = raw.subset(held_out) if held_out.size else raw
        swept = np.setdiff1d(np.arange(raw.n_frames), held_out)
        origin = np.round(initial.origin_px).astype(np.int64)
        canvas = Canvas(initial.object.astype(complex), origin, initial.probe.astype(complex))
        statistics = replace(data.statistics, scale=initial.scale)
        best, obj, probe = frame_loss(canvas, judges, statistics), canvas.object.copy(), canvas.probe.copy()
        for epoch in range(plan.epochs):
            rng = np.random.default_rng([config.seed, epoch])
            loss = sweep(canvas, raw, swept, statistics, refine_probe=plan.probe, rng=rng)
            judged = frame_loss(canvas, judges, statistics)
            if judged < best:
                best, obj, probe = judged, canvas.object.copy(), canvas.probe.copy()
            metrics = {"train_loss": loss} | ({"test_loss": judged} if held_out.size else {})
            progress(ProgressEvent(stage="refine", done=epoch + 1, total=plan.epochs, metrics=metrics))
        obj, probe = obj.astype(np.complex64), probe.astype(np.complex64)
        return finish_reconstruction(obj, initial.coverage.copy(), origin, probe, initial.scale, data)

    def simulate(
        self, obj: NDArray[np.complex64], probe: NDArray[np.complex64], positions_px: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        """Noiseless λ (M, N, N); object pixel (0, 0) is scan point (0, 0)."""
        N = probe.shape[-1]
        corners, rest = integer_corners(positions_px, N)
        rate = physics.expected_counts(physics.extract(obj, corners, N), probe, rest)
        return rate.astype(np.float32)

    def loss_and_gradient(
        self, obj: NDArray[np.complex64], probe: NDArray[np.complex64], raw: RawData, loss: str
    ) -> tuple[float, NDArray[np.complex64], NDArray[np.complex64]]:
        """Loss of all frames at scale 1 with its gradients; object pixel (0, 0) is scan point (0, 0)."""
        return physics.loss_and_gradient(obj, probe, raw, loss)

    def save(self, model: ToyModel, path: Path) -> None:
        """Write a bundle that says it is a solver's: no generator."""
        weights = {
            "object": np.stack([model.object.real, model.object.imag], axis=-1).astype(np.float32),
            "origin_px": model.origin_px.astype(np.int64),
        }
        bundle = Bundle(
            backend=NAME,
            generator=None,
            side=model.probe.shape[-1],
            config=model.config,
            statistics=model.statistics,
            scale=model.statistics.scale,
            weights=weights,
            probe=model.probe,
            history=model.history,
        )
        write_bundle(path, bundle)

    def load(self, path: Path) -> ToyModel:
        """Read a bundle of this engine.

        Raises:
            ArchiveError: damaged, unsafe, or of another engine.
        """
        bundle = read_bundle(path)
        if bundle.backend != NAME or bundle.generator is not None:
            raise ArchiveError(f"{path}: it was made by engine '{bundle.backend}'; engine '{NAME}' reads its own only.")
        obj, origin = bundle.weights.get("object"), bundle.weights.get("origin_px")
        if obj is None or origin is None or obj.ndim != 3 or obj.shape[-1] != 2 or origin.shape != (2,):
            raise ArchiveError(f"{path}: it must hold 'object' (H, W, 2) and 'origin_px' (2,).")
        model = ToyModel(
            config=bundle.config,
            history={name: list(values) for name, values in bundle.history.items()},
            probe=bundle.probe,
            statistics=bundle.statistics,
            object=np.ascontiguousarray(obj).view(np.complex64)[..., 0],
            origin_px=origin.astype(np.int64),
        )
        return replace(model, checkpoint_path=Path(path))
