"""Refining an image of any engine: object, probe, modes and positions, stopped by frames that are held out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from ptycho_core.config import TrainingConfig
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.data.results import Image
from ptycho_core.enginekit.loss_choice import refinement_loss
from ptycho_core.enginekit.state import ScanState, room_to_move
from ptycho_core.enginekit.stitching import make_image
from ptycho_core.physics.probe import add_modes
from ptycho_core.protocol import Progress, ProgressEvent

from .choices import losses_for, options_of
from .iterations import Problem, Solver
from .tasks import Settings

__all__ = ["refine"]


def _lay_out(image: Image, scan: PtychoDataContainer, config: TrainingConfig, *, filled: bool = True) -> ScanState:
    """The image on a canvas that also holds positions which move.

    Raises:
        DataError: the image is of another scan, or not on whole pixels.
    """
    wanted = config.refinement
    room = room_to_move(image, scan, wanted.position_limit_px) if wanted.positions else 1
    return ScanState.of_image(image, scan, margin_px=room, filled=filled)


def _problem(state: ScanState, image: Image, scan: PtychoDataContainer, config: TrainingConfig) -> Problem:
    """What pty-chi is to solve: the training frames, from the image and with its positions."""
    wanted = config.refinement
    return Problem(
        raw=scan.raw,
        frames=scan.train_frames,
        watched=scan.heldout_frames,
        object=state.object,
        origin_px=state.origin_px,
        probe=image.probe,
        scale=state.scale,
        mean_counts=scan.statistics.mean_counts,
        start_px=state.positions_px,
        limit_px=wanted.position_limit_px if wanted.positions else None,
    )


def _now(state: ScanState, solver: Solver) -> ScanState:
    """What the solver has made of a state."""
    probe = solver.probe * np.float32(np.sqrt(state.scale))
    return replace(state, object=solver.object, probe=probe, positions_px=solver.positions_px)


def _same(image: Image) -> Image:
    """The image in arrays of its own."""
    obj, coverage, origin = image.object.copy(), image.coverage.copy(), np.round(image.origin_px).astype(np.int64)
    return make_image(obj, coverage, origin, image.probe, image.scale, image.positions_px, stats=image.stats)


def refine(
    image: Image,
    scan: PtychoDataContainer,
    config: TrainingConfig,
    device: torch.device,
    progress: Progress,
) -> Image:
    """Go on from an image, as ``config.refinement`` says.

    Args:
        image: image, probe, scale and positions to start from; left as they are.
        scan: its scan, with the frames to refine on and those that are held out.
        config: ``refinement``, ``seed`` and ``options``.
        device: where.
        progress: called after each epoch.

    Returns:
        The state that explained the held-out frames best, that of `image` among them; the last one where none are held
        out.

    Raises:
        DataError: the image is of another scan.
        BackendError: the solver diverged.
        Cancelled: `progress` raised it.
    """
    wanted = config.refinement
    state = _lay_out(image, scan, config)
    before = problem = _problem(state, image, scan, config)
    if wanted.probe_modes is not None:
        problem = replace(problem, probe=add_modes(image.probe, wanted.probe_modes))
    settings = Settings(
        options=options_of(config),
        loss=refinement_loss(config, losses_for(config)),
        seed=config.seed,
        batch_frames=wanted.batch_size,
        refine_probe=wanted.probe,
        refine_positions=wanted.positions,
    )
    solver = Solver(problem, settings, device)
    # modes that were added explain less at first, and they are not the image's
    first = solver if problem is before else Solver(before, settings, device)
    least = first.watch(_lay_out(image, scan, config, filled=False).object)
    best, best_epoch = None, 0
    for epoch in range(wanted.epochs):
        metrics = {"train_loss": solver.sweep(epoch), "epoch": float(epoch + 1)}
        now = _now(state, solver)
        held_out = solver.watch(now.shown())
        if held_out is not None:
            metrics["test_loss"] = held_out
        if held_out is None or least is None or held_out < least:
            best, least, best_epoch = now, held_out, epoch + 1
        progress(ProgressEvent(stage="refine", done=epoch + 1, total=wanted.epochs, metrics=metrics))
        if held_out is not None and epoch + 1 - best_epoch >= wanted.patience:
            break
    return _same(image) if best is None else best.image()
