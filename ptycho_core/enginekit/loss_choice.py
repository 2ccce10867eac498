"""Which loss an image is solved or refined with: decided once, so that who refines and who judges use the same."""

from __future__ import annotations

from collections.abc import Sequence

from ..config import TrainingConfig

__all__ = ["refinement_loss", "training_loss"]


def refinement_loss(config: TrainingConfig, losses: Sequence[str]) -> str:
    """The loss that an image is refined with and judged by: as asked, else Poisson, else the first there is.

    Args:
        config: ``refinement.loss``; None leaves it to this function.
        losses: those that the engine can refine with, at least one.
    """
    return config.refinement.loss or ("poisson" if "poisson" in losses else losses[0])


def training_loss(config: TrainingConfig, losses: Sequence[str]) -> str:
    """The loss that an engine solves or trains with: as asked, else Poisson, else the first there is.

    Args:
        config: ``loss``; a config of a network has one already.
        losses: those that the engine has for it, at least one.
    """
    return config.loss or ("poisson" if "poisson" in losses else losses[0])
