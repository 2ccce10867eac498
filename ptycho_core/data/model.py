"""What a trained model has, whichever engine made it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ..config import TrainingConfig
from .container import Statistics

__all__ = ["TrainedModel"]


@runtime_checkable
class TrainedModel(Protocol):
    """A trained model: these are shared, the rest is the engine's own."""

    @property
    def backend(self) -> str:
        """Name of the engine that made it."""

    @property
    def config(self) -> TrainingConfig:
        """The config it was trained with."""

    @property
    def history(self) -> Mapping[str, list[float]]:
        """Name → one float an epoch; ``train_loss`` always, ``test_loss`` when there was a test set."""

    @property
    def probe(self) -> NDArray[np.complex64]:
        """Probe (P, N, N) at the end of training."""

    @property
    def statistics(self) -> Statistics:
        """Constants of the training split."""

    @property
    def checkpoint_path(self) -> Path | None:
        """Where training can be resumed from, or None when nothing was written."""
