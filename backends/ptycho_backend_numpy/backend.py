"""The engine: solver sweeps in plain NumPy, from the flat object or from an image, in single or double precision."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptycho_core.config import InferenceConfig, TrainingConfig
from ptycho_core.data.container import PtychoDataContainer, integer_corners
from ptycho_core.data.raw import RawData
from ptycho_core.data.results import Reconstruction
from ptycho_core.errors import ArchiveError, Cancelled, ConfigError
from ptycho_core.io.atomic import ensure_output_folder
from ptycho_core.networks.training import HISTORY_FILE, write_history
from ptycho_core.physics.patches import check_inside, extract
from ptycho_core.protocol import OPTIMISER_FIELDS, Capabilities, Progress, ProgressEvent, no_progress
from ptycho_core.refinement.descent import Descent, batch_size_for, descend
from ptycho_core.refinement.image import refine_image
from ptycho_core.refinement.state import ScanState
from ptycho_core.solvers import SolverModel, load_solver, reconstruct_solved, save_solver

from .gradient import LOSSES, NumpyGradient
from .options import NumpyOptions
from .physics import expected_counts

__all__ = ["NumpyBackend"]

CHECKPOINT = "numpy_checkpoint.ptycho"
_PACKAGES = ("numpy", "scipy")


def _options(config: TrainingConfig) -> NumpyOptions:
    return config.options if isinstance(config.options, NumpyOptions) else NumpyOptions()


def _dtype(precision: str) -> type:
    return np.complex128 if precision == "64" else np.complex64


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
        train: PtychoDataContainer,
        test: PtychoDataContainer | None,
        config: TrainingConfig,
        *,
        progress: Progress = no_progress,
    ) -> SolverModel:
        """Sweep over the frames of the training groups ``config.epochs`` times, those of a resumed run included."""
        options, scale = _options(config), train.statistics.scale
        frames = np.unique(train.frame_indices)
        raw = train.raw if len(frames) == train.raw.n_frames else train.raw.subset(frames)
        # frames that no group holds are seen by no sweep, but they are part of the scan that is reconstructed later
        raws = [raw, train.raw] if test is None else [raw, train.raw, test.raw]
        state = ScanState.flat(raws, train.probe, scale, _dtype(config.precision))
        names = ["train_loss"] if test is None else ["train_loss", "test_loss"]
        history: dict[str, list[float]] = {name: [] for name in names}
        if config.resume_from is not None:
            history = self._resume(state, config.resume_from, names)
        path = None if config.output_dir is None else ensure_output_folder(config.output_dir) / CHECKPOINT
        watch = None if test is None else NumpyGradient(test.raw, config.loss, options.threads)

        def note(epoch: int, now: ScanState, loss: float, _: float | None) -> None:
            history["train_loss"].append(loss / train.statistics.mean_counts)
            if watch is not None:
                every = np.arange(watch.raw.n_frames)
                corners, rest = integer_corners(watch.raw.positions_px, raw.side)
                value = watch(every, corners - now.origin_px, rest, now.object, now.probe, ()).loss
                history["test_loss"].append(value / len(every) / train.statistics.mean_counts)
            metrics = {name: values[-1] for name, values in history.items()}
            progress(ProgressEvent(stage="train", done=epoch + 1, total=config.epochs, metrics=metrics))

        plan = Descent(
            loss=config.loss,
            epochs=config.epochs,
            batch_size=options.batch_frames or batch_size_for(raw.n_frames),
            probe=config.probe_trainable,
            seed=config.seed,
            least_squares=options.algorithm == "lsq",
        )
        gradient, none = NumpyGradient(raw, config.loss, options.threads), np.zeros(0, np.int64)
        first = len(history["train_loss"])
        try:
            descend(state, gradient, plan, heldout=none, after_epoch=note, first_epoch=first)
        except Cancelled as error:
            if path is not None:
                self._leave(self._model(state, train, config, history, path), path)
                error.checkpoint_path = str(path)
            raise
        model = self._model(state, train, config, history, path)
        if path is not None:
            self._leave(model, path)
        return model

    def _leave(self, model: SolverModel, path: Path) -> None:
        self.save(model, path)
        write_history(path.parent / HISTORY_FILE, model.history)

    def _model(
        self,
        state: ScanState,
        train: PtychoDataContainer,
        config: TrainingConfig,
        history: dict[str, list[float]],
        path: Path | None,
    ) -> SolverModel:
        return SolverModel(
            backend=self.name,
            config=config,
            history=history,
            probe=(state.probe / np.sqrt(state.scale)).astype(np.complex64),
            statistics=train.statistics,
            scale=state.scale,
            object=state.object.astype(np.complex64),
            origin_px=state.origin_px,
            checkpoint_path=path,
        )

    def _resume(self, state: ScanState, path: Path, names: list[str]) -> dict[str, list[float]]:
        """Put a checkpoint's object and probe into the state and return its history."""
        model = self.load(path)
        found = (model.object.shape, model.origin_px.tolist(), model.probe.shape)
        wanted = (state.object.shape, state.origin_px.tolist(), state.probe.shape)
        if found != wanted or sorted(model.history) != sorted(names):
            raise ArchiveError(
                f"{path}: its object is {found[0]} from {found[1]}, its probe {found[2]}, its history "
                f"{', '.join(model.history)}; this run has {wanted[0]} from {wanted[1]}, {wanted[2]} and "
                f"{', '.join(names)}. Resume with the scan and the settings it was made with."
            )
        state.object[:] = model.object
        state.probe[:] = model.probe * np.sqrt(state.scale)
        return {name: list(model.history[name]) for name in names}

    def reconstruct(
        self,
        model: SolverModel,
        data: PtychoDataContainer,
        config: InferenceConfig,
        *,
        progress: Progress = no_progress,
    ) -> Reconstruction:
        """Cut what a scan covers out of the object; see ``solvers.reconstruct_solved``."""
        return reconstruct_solved(model, data, config, progress)

    def refine(
        self,
        initial: Reconstruction,
        data: PtychoDataContainer,
        config: TrainingConfig,
        *,
        progress: Progress = no_progress,
    ) -> Reconstruction:
        """Go on from an image; see ``SupportsRefinement``."""
        options = _options(config)
        if options.batch_frames is not None and config.refinement.batch_size is None:
            config = replace(config, refinement=replace(config.refinement, batch_size=options.batch_frames))
        return refine_image(
            initial,
            data,
            config,
            lambda raw, loss: NumpyGradient(raw, loss, options.threads),
            progress,
            least_squares=options.algorithm == "lsq",
            dtype=_dtype(config.precision),
        )

    def simulate(
        self, obj: NDArray[np.complex64], probe: NDArray[np.complex64], positions_px: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        """Noiseless λ (M, N, N); object pixel (0, 0) is scan point (0, 0)."""
        N = probe.shape[-1]
        corners, rest = integer_corners(positions_px, N)
        check_inside(corners, N, (obj.shape[0], obj.shape[1]))
        return np.asarray(expected_counts(extract(obj, corners, N), probe, rest), np.float32)

    def loss_and_gradient(
        self, obj: NDArray[np.complex64], probe: NDArray[np.complex64], raw: RawData, loss: str
    ) -> tuple[float, NDArray[np.complex64], NDArray[np.complex64]]:
        """Loss of all frames at scale 1 and its gradients, as training takes them; see ``SupportsPhysicsGradient``."""
        if loss not in LOSSES:
            raise ConfigError(f"loss = {loss!r}; allowed: {', '.join(LOSSES)}.")
        corners, rest = integer_corners(raw.positions_px, raw.side)
        check_inside(corners, raw.side, (obj.shape[0], obj.shape[1]))
        ask, divisor = NumpyGradient(raw, loss, dark_counts=0.0), float(raw.frame_totals.sum())
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
