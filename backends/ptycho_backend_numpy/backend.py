"""The engine: solver sweeps in plain NumPy, from the flat object or from an image, in single or double precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptycho_core.config import InferenceConfig, TrainingConfig
from ptycho_core.data.container import PtychoDataContainer, integer_corners
from ptycho_core.data.raw import RawData
from ptycho_core.data.results import Image
from ptycho_core.enginekit.checkpoint import CheckpointPace
from ptycho_core.enginekit.descent import Descent, batch_size_for, descend
from ptycho_core.enginekit.network_training import run_facts
from ptycho_core.enginekit.refining import refine_image
from ptycho_core.enginekit.solver_model import (
    History,
    SolverModel,
    leave_checkpoint,
    load_solver,
    reconstruct_solved,
    save_solver,
    take_checkpoint,
)
from ptycho_core.enginekit.state import ScanState
from ptycho_core.enginekit.stitching import corners_on
from ptycho_core.errors import Cancelled, ConfigError
from ptycho_core.io.atomic import ensure_output_folder
from ptycho_core.physics.patches import check_inside, extract
from ptycho_core.protocol import OPTIMISER_FIELDS, Capabilities, Progress, ProgressEvent, no_progress

from .checkpoint import CHECKPOINT, arrays_of, restore
from .gradient import LOSSES, NumpyGradient
from .options import NumpyOptions
from .physics import expected_counts

__all__ = ["NumpyBackend"]

_PACKAGES = ("numpy", "scipy")


def _options(config: TrainingConfig) -> NumpyOptions:
    return config.options if isinstance(config.options, NumpyOptions) else NumpyOptions()


def _dtype(precision: str) -> type:
    return np.complex128 if precision == "64" else np.complex64


def _plan(config: TrainingConfig, suited_batch: int) -> Descent:
    options = _options(config)
    return Descent(
        loss=config.loss,
        epochs=config.epochs,
        batch_size=options.batch_frames or suited_batch,
        probe=config.probe_trainable,
        seed=config.seed,
        least_squares=options.algorithm == "lsq",
    )


def _model(state: ScanState, config: TrainingConfig, history: History, checkpoint: Path | None) -> SolverModel:
    return SolverModel(
        backend=NumpyBackend.name,
        config=config,
        history=history,
        probe=(state.probe / np.sqrt(state.scale)).astype(np.complex64),
        statistics=state.scan.statistics,
        scale=state.scale,
        object=state.object.astype(np.complex64),
        origin_px=state.origin_px,
        checkpoint_path=checkpoint,
    )


class NumpyBackend:
    """rPIE and least-squares sweeps; ``epochs`` is the number of sweeps."""

    name = "numpy"
    capabilities = Capabilities(
        losses=tuple(LOSSES),
        mask=True,
        background=True,
        max_modes=None,
        probe_trainable=True,
        refine=True,
        refine_positions=True,
        resume=True,
        precisions=("auto", "32", "64"),
        ignored_fields=(*OPTIMISER_FIELDS, "early_stopping_patience", "inference.precision"),
    )

    def train(
        self,
        scans: Sequence[PtychoDataContainer],
        config: TrainingConfig,
        *,
        progress: Progress = no_progress,
    ) -> SolverModel:
        """Sweep over the training frames ``config.epochs`` times, those of a resumed run included.

        Held-out frames only give the ``test_loss``; the model is what the last sweep left.

        Raises:
            ArchiveError: ``resume_from`` is not a checkpoint of this run.
            BackendError: the sweeps diverged.
            Cancelled: `progress` raised it; a checkpoint is in ``config.output_dir`` if there is one.
        """
        scan, options, frames = scans[0], _options(config), scans[0].train_frames
        # options that are left out are the defaults, also for a run that goes on with them written out
        facts = run_facts(replace(config, options=options), [scan])
        state = ScanState.flat(scan, _dtype(config.precision))
        power = state.power()
        history: History = {"train_loss": [], **({"test_loss": []} if len(scan.heldout_frames) else {})}
        if config.resume_from is not None:
            arrays, history = take_checkpoint(config.resume_from, self.name, list(history), facts, config.epochs)
            restore(state, arrays, config.resume_from)
        path = None if config.output_dir is None else ensure_output_folder(config.output_dir) / CHECKPOINT

        def write() -> None:
            if path is not None:
                leave_checkpoint(path, self.name, arrays_of(state), history, facts)

        checkpoints = CheckpointPace(write)

        def note(epoch: int, now: ScanState, loss: float, heldout_loss: float | None) -> None:
            history["train_loss"].append(loss / scan.statistics.mean_counts)
            if heldout_loss is not None:
                history["test_loss"].append(heldout_loss / scan.statistics.mean_counts)
            checkpoints.after_epoch()
            metrics = {name: values[-1] for name, values in history.items()}
            progress(ProgressEvent(stage="train", done=epoch + 1, total=config.epochs, metrics=metrics))

        plan = _plan(config, batch_size_for(len(frames)))
        gradient, held = NumpyGradient(scan.raw, config.loss, options.threads), scan.heldout_frames
        first = len(history["train_loss"])
        try:
            # these frames still judge an image that has not been chosen by them
            descend(
                state,
                gradient,
                plan,
                frames=frames,
                heldout=held,
                after_epoch=note,
                first_epoch=first,
                power=power,
                choose=False,
            )
        except Cancelled as error:
            checkpoints.now()
            error.checkpoint_path = None if path is None else str(path)
            raise
        checkpoints.now()
        return _model(state, config, history, path)

    def reconstruct(
        self,
        model: SolverModel,
        scan: PtychoDataContainer,
        config: InferenceConfig,
        *,
        progress: Progress = no_progress,
    ) -> Image:
        """Cut what the training frames of a scan cover out of the object; see ``solvers.reconstruct_solved``."""
        return reconstruct_solved(model, scan, config, progress)

    def refine(
        self,
        image: Image,
        scan: PtychoDataContainer,
        config: TrainingConfig,
        *,
        progress: Progress = no_progress,
    ) -> Image:
        """Go on from an image; see ``SupportsRefinement``."""
        options = _options(config)
        if options.batch_frames is not None and config.refinement.batch_size is None:
            config = replace(config, refinement=replace(config.refinement, batch_size=options.batch_frames))
        return refine_image(
            image,
            scan,
            config,
            lambda raw, loss: NumpyGradient(raw, loss, options.threads),
            progress,
            least_squares=options.algorithm == "lsq",
            dtype=_dtype(config.precision),
        )

    def expected_counts(
        self, image: Image, scan: PtychoDataContainer, frames: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """λ (n, N, N) of some frames (n,) in single precision, background included.

        Raises:
            DataError: a frame leaves the image.
        """
        corners, rest = corners_on(image, frames)
        patches = extract(image.object, corners, image.probe.shape[-1])
        return np.asarray(expected_counts(patches, image.probe, rest, image.scale, scan.raw.background), np.float32)

    def loss_and_gradient(
        self, obj: NDArray[np.complex64], probe: NDArray[np.complex64], raw: RawData, loss: str
    ) -> tuple[float, NDArray[np.complex64], NDArray[np.complex64]]:
        """Loss of all frames at scale 1 and its gradients, as training takes them; see ``SupportsPhysicsGradient``."""
        if loss not in LOSSES:
            raise ConfigError(f"loss = {loss!r}; allowed: {', '.join(LOSSES)}.")
        corners, rest = integer_corners(raw.positions_px, raw.side)
        check_inside(corners, raw.side, (obj.shape[0], obj.shape[1]))
        ask, divisor = NumpyGradient(raw, loss), float(raw.frame_totals.sum())
        state = (obj.astype(np.complex64), probe.astype(np.complex64))
        got = ask(np.arange(raw.n_frames), corners, rest, *state, ("object", "probe"))
        assert got.object is not None
        assert got.probe is not None
        return got.loss / divisor, got.object / np.float32(divisor), got.probe / np.float32(divisor)

    def save(self, model: SolverModel, path: Path) -> None:
        """Write a bundle that says it is a solver's."""
        save_solver(model, path, _PACKAGES)

    def load(self, path: Path) -> SolverModel:
        """Read a bundle of this engine."""
        return load_solver(path, self.name)
