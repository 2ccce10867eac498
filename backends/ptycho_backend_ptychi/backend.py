"""The pty-chi engine: what the engine protocol asks for, around the runs of ``solver``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ptycho_core.config import InferenceConfig, TrainingConfig
from ptycho_core.data.container import PtychoDataContainer, integer_corners
from ptycho_core.data.results import Reconstruction
from ptycho_core.errors import ArchiveError, Cancelled
from ptycho_core.io.atomic import ensure_output_folder
from ptycho_core.networks.hardware import choose_accelerator
from ptycho_core.networks.training import HISTORY_FILE, write_history
from ptycho_core.physics.patches import check_inside
from ptycho_core.protocol import OPTIMISER_FIELDS, Capabilities, Progress, ProgressEvent, no_progress
from ptycho_core.solvers import SolverModel, load_solver, reconstruct_solved, save_solver

from . import physics
from .choices import check_choices, check_inference, options_of
from .library import inside
from .refinement import refine
from .solver import Problem, Solver
from .state import read_state, restore_state
from .tasks import Settings

__all__ = ["PtychiBackend"]

CHECKPOINT = "model.ptycho"
_PACKAGES = ("numpy", "torch", "ptychi")


def choose_device(accelerator: str) -> torch.device:
    """The device of an accelerator's name; ``auto`` takes CUDA where it is.

    Raises:
        ConfigError: the accelerator asked for is not there.
    """
    present = {"cpu": True, "cuda": torch.cuda.is_available()}
    name = choose_accelerator(accelerator, present, "pty-chi")
    return torch.device(name, 0) if name == "cuda" else torch.device(name)


class PtychiBackend:
    """pty-chi's solvers; ``epochs`` is the number of sweeps over all frames."""

    name = "ptychi"
    capabilities = Capabilities(
        losses=("amplitude", "poisson"),
        mask=True,
        background=False,
        probe_trainable=True,
        refine=True,
        refine_positions=True,
        resume=True,
        accelerators=("auto", "cpu", "cuda"),
        ignored_fields=OPTIMISER_FIELDS,
    )

    def train(
        self,
        train: PtychoDataContainer,
        test: PtychoDataContainer | None,
        config: TrainingConfig,
        *,
        progress: Progress = no_progress,
    ) -> SolverModel:
        """Iterate over the frames of the training groups ``config.epochs`` times, those of a resumed run included.

        Raises:
            ConfigError: a loss or a setting without effect on the algorithm, or an accelerator that is not there.
            ArchiveError: ``resume_from`` is not a checkpoint of this scan and algorithm.
            BackendError: the solver diverged.
            Cancelled: `progress` raised it; the checkpoint in ``config.output_dir`` is up to date.
        """
        check_choices(config, refining=False)
        check_inference(config.inference)
        device = choose_device(config.accelerator)
        path = ensure_output_folder(config.output_dir) / CHECKPOINT if config.output_dir is not None else None
        problem = _flat_problem(train, test)
        names = ["train_loss"] if test is None else ["train_loss", "test_loss"]
        history: dict[str, list[float]] = {name: [] for name in names}
        resumed = None if config.resume_from is None else _resume(self.load(config.resume_from), problem, config, names)
        if resumed is not None:
            history = {name: list(resumed.history[name]) for name in names}
            problem = replace(problem, object=resumed.object, probe=resumed.probe, first_probe=train.probe)
        settings = Settings(
            options=options_of(config), loss=config.loss, seed=config.seed, refine_probe=config.probe_trainable
        )
        solver = Solver(problem, settings, device)
        if resumed is not None:
            moved = solver.moves_probe(len(history["train_loss"]) - 1)
            restore_state(solver.reconstructor, resumed.state, settings.options, device, probe_moved=moved)

        def model() -> SolverModel:
            return SolverModel(
                backend=self.name,
                config=config,
                history=history,
                probe=solver.probe,
                statistics=train.statistics,
                scale=train.statistics.scale,
                object=solver.object,
                origin_px=problem.origin_px,
                state=read_state(solver.reconstructor),
                checkpoint_path=path,
            )

        try:
            _iterate(solver, history, config, progress)
        except Cancelled as error:
            if path is not None:
                self._leave(model(), path)
                error.checkpoint_path = str(path)
            raise
        if path is not None:
            self._leave(model(), path)
        return model()

    def _leave(self, model: SolverModel, path: Path) -> None:
        self.save(model, path)
        write_history(path.parent / HISTORY_FILE, model.history)

    def reconstruct(
        self,
        model: SolverModel,
        data: PtychoDataContainer,
        config: InferenceConfig,
        *,
        progress: Progress = no_progress,
    ) -> Reconstruction:
        """Cut the part of the object that a scan covers out of the model, and score it.

        Raises:
            ConfigError: it is asked to run on an accelerator.
            DataError: the scan leaves the object; a solver knows nothing beyond it.
        """
        check_inference(config)
        return reconstruct_solved(model, data, config, progress)

    def refine(
        self,
        initial: Reconstruction,
        data: PtychoDataContainer,
        config: TrainingConfig,
        *,
        progress: Progress = no_progress,
    ) -> Reconstruction:
        """Go on from an image of any engine; see ``refinement.refine``."""
        check_choices(config, refining=True)
        return refine(initial, data, config, choose_device(config.accelerator), progress)

    def simulate(
        self, obj: NDArray[np.complex64], probe: NDArray[np.complex64], positions_px: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        """Noiseless λ (M, N, N) by pty-chi's forward model; object pixel (0, 0) is scan point (0, 0).

        Raises:
            DataError: a patch leaves the object.
        """
        corners, rest = integer_corners(positions_px, probe.shape[-1])
        check_inside(corners, probe.shape[-1], obj.shape)
        with inside(torch.device("cpu")):
            return physics.expected_counts(obj, probe, corners, rest)

    def save(self, model: SolverModel, path: Path) -> None:
        """Write a bundle that says it is a solver's."""
        save_solver(model, path, _PACKAGES)

    def load(self, path: Path) -> SolverModel:
        """Read a bundle of this engine.

        Raises:
            ArchiveError: damaged, unsafe, or of another engine.
        """
        return load_solver(path, self.name)


def _flat_problem(train: PtychoDataContainer, test: PtychoDataContainer | None) -> Problem:
    """An object of ones that holds every frame of both scans, with a pixel to spare on each side."""
    N = train.raw.side
    scans = [train.raw] + ([test.raw] if test is not None else [])
    corners = np.concatenate([integer_corners(raw.positions_px, N)[0] for raw in scans])
    origin = corners.min(axis=0) - 1
    height, width = corners.max(axis=0) + N + 1 - origin
    return Problem(
        raw=train.raw,
        frames=np.unique(train.frame_indices),
        watched=None if test is None else test.raw,
        object=np.ones((height, width), np.complex64),
        origin_px=origin,
        probe=train.probe,
        scale=train.statistics.scale,
        mean_counts=train.statistics.mean_counts,
        nominal_px=train.raw.positions_px,
    )


def _resume(model: SolverModel, problem: Problem, config: TrainingConfig, names: list[str]) -> SolverModel:
    """Check that a checkpoint is one to go on from.

    Raises:
        ArchiveError: it is of another scan or algorithm, or the one has held-out frames and the other has none.
    """
    path = config.resume_from
    same_place = model.object.shape == problem.object.shape and (model.origin_px == problem.origin_px).all()
    if not same_place or model.probe.shape != problem.probe.shape:
        raise ArchiveError(
            f"{path}: its object is {model.object.shape} from {model.origin_px.tolist()} with a probe "
            f"{model.probe.shape}, that of this scan is {problem.object.shape} from {problem.origin_px.tolist()} with "
            f"{problem.probe.shape}; resume with the scan it was made from."
        )
    if sorted(model.history) != sorted(names):
        raise ArchiveError(
            f"{path}: its history is {', '.join(model.history)}, that of this run {', '.join(names)}; resume with the "
            "held-out frames it was made with, or without any where it had none."
        )
    theirs, ours = options_of(model.config), options_of(config)
    if theirs != ours:
        raise ArchiveError(
            f"{path}: it was made with {theirs}, this run has {ours}; resume with the same options, or refine its "
            "reconstruction with others."
        )
    return model


def _iterate(solver: Solver, history: dict[str, list[float]], config: TrainingConfig, progress: Progress) -> None:
    """Sweep until the epochs are done, or the held-out frames have been explained no better for long enough."""
    patience = config.early_stopping_patience
    for epoch in range(len(history["train_loss"]), config.epochs):
        history["train_loss"].append(solver.sweep(epoch))
        held_out = solver.watch()
        if held_out is not None:
            history["test_loss"].append(held_out)
        metrics = {name: values[-1] for name, values in history.items()} | {"epoch": float(epoch + 1)}
        progress(ProgressEvent(stage="train", done=epoch + 1, total=config.epochs, metrics=metrics))
        losses = history.get("test_loss", [])
        if patience is not None and losses and len(losses) - 1 - int(np.argmin(losses)) >= patience:
            return
