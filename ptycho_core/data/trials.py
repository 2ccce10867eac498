"""A trial: what a short solve was tried with, and how well it explained frames that it had not seen."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Trial", "best_of"]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What was tried, and what came of it.

    Attributes:
        tried: name → plain value, what this trial has in other ways than those beside it.
        misfit: deviance of the held-out frames a frame, Σd / n: what trials of one scan are ranked by, less is better.
        heldout_deviance: reduced deviance of the held-out frames; 1 is all that noise allows.
        train_deviance: the same of the frames that were learned from.
        fourier_error: of the held-out frames.
        seconds: wall-clock time that it took.
    """

    tried: Mapping[str, Any]
    misfit: float
    heldout_deviance: float
    train_deviance: float
    fourier_error: float
    seconds: float

    def to_mapping(self) -> dict[str, Any]:
        """Plain values for a JSON file; None where a figure is not finite."""
        found = {name: value for name, value in asdict(self).items() if name != "tried"}
        return {
            "tried": dict(self.tried),
            **{name: value if math.isfinite(value) else None for name, value in found.items()},
        }


def best_of(trials: Iterable[Trial]) -> Trial:
    """The trial that explains the held-out frames best; there must be one."""
    return min(trials, key=lambda trial: trial.misfit if math.isfinite(trial.misfit) else math.inf)
