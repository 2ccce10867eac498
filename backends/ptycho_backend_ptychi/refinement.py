"""Refining an image of any engine: object, probe, modes and positions, stopped by frames that are held out."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from ptycho_core.config import TrainingConfig
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.data.results import Reconstruction
from ptycho_core.physics.probe import add_modes
from ptycho_core.protocol import Progress, ProgressEvent
from ptycho_core.refinement.image import heldout_frames
from ptycho_core.refinement.state import ScanState

from .choices import options_of, refinement_loss
from .solver import Problem, Solver
from .tasks import Settings

__all__ = ["refine"]


@dataclass(frozen=True)
class _Best:
    """The state that explained the held-out frames best.

    Attributes:
        loss: of the held-out frames.
        epoch: number of epochs that led to it.
        state: object, probe and positions.
    """

    loss: float
    epoch: int
    state: ScanState


def _note(state: ScanState, solver: Solver, loss: float, epoch: int) -> _Best:
    probe = solver.probe * np.float32(np.sqrt(state.scale))
    return _Best(loss, epoch, replace(state, object=solver.object, probe=probe, positions_px=solver.positions_px))


def _lay_out(initial: Reconstruction, data: PtychoDataContainer, config: TrainingConfig) -> ScanState:
    """The image on a canvas that also holds positions which move.

    Raises:
        DataError: the image is of another scan, or not on whole pixels.
    """
    wanted = config.refinement
    room = 1
    if wanted.positions:
        # the limit counts from where a position was read, which is not where an image that was refined has it
        shift = initial.positions_px - data.raw.positions_px if _same_frames(initial, data) else np.zeros(1)
        room += math.ceil(wanted.position_limit_px + float(np.abs(shift).max()))
    return ScanState.of_image(initial, data.raw, margin_px=room)


def _same_frames(initial: Reconstruction, data: PtychoDataContainer) -> bool:
    return initial.positions_px.shape == data.raw.positions_px.shape


def _problem(state: ScanState, initial: Reconstruction, data: PtychoDataContainer, config: TrainingConfig) -> Problem:
    """What pty-chi is to solve: the frames that are not held out, from the image and with its positions."""
    given, wanted = data.raw, config.refinement
    moved = replace(given, positions_px=state.positions_px)
    held_out = heldout_frames(given, config)
    some = len(held_out) > 0
    return Problem(
        raw=moved,
        frames=np.setdiff1d(np.arange(given.n_frames), held_out),
        watched=moved.subset(held_out) if some else None,
        watched_frames=held_out if some else None,
        object=state.object,
        origin_px=state.origin_px,
        probe=initial.probe,
        scale=state.scale,
        mean_counts=data.statistics.mean_counts,
        nominal_px=given.positions_px,
        limit_px=wanted.position_limit_px if wanted.positions else None,
    )


def refine(
    initial: Reconstruction,
    data: PtychoDataContainer,
    config: TrainingConfig,
    device: torch.device,
    progress: Progress,
) -> Reconstruction:
    """Go on from an image, as ``config.refinement`` says.

    Args:
        initial: image, probe, scale and positions to start from; left as they are.
        data: the scan.
        config: ``refinement``, ``seed``, ``options`` and what is held out.
        device: where.
        progress: called after each epoch.

    Returns:
        The state that explained the held-out frames best, the initial one among them; the last where none are held
        out.

    Raises:
        DataError: the image is of another scan.
        BackendError: the solver diverged.
        Cancelled: `progress` raised it.
    """
    wanted = config.refinement
    state = _lay_out(initial, data, config)
    before = problem = _problem(state, initial, data, config)
    if wanted.probe_modes is not None:
        problem = replace(problem, probe=add_modes(initial.probe, wanted.probe_modes))
    settings = Settings(
        options=options_of(config),
        loss=refinement_loss(config),
        seed=config.seed,
        batch_frames=wanted.batch_size,
        refine_probe=wanted.probe,
        refine_positions=wanted.positions,
    )
    solver = Solver(problem, settings, device)
    untouched = solver if problem is before else Solver(before, settings, device)
    held_out = untouched.watch()
    best = _note(state, untouched, np.inf if held_out is None else held_out, 0)
    del untouched
    for epoch in range(wanted.epochs):
        metrics = {"train_loss": solver.sweep(epoch), "epoch": float(epoch + 1)}
        held_out = solver.watch()
        if held_out is not None:
            metrics["test_loss"] = held_out
        if held_out is None or held_out < best.loss:
            best = _note(state, solver, best.loss if held_out is None else held_out, epoch + 1)
        progress(ProgressEvent(stage="refine", done=epoch + 1, total=wanted.epochs, metrics=metrics))
        if held_out is not None and epoch + 1 - best.epoch >= wanted.patience:
            break
    return best.state.image(data)
