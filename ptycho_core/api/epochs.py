"""What a history of losses says of each epoch in figures that can be judged, beside the losses themselves (FM-38)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..data.container import PtychoDataContainer
from ..data.results import Scored
from ..physics.corrections import saturated_loss
from ..physics.epochs import epoch_deviance, epoch_fourier_error
from ..physics.merit import SUMS

__all__ = ["with_epoch_figures"]

_BLOCK = 256
_ROUNDING = 1e-3
"""What the rounding of a float32 loss leaves below a figure of 0."""


def _saturated(scan: PtychoDataContainer, frames: NDArray[np.int64], loss: str) -> float:
    """Σ (k − k ln k) over the good pixels of some frames, read in pieces."""
    parts = (frames[start : start + _BLOCK] for start in range(0, len(frames), _BLOCK))
    return sum(saturated_loss(scan.raw.read_counts(part), loss, scan.raw.mask) for part in parts)


def with_epoch_figures(
    history: Mapping[str, Sequence[float]], scored: Scored, loss: str, *, training: bool = True
) -> dict[str, list[float]]:
    """A history with ``train_deviance`` and ``test_deviance``, or the Fourier errors of an amplitude loss.

    Args:
        history: ``train_loss`` of an epoch's steps and, with held-out frames, ``test_loss`` after it.
        scored: the image that came of it, whose expectation of noise divides the deviance of every epoch.
        loss: ``poisson`` or ``amplitude``.
        training: whether ``train_loss`` counts each training frame once; a network's is of groups of them.

    Losses that cannot be what they are called, below those of a perfect fit, are told as they are and no further.
    """
    out = {name: list(values) for name, values in history.items()}
    scan, mean = scored.scan, scored.scan.statistics.mean_counts
    roles = {"train": scan.train_frames if training else scan.heldout_frames[:0], "test": scan.heldout_frames}
    for role, frames in roles.items():
        losses = out.get(f"{role}_loss", [])
        if not losses or not len(frames):
            continue
        sums = dict(zip(SUMS, scored.frame_sums[frames].sum(axis=0).tolist(), strict=True))
        divisor = len(frames) * mean
        if loss == "poisson":
            perfect = _saturated(scan, frames, loss)
            name, told = "deviance", epoch_deviance(losses, divisor, perfect, sums["deviance_floor"])
        else:
            name, told = "fourier_error", epoch_fourier_error(losses, divisor, sums["counts"])
        if not (told < -_ROUNDING).any():  # no figure is below 0: an engine tells something else than FM-8 by that name
            out[f"{role}_{name}"] = told.tolist()
    return out
