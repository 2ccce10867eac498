"""The pty-chi engine: what the engine protocol asks for, around the runs of ``solver``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ptycho_core.config import InferenceConfig, TrainingConfig
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.data.results import Image
from ptycho_core.enginekit.checkpoint import CheckpointPace
from ptycho_core.enginekit.engine_threads import EngineThreads
from ptycho_core.enginekit.hardware import choose_accelerator
from ptycho_core.enginekit.loss_choice import training_loss
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
from ptycho_core.enginekit.stitching import corners_on, make_image
from ptycho_core.enginekit.threads import SPINNING
from ptycho_core.errors import Cancelled
from ptycho_core.io.atomic import ensure_output_folder
from ptycho_core.protocol import Progress, ProgressEvent, no_progress
from ptycho_core.runtime import DEFAULT_RUNTIME, Runtime

from . import physics
from .choices import check_choices, losses_for, options_of
from .extras import OPR_STAT, Opr, bound, first_opr, optics_of, split
from .iterations import Problem, Solver
from .library import computing, inside
from .plugin import CAPABILITIES
from .refinement import refine
from .state import read_state, restore_state
from .tasks import Settings

__all__ = ["PtychiBackend"]

CHECKPOINT = "ptychi_checkpoint.safetensors"
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
    capabilities = CAPABILITIES

    def __init__(self) -> None:
        self._threads = EngineThreads(torch.get_num_threads)

    def threads_chosen(self) -> str:
        """How many threads the last job computed with; see ``SupportsThreadChoice``."""
        return self._threads.told()

    def device_words(self, runtime: Runtime) -> str:
        """The GPU that a job would work on; empty for the CPU. See ``SupportsDeviceWords``."""
        device = choose_device(runtime.accelerator)
        if device.type == "cpu":
            return ""
        number = torch.cuda.current_device()
        found = torch.cuda.get_device_properties(number)
        return f"cuda:{number} ({found.name}), {found.total_memory / 1e9:.0f} GB"

    def train(
        self,
        scans: Sequence[PtychoDataContainer],
        config: TrainingConfig,
        runtime: Runtime = DEFAULT_RUNTIME,
        *,
        progress: Progress = no_progress,
    ) -> SolverModel:
        """Iterate over the training frames of a scan ``config.epochs`` times, those of a resumed run included.

        Raises:
            ConfigError: a loss or a setting without effect on the algorithm, or an accelerator that is not there.
            ArchiveError: ``resume_from`` is not a checkpoint of this run.
            BackendError: the solver diverged.
            Cancelled: `progress` raised it; the checkpoint in ``runtime.output_dir`` is up to date.
        """
        check_choices(config, refining=False)
        scan, device, options = scans[0], choose_device(runtime.accelerator), options_of(config)
        path = ensure_output_folder(runtime.output_dir) / CHECKPOINT if runtime.output_dir is not None else None
        # options that are left out are the defaults, also for a run that goes on with them written out
        facts = run_facts(replace(config, options=(options,)), [scan], runtime)
        history: History = {"train_loss": [], **({"test_loss": []} if len(scan.heldout_frames) else {})}
        state = None
        if runtime.resume_from is not None:
            state, history = take_checkpoint(runtime.resume_from, self.name, list(history), facts, config.epochs)
        settings = Settings(
            options=options,
            loss=training_loss(config, losses_for(config)),
            seed=config.seed,
            refine_probe=config.probe_trainable,
        )
        problem = _flat_problem(scan, settings)
        solver = Solver(problem, settings, device, self._threads.of(runtime.threads, SPINNING))

        def write() -> None:
            if path is not None:
                leave_checkpoint(path, self.name, read_state(solver.reconstructor), history, facts)

        if state is not None:
            moved = solver.moves_probe(len(history["train_loss"]) - 1)
            restore_state(solver.reconstructor, state, options, device, probe_moved=moved)
        checkpoints = CheckpointPace(write)
        try:
            _iterate(solver, history, config, checkpoints, progress, partial(_image_now, solver, scan))
        except Cancelled as error:
            checkpoints.now()
            error.checkpoint_path = None if path is None else str(path)
            raise
        checkpoints.now()
        return SolverModel.of_image(
            _image_now(solver, scan),
            backend=self.name,
            config=config,
            history=history,
            statistics=scan.statistics,
            checkpoint_path=path,
        )

    def reconstruct(
        self,
        model: SolverModel,
        scan: PtychoDataContainer,
        config: InferenceConfig,
        runtime: Runtime = DEFAULT_RUNTIME,
        *,
        progress: Progress = no_progress,
    ) -> Image:
        """Cut the part of the object that the training frames of a scan cover out of the model.

        Raises:
            DataError: the scan leaves the object; a solver knows nothing beyond it.
        """
        image = reconstruct_solved(model, scan, config, progress)
        if model.mode_weights is None:
            return image
        return replace(image, stats={**image.stats, OPR_STAT: options_of(model.config).opr_modes or 0})

    def refine(
        self,
        image: Image,
        scan: PtychoDataContainer,
        config: TrainingConfig,
        runtime: Runtime = DEFAULT_RUNTIME,
        *,
        progress: Progress = no_progress,
    ) -> Image:
        """Go on from an image of any engine; see ``SupportsRefinement``."""
        check_choices(config, refining=True)
        threads = self._threads.of(runtime.threads, SPINNING)
        return refine(image, scan, config, choose_device(runtime.accelerator), threads, progress)

    def losses_for(self, config: TrainingConfig) -> tuple[str, ...]:
        """The losses that the algorithm of a config refines with; see ``SupportsLossChoice``."""
        return losses_for(config)

    def expected_counts(
        self, image: Image, scan: PtychoDataContainer, frames: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """λ (n, N, N) of some frames (n,) of a scan by pty-chi's forward model, through slices and with OPR modes.

        Raises:
            DataError: a frame leaves the image, or waves go through slices and the scan does not say their wavelength.
        """
        N, background = image.probe.shape[-1], scan.raw.background
        corners, rest = corners_on(image, frames)
        optics = None if image.slice_spacing_m is None else optics_of(scan.raw, image.slice_spacing_m)
        probe, opr, weights = image.probe, None, image.mode_weights
        if image.forward_model == self.name and weights is not None:
            probe, opr = split(image)
            opr, weights = (None if opr is None else Opr(opr.modes, opr.weights[frames])), None
        if not len(frames):
            return np.zeros((0, N, N), np.float32)
        host = torch.device("cpu")
        with inside(host), computing(self._threads.again(SPINNING), "expected", len(frames), host):
            counts = physics.expected_counts(
                image.object if image.slices is None else image.slices,
                probe,
                corners,
                rest,
                image.scale,
                optics=optics,
                opr=opr,
                mode_weights=None if weights is None else weights[frames],
            )
        return counts if background is None else counts + background.astype(np.float32)

    def save(self, model: SolverModel, path: Path) -> None:
        """Write a bundle that says it is a solver's."""
        save_solver(model, path, _PACKAGES)

    def load(self, path: Path) -> SolverModel:
        """Read a bundle of this engine.

        Raises:
            ArchiveError: damaged, unsafe, or of another engine.
        """
        return load_solver(path, self.name)


def _flat_problem(scan: PtychoDataContainer, settings: Settings) -> Problem:
    """An object of ones that holds every used frame of a scan, with a pixel to spare on each side.

    Raises:
        DataError: it has slices, and the scan does not say its wavelength or its pixels.
    """
    origin, (height, width) = scan.canvas()
    spacing, K = settings.options.slice_spacing_m, settings.options.opr_modes
    opr = None
    if settings.varies and K is not None:
        opr = first_opr(scan.probe, K, scan.raw.n_frames, settings.seed)
    return Problem(
        raw=scan.raw,
        frames=scan.train_frames,
        watched=scan.heldout_frames,
        slices=np.ones((settings.options.slices or 1, height + 2, width + 2), np.complex64),
        origin_px=origin - 1,
        probe=scan.probe,
        scale=scan.statistics.scale,
        mean_counts=scan.statistics.mean_counts,
        start_px=scan.raw.positions_px,
        optics=None if spacing is None else optics_of(scan.raw, spacing),
        opr=opr,
    )


def _image_now(solver: Solver, scan: PtychoDataContainer) -> Image:
    """What a solver has, with no word on what was lit: the model knows all of the object."""
    problem, slices = solver.problem, solver.slices
    everything = np.ones(slices.shape[1:], np.float32)
    image = make_image(solver.object, everything, problem.origin_px, solver.probe, problem.scale, scan.raw.positions_px)
    return bound(image, None if len(slices) == 1 else slices, problem.optics, solver.probe, solver.opr)


def _stalled(history: History, patience: int | None) -> bool:
    """Whether the held-out frames have been explained no better for long enough."""
    losses = history.get("test_loss", [])
    return patience is not None and bool(losses) and len(losses) - 1 - int(np.argmin(losses)) >= patience


def _iterate(
    solver: Solver,
    history: History,
    config: TrainingConfig,
    checkpoints: CheckpointPace,
    progress: Progress,
    now: Callable[[], Image],
) -> None:
    """Sweep until the epochs are done or the held-out frames say so, and leave checkpoints on the way."""
    for epoch in range(len(history["train_loss"]), config.epochs):
        if _stalled(history, config.early_stopping_patience):
            return
        history["train_loss"].append(solver.sweep(epoch))
        held_out = solver.watch()
        if held_out is not None:
            history["test_loss"].append(held_out)
        checkpoints.after_epoch()
        metrics = {name: values[-1] for name, values in history.items()} | {"epoch": float(epoch + 1)}
        progress(ProgressEvent(stage="train", done=epoch + 1, total=config.epochs, metrics=metrics, image=now))
