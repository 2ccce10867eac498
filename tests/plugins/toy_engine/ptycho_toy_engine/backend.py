"""The toy engine: what the engine protocol asks for, around the sweeps in ``solver``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_core.config import InferenceConfig, TrainingConfig
from ptycho_core.data.container import PtychoDataContainer, integer_corners
from ptycho_core.data.raw import RawData
from ptycho_core.data.results import Image
from ptycho_core.enginekit.network_training import run_facts
from ptycho_core.enginekit.solver_model import (
    History,
    SolverModel,
    leave_checkpoint,
    load_solver,
    reconstruct_solved,
    save_solver,
    take_checkpoint,
)
from ptycho_core.enginekit.state import coverage_of
from ptycho_core.enginekit.stitching import make_image
from ptycho_core.errors import Cancelled
from ptycho_core.io.atomic import ensure_output_folder
from ptycho_core.protocol import OPTIMISER_FIELDS, Capabilities, Progress, ProgressEvent, no_progress
from ptycho_core.runtime import DEFAULT_RUNTIME, Runtime

from . import physics
from .solver import Canvas, frame_loss, sweep

__all__ = ["ToyBackend"]

NAME = "toy"
CHECKPOINT = "toy_checkpoint.safetensors"


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
            "refinement.batch_size",
            "refinement.probe_modes",
            "refinement.patience",
        ),
    )

    def train(
        self,
        scans: Sequence[PtychoDataContainer],
        config: TrainingConfig,
        runtime: Runtime = DEFAULT_RUNTIME,
        *,
        progress: Progress = no_progress,
    ) -> SolverModel:
        """Sweep over the training frames of a scan ``config.epochs`` times, those of a resumed run included."""
        (scan,) = scans
        canvas, facts, heldout = Canvas.flat(scan), run_facts(config, scans, runtime), scan.heldout_frames
        history: History = {"train_loss": [], **({"test_loss": []} if len(heldout) else {})}
        if runtime.resume_from is not None:
            history = self._resume(canvas, runtime.resume_from, facts, list(history), config.epochs)
        path = ensure_output_folder(runtime.output_dir) / CHECKPOINT if runtime.output_dir is not None else None
        for epoch in range(len(history["train_loss"]), config.epochs):
            rng = np.random.default_rng([config.seed, epoch])
            canvas, loss = sweep(canvas, scan, scan.train_frames, refine_probe=config.probe_trainable, rng=rng)
            history["train_loss"].append(loss)
            if len(heldout):
                history["test_loss"].append(frame_loss(canvas, scan, heldout))
            if path is not None:
                leave_checkpoint(path, NAME, self._state(canvas), history, facts)
            metrics = {name: values[-1] for name, values in history.items()}
            try:
                progress(ProgressEvent(stage="train", done=epoch + 1, total=config.epochs, metrics=metrics))
            except Cancelled as error:
                error.checkpoint_path = None if path is None else str(path)
                raise
        return SolverModel(
            backend=NAME,
            config=config,
            history=history,
            probe=canvas.probe.copy(),
            statistics=scan.statistics,
            scale=canvas.scale,
            object=canvas.object,
            origin_px=canvas.origin_px,
            checkpoint_path=path,
        )

    @staticmethod
    def _state(canvas: Canvas) -> dict[str, NDArray[np.float32]]:
        """What a sweep changes; a checkpoint holds no complex numbers."""
        return {"object": canvas.object.view(np.float32), "probe": canvas.probe.view(np.float32)}

    @staticmethod
    def _resume(canvas: Canvas, path: Path, facts: dict[str, Any], losses: list[str], epochs: int) -> History:
        """Put a checkpoint's object and probe on the canvas and return its history."""
        state, history = take_checkpoint(path, NAME, losses, facts, epochs)
        canvas.object, canvas.probe = state["object"].view(np.complex64), state["probe"].view(np.complex64)
        return history

    def reconstruct(
        self,
        model: SolverModel,
        scan: PtychoDataContainer,
        config: InferenceConfig,
        runtime: Runtime = DEFAULT_RUNTIME,
        *,
        progress: Progress = no_progress,
    ) -> Image:
        """Cut the part of the object that a scan's training frames cover out of the model."""
        return reconstruct_solved(model, scan, config, progress)

    def refine(
        self,
        image: Image,
        scan: PtychoDataContainer,
        config: TrainingConfig,
        runtime: Runtime = DEFAULT_RUNTIME,
        *,
        progress: Progress = no_progress,
    ) -> Image:
        """Sweep over an image of a scan, whoever made it, and return what explains the held-out frames best."""
        plan, heldout = config.refinement, scan.heldout_frames
        canvas = best = Canvas.of(image)
        lowest = frame_loss(canvas, scan, heldout) if len(heldout) else None
        for epoch in range(plan.epochs):
            rng = np.random.default_rng([config.seed, epoch])
            canvas, loss = sweep(canvas, scan, scan.train_frames, refine_probe=plan.probe, rng=rng)
            judged = frame_loss(canvas, scan, heldout) if len(heldout) else None
            if judged is None or judged < lowest:
                best, lowest = canvas, judged
            metrics = {"train_loss": loss} | ({} if judged is None else {"test_loss": judged})
            progress(ProgressEvent(stage="refine", done=epoch + 1, total=plan.epochs, metrics=metrics))
        coverage = coverage_of(best.positions_px[scan.train_frames], best.probe, best.origin_px, best.object.shape)
        return make_image(best.object.copy(), coverage, best.origin_px, best.probe, best.scale, best.positions_px)

    def expected_counts(
        self, image: Image, scan: PtychoDataContainer, frames: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """λ (n, N, N) of some frames (n,) of a scan, by this engine's own physics."""
        corners, rest = integer_corners(image.positions_px[frames], scan.raw.side)
        patches = physics.extract(image.object, corners - image.origin_px.astype(np.int64), scan.raw.side)
        rate = physics.expected_counts(patches, image.probe, rest, image.scale, scan.raw.background)
        return rate.astype(np.float32)

    def loss_and_gradient(
        self, obj: NDArray[np.complex64], probe: NDArray[np.complex64], raw: RawData, loss: str
    ) -> tuple[float, NDArray[np.complex64], NDArray[np.complex64]]:
        """Loss of all frames at scale 1 with its gradients; object pixel (0, 0) is scan point (0, 0)."""
        return physics.loss_and_gradient(obj, probe, raw, loss)

    def save(self, model: SolverModel, path: Path) -> None:
        """Write a bundle that says it is a solver's: no generator."""
        save_solver(model, path, ("numpy",))

    def load(self, path: Path) -> SolverModel:
        """Read a bundle of this engine; any other is an ArchiveError."""
        return load_solver(path, NAME)
