"""Solving a scan from the flat object with an engine's steps: what every solver's ``train`` calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..config import TrainingConfig
from ..data.container import PtychoDataContainer
from ..errors import ArchiveError, Cancelled
from ..io.atomic import ensure_output_folder
from ..protocol import Constraints, Progress, ProgressEvent, Quantity, ReconstructionBackend, Stepper, SupportsStepping
from ..runtime import Runtime
from .checkpoint import CheckpointPace
from .descent import Descent, batch_size_for, descend
from .loss_choice import training_loss
from .network_training import run_facts
from .solver_model import History, SolverModel, leave_checkpoint, take_checkpoint
from .state import flat_image

__all__ = ["CHECKPOINT", "solve"]

CHECKPOINT = "solver_checkpoint.safetensors"
"""Name of a solver's checkpoint in the output folder; the engine's name is in it."""


def solve(
    engine: ReconstructionBackend,
    scan: PtychoDataContainer,
    config: TrainingConfig,
    runtime: Runtime,
    progress: Progress,
) -> SolverModel:
    """Descend from the flat object, ``config.epochs`` times over the training frames, those of a resumed run included.

    Held-out frames only give the ``test_loss``: they still judge an image that has not been chosen by them.

    Args:
        engine: that makes the steps; see ``protocol.SupportsStepping``.
        scan: the scan.
        config: ``loss``, ``epochs``, ``batch_size``, ``algorithm``, ``probe_trainable`` and ``seed`` are read.
        runtime: what does the work; a checkpoint is left in ``output_dir``.
        progress: called after each epoch.

    Returns:
        What the last epoch left.

    Raises:
        ArchiveError: ``resume_from`` is not a checkpoint of this run.
        BackendError: the descent diverged.
        Cancelled: `progress` raised it; a checkpoint is in the output folder if there is one.
    """
    assert isinstance(engine, SupportsStepping)
    assert config.epochs is not None
    epochs, held, mean_counts = config.epochs, scan.heldout_frames, scan.statistics.mean_counts
    name, start, facts = scan.raw.source.path or "scan", flat_image(scan), run_facts(config, [scan], runtime)
    stepper = engine.stepper(start, scan, training_loss(config, engine.capabilities.losses), runtime)
    history: History = {"train_loss": [], **({"test_loss": []} if len(held) else {})}
    if runtime.resume_from is not None:
        arrays, history = take_checkpoint(runtime.resume_from, engine.name, list(history), facts, epochs)
        _check_arrays(stepper, arrays, runtime.resume_from)
        stepper.take(arrays)
    path = None if runtime.output_dir is None else ensure_output_folder(runtime.output_dir) / CHECKPOINT

    def write() -> None:
        if path is not None:
            leave_checkpoint(path, engine.name, stepper.arrays(), history, facts)

    checkpoints = CheckpointPace(write)

    def note(epoch: int, loss: float, heldout_loss: float | None) -> None:
        history["train_loss"].append(loss / mean_counts)
        if heldout_loss is not None:
            history["test_loss"].append(heldout_loss / mean_counts)
        checkpoints.after_epoch()
        metrics = {name: values[-1] for name, values in history.items()}
        progress(ProgressEvent(stage="train", done=epoch + 1, total=epochs, metrics=metrics, image=stepper.image))

    def made() -> SolverModel:
        return SolverModel.of_image(
            stepper.image(),
            backend=engine.name,
            config=config,
            history=history,
            statistics=scan.statistics,
            checkpoint_path=path,
        )

    frames, first = scan.train_frames, len(history["train_loss"])
    try:
        plan = _plan(config, scan)
        descend(
            stepper, plan, frames=frames, heldout=held, after_epoch=note, first_epoch=first, choose=False, name=name
        )
    except Cancelled as error:
        checkpoints.now()
        error.checkpoint_path = None if path is None else str(path)
        error.model = made()
        raise
    checkpoints.now()
    return made()


def _plan(config: TrainingConfig, scan: PtychoDataContainer) -> Descent:
    assert config.epochs is not None
    power = scan.statistics.scale * float(np.sum(np.abs(scan.probe.astype(np.complex128)) ** 2))
    wanted: tuple[Quantity, ...] = ("object", "probe") if config.probe_trainable else ("object",)
    return Descent(
        epochs=config.epochs,
        batch_size=config.batch_size or batch_size_for(len(scan.train_frames)),
        wanted=wanted,
        constraints=Constraints(power=power),
        seed=config.seed,
        least_squares=config.algorithm == "lsq",
    )


def _check_arrays(stepper: Stepper, arrays: dict[str, Any], path: Path) -> None:
    """Refuse the arrays of a checkpoint that are not what a stepper of this run is made of.

    Raises:
        ArchiveError: one is missing, or of another shape or type.
    """
    for name, wanted in stepper.arrays().items():
        found = arrays.get(name)
        if found is None or found.shape != wanted.shape or found.dtype != wanted.dtype:
            given = "missing" if found is None else f"{found.dtype} {found.shape}"
            raise ArchiveError(
                f"{path}: its {name} is {given}; a checkpoint of this run holds {wanted.dtype} {wanted.shape}. "
                "Resume with the scan and the settings it was made with, or train again."
            )
