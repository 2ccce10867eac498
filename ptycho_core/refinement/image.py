"""Refining an image with an engine's gradient, as ``SupportsRefinement`` asks: what every engine's ``refine`` calls."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..config import TrainingConfig
from ..data.container import PtychoDataContainer
from ..data.raw import RawData
from ..data.results import Reconstruction
from ..protocol import Progress, ProgressEvent
from .descent import Descent, ScanGradient, batch_size_for, descend
from .state import ScanState

__all__ = ["heldout_frames", "refine_image"]


def heldout_frames(raw: RawData, config: TrainingConfig) -> NDArray[np.int64]:
    """Frames (n,) that training and refining of a scan hold out, by ``test_fraction``, ``test_split`` and ``seed``."""
    _, test = raw.split(config.test_fraction, config.seed, config.test_split)
    if test is None:
        return np.zeros(0, np.int64)
    return np.flatnonzero(np.isin(raw.frame_numbers, test.frame_numbers)).astype(np.int64)


def refine_image(
    initial: Reconstruction,
    data: PtychoDataContainer,
    config: TrainingConfig,
    bind: Callable[[RawData, str], ScanGradient],
    progress: Progress,
    *,
    least_squares: bool = False,
    dtype: type = np.complex64,
) -> Reconstruction:
    """Go on from an image as ``config.refinement`` says (BE-16, BE-17).

    Args:
        initial: the image; left as it is.
        data: its scan.
        config: ``refinement``, ``seed`` and what decides the held-out frames.
        bind: makes the engine's gradient of a scan and a loss.
        progress: called after each epoch; it may raise ``Cancelled``.
        least_squares: see :class:`Descent`.
        dtype: complex64 or complex128, of object and probe while they are refined.

    Returns:
        The state that explained the held-out frames best.

    Raises:
        DataError: the image is of another scan.
        BackendError: refining diverged.
    """
    raw, plan = data.raw, config.refinement
    loss = plan.loss or "poisson"
    margin = 0
    if plan.positions:  # the image may have moved positions already, the limit is from where they were read
        moved = float(np.abs(initial.positions_px - raw.positions_px).max())
        margin = math.ceil(moved + plan.position_limit_px) + 1
    state = ScanState.of_image(initial, raw, margin_px=margin, probe_modes=plan.probe_modes, dtype=dtype)
    descent = Descent(
        loss=loss,
        epochs=plan.epochs,
        batch_size=plan.batch_size or batch_size_for(raw.n_frames),
        probe=plan.probe,
        positions=plan.positions,
        position_limit_px=plan.position_limit_px,
        patience=plan.patience,
        seed=config.seed,
        least_squares=least_squares,
    )
    mean_counts = data.statistics.mean_counts

    def report(epoch: int, now: ScanState, loss: float, heldout_loss: float | None) -> None:
        metrics = {"epoch": float(epoch + 1), "train_loss": loss / mean_counts}
        if heldout_loss is not None:
            metrics["test_loss"] = heldout_loss / mean_counts
        progress(ProgressEvent(stage="refine", done=epoch + 1, total=plan.epochs, metrics=metrics))

    best = descend(state, bind(raw, loss), descent, heldout=heldout_frames(raw, config), after_epoch=report)
    return best.image(data)
