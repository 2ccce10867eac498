"""Refining an image with an engine's steps, as ``config.refinement`` says (BE-16, BE-17)."""

from __future__ import annotations

import numpy as np

from ..config import TrainingConfig
from ..data.container import PtychoDataContainer
from ..data.results import Image
from ..protocol import Constraints, Progress, ProgressEvent, ReconstructionBackend
from ..runtime import Runtime
from .descent import Descent, batch_size_for, descend
from .loss_choice import refinement_loss
from .state import room_to_move, with_modes, with_room

__all__ = ["refine_by_steps"]


def refine_by_steps(
    engine: ReconstructionBackend,
    image: Image,
    scan: PtychoDataContainer,
    config: TrainingConfig,
    runtime: Runtime,
    progress: Progress,
) -> Image:
    plan = config.refinement
    loss = refinement_loss(config, engine.capabilities.losses)
    frames, held = scan.train_frames, scan.heldout_frames
    margin = room_to_move(image, scan, plan.position_limit_px) if plan.positions else 0
    stepper = engine.stepper(with_room(image, margin), scan, loss, runtime)
    least = stepper.loss(held) / len(held) if len(held) else None
    if plan.probe_modes is not None:
        stepper = engine.stepper(with_modes(with_room(image, margin), plan.probe_modes), scan, loss, runtime)
    wanted = ("object",) + (("probe",) if plan.probe else ()) + (("positions",) if plan.positions else ())
    power = image.scale * float(np.sum(np.abs(image.probe.astype(np.complex128)) ** 2))
    descent = Descent(
        epochs=plan.epochs,
        batch_size=plan.batch_size or batch_size_for(len(frames)),
        wanted=wanted,
        position_limit_px=plan.position_limit_px,
        constraints=Constraints(power=power),
        patience=plan.patience,
        seed=config.seed,
        least_squares=config.algorithm == "lsq",
    )
    mean_counts = scan.statistics.mean_counts

    def report(epoch, loss, heldout_loss):
        metrics = {"epoch": float(epoch + 1), "train_loss": loss / mean_counts}
        if heldout_loss is not None:
            metrics["test_loss"] = heldout_loss / mean_counts
        progress(ProgressEvent(stage="refine", done=epoch + 1, total=plan.epochs, metrics=metrics))

    done = descend(stepper, descent, frames=frames, heldout=held, after_epoch=report, least=least)
    return stepper.image() if done.better else image
