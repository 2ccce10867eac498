"""Refining an image of any engine: object, probe, modes and positions, stopped by frames that are held out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from ptycho_core.config import TrainingConfig
from ptycho_core.data.container import PtychoDataContainer, integer_corners
from ptycho_core.data.raw import RawData
from ptycho_core.data.results import Reconstruction
from ptycho_core.errors import DataError
from ptycho_core.physics.probe import add_modes
from ptycho_core.protocol import Progress, ProgressEvent

from .choices import options_of
from .images import cut_out
from .solver import Problem, Solver
from .tasks import Settings

__all__ = ["refine"]


@dataclass(frozen=True)
class _Best:
    """The state that explained the held-out frames best.

    Attributes:
        loss: of the held-out frames.
        epoch: number of epochs that led to it.
        object: (H, W) complex64.
        probe: (P, N, N) complex64.
        positions_px: (M, 2) float64.
    """

    loss: float
    epoch: int
    object: NDArray[np.complex64]
    probe: NDArray[np.complex64]
    positions_px: NDArray[np.float64]


def _state(solver: Solver, loss: float, epoch: int) -> _Best:
    return _Best(loss, epoch, solver.object, solver.probe, solver.positions_px)


def _hold_out(raw: RawData, config: TrainingConfig) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
    """Frames to iterate on, and those that are only looked at (training's held-out ones), by number."""
    numbered = replace(raw, frame_numbers=np.arange(raw.n_frames))
    iterated, held_out = numbered.split(config.test_fraction, config.seed, config.test_split)
    return iterated.frame_numbers, None if held_out is None else held_out.frame_numbers


def _problem(initial: Reconstruction, data: PtychoDataContainer, config: TrainingConfig) -> Problem:
    """Lay the image on a canvas that also holds positions which move.

    Raises:
        DataError: the image is of another scan, or not on whole pixels.
    """
    given = data.raw
    name = given.source.path or "scan"
    if initial.positions_px.shape != given.positions_px.shape or initial.probe.shape[-1] != given.side:
        raise DataError(
            f"{name}: {given.n_frames} frames of side {given.side}, but the image to refine is of "
            f"{len(initial.positions_px)} frames of side {initial.probe.shape[-1]}; give the scan it was made from."
        )
    corner = np.round(initial.origin_px).astype(np.int64)
    if np.abs(initial.origin_px - corner).max() > 1e-6:
        raise DataError(f"{name}: the image to refine starts at {initial.origin_px.tolist()}; it must be whole pixels.")
    raw = replace(given, positions_px=initial.positions_px)
    chosen = config.refinement
    margin = int(np.ceil(chosen.position_limit_px)) + 1 if chosen.positions else 1
    corners = np.concatenate(
        [integer_corners(at, raw.side)[0] for at in (initial.positions_px, initial.nominal_positions_px)]
    )
    low = np.minimum(corners.min(axis=0) - margin, corner)
    high = np.maximum(corners.max(axis=0) + raw.side + margin, corner + np.array(initial.object.shape))
    lit = initial.coverage > 0
    if not lit.any():
        raise DataError(f"{name}: the image to refine covers nothing.")
    canvas = np.full(tuple(high - low), initial.object[lit].mean(), np.complex64)
    y, x = corner - low
    window = canvas[y : y + lit.shape[0], x : x + lit.shape[1]]
    window[lit] = initial.object[lit]
    frames, held_out = _hold_out(raw, config)
    return Problem(
        raw=raw,
        frames=frames,
        watched=None if held_out is None else raw.subset(held_out),
        watched_frames=held_out,
        object=canvas,
        origin_px=low,
        probe=initial.probe,
        scale=initial.scale,
        mean_counts=data.statistics.mean_counts,
        nominal_px=initial.nominal_positions_px,
        limit_px=chosen.position_limit_px if chosen.positions else None,
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
        config: ``refinement``, ``loss``, ``seed``, ``options`` and what is held out.
        device: where.
        progress: called after each epoch.

    Returns:
        The state that explained the held-out frames best, the initial one among them; the last where none are held
        out.

    Raises:
        DataError: the image is of another scan.
        Cancelled: `progress` raised it.
    """
    wanted = config.refinement
    problem = _problem(initial, data, config)
    before = problem
    if wanted.probe_modes is not None:
        problem = replace(problem, probe=add_modes(initial.probe, wanted.probe_modes))
    settings = Settings(
        options=options_of(config),
        loss=config.loss,
        seed=config.seed,
        batch_frames=wanted.batch_size,
        refine_probe=wanted.probe,
        refine_positions=wanted.positions,
    )
    solver = Solver(problem, settings, device)
    untouched = solver if problem is before else Solver(before, settings, device)
    held_out = untouched.watch()
    best = _state(untouched, np.inf if held_out is None else held_out, 0)
    del untouched
    for epoch in range(wanted.epochs):
        metrics = {"train_loss": solver.sweep(epoch), "epoch": float(epoch + 1)}
        held_out = solver.watch()
        if held_out is not None:
            metrics["test_loss"] = held_out
        if held_out is None or held_out < best.loss:
            best = _state(solver, best.loss if held_out is None else held_out, epoch + 1)
        progress(ProgressEvent(stage="refine", done=epoch + 1, total=wanted.epochs, metrics=metrics))
        if held_out is not None and epoch + 1 - best.epoch >= wanted.patience:
            break
    return _finish(best, problem, data)


def _finish(best: _Best, problem: Problem, data: PtychoDataContainer) -> Reconstruction:
    """Cut the scan's part of the best state out, with the positions it was found with."""
    raw = replace(problem.raw, positions_px=best.positions_px, probe=best.probe)
    return cut_out(
        best.object,
        problem.origin_px,
        best.probe,
        problem.scale,
        replace(data, raw=raw, probe=best.probe),
        nominal_positions_px=problem.nominal_px,
    )
