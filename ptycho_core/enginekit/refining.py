"""Refining an image with an engine's gradient, as ``SupportsRefinement`` asks: what every engine's ``refine`` calls."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..config import TrainingConfig
from ..data.container import PtychoDataContainer
from ..data.raw import RawData
from ..data.results import Image
from ..protocol import Progress, ProgressEvent
from .descent import Descent, ScanGradient, batch_size_for, descend
from .loss_choice import refinement_loss
from .state import ScanState, room_to_move

__all__ = ["refine_image"]


def refine_image(
    image: Image,
    scan: PtychoDataContainer,
    config: TrainingConfig,
    bind: Callable[[RawData, str], ScanGradient],
    progress: Progress,
    *,
    least_squares: bool = False,
    dtype: type = np.complex64,
) -> Image:
    """Go on from an image as ``config.refinement`` says (BE-16, BE-17).

    Args:
        image: the image; left as it is.
        scan: its scan, with the frames to refine on and those that are held out.
        config: ``refinement`` and ``seed``.
        bind: makes the engine's gradient of a scan and a loss.
        progress: called after each epoch; it may raise ``Cancelled``.
        least_squares: see :class:`Descent`.
        dtype: complex64 or complex128, of object and probe while they are refined.

    Returns:
        The state that explained the held-out frames best, that of `image` among them; the last one without such
        frames.

    Raises:
        DataError: the image is of another scan.
        BackendError: refining diverged.
    """
    raw, plan = scan.raw, config.refinement
    loss = refinement_loss(config, ("poisson",))
    train, margin = scan.train_frames, room_to_move(image, scan, plan.position_limit_px) if plan.positions else 0
    initial = ScanState.of_image(image, scan, margin_px=margin, dtype=dtype, filled=False)
    state = ScanState.of_image(image, scan, margin_px=margin, dtype=dtype)
    if plan.probe_modes is not None:
        state = state.with_modes(plan.probe_modes)
    descent = Descent(
        loss=loss,
        epochs=plan.epochs,
        batch_size=plan.batch_size or batch_size_for(len(train)),
        probe=plan.probe,
        positions=plan.positions,
        position_limit_px=plan.position_limit_px,
        patience=plan.patience,
        seed=config.seed,
        least_squares=least_squares,
    )
    mean_counts = scan.statistics.mean_counts

    def report(epoch: int, now: ScanState, loss: float, heldout_loss: float | None) -> None:
        metrics = {"epoch": float(epoch + 1), "train_loss": loss / mean_counts}
        if heldout_loss is not None:
            metrics["test_loss"] = heldout_loss / mean_counts
        progress(ProgressEvent(stage="refine", done=epoch + 1, total=plan.epochs, metrics=metrics))

    best = descend(
        state, bind(raw, loss), descent, frames=train, heldout=scan.heldout_frames, after_epoch=report, initial=initial
    )
    return image if best is initial else best.image()
