"""The verdict on an image: measured through its own forward model, and, where it is bad, with the cause looked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..config import TrainingConfig
from ..data.findings import FourierRingCorrelation
from ..data.results import Refined, Scored
from ..data.run import heldout_chose
from ..data.verdict import Verdict
from ..evaluation.measure import measure
from ..evaluation.measured import Measured
from ..evaluation.verdict import Circumstances, needs_diagnosis, weigh
from ..protocol import ReconstructionBackend
from .score import forward_of

__all__ = ["Judgement", "circumstances", "judge"]


class Judgement:
    """What was measured on an image, from which a verdict is given: once, and again when trials have found a cause.

    Args:
        scored: the image.
        begun_with: (P, N, N) probe that the scan was begun with.
        backend: engine that made the image, for its forward model; None asks the oracle.
        known: what else is known of the run.

    Raises:
        BackendError: the forward model failed, or is not at hand.
    """

    def __init__(
        self,
        scored: Scored,
        begun_with: NDArray[np.complex64],
        backend: ReconstructionBackend | None = None,
        known: Circumstances | None = None,
    ) -> None:
        forward = forward_of(scored.image, backend)
        self.scored, self.known = scored, known or Circumstances()
        self.measured: Measured = measure(scored, lambda frames: forward(scored.image, scored.scan, frames), begun_with)

    @property
    def needs_diagnosis(self) -> bool:
        """Whether trials of what may be wrong are worth their time."""
        return needs_diagnosis(self.measured, self.scored.train, self.scored.heldout)

    def verdict(self, found: Circumstances | None = None) -> Verdict:
        """The verdict, with what trials found."""
        known = self.known
        if found is not None:
            known = replace(known, alternatives=found.alternatives, searched=found.searched)
        return weigh(self.measured, self.scored.train, self.scored.heldout, known)


def circumstances(
    scored: Scored, refined: Refined | None, halves: FourierRingCorrelation | None, config: TrainingConfig
) -> Circumstances:
    """What a run knows beside its image."""
    positions = None if refined is None else refined.positions
    return Circumstances(
        stats=scored.image.stats,
        positions_at_limit=None if positions is None else positions.at_limit / (2 * len(scored.scan.used_frames)),
        half_data_cutoff=None if halves is None else halves.cutoff_one_seventh,
        refined=refined is not None,
        validated=heldout_chose(refined, config),
    )


def judge(
    scored: Scored,
    begun_with: NDArray[np.complex64] | None = None,
    backend: ReconstructionBackend | None = None,
    known: Circumstances | None = None,
) -> Verdict:
    """Give the verdict on an image, without trials.

    Args:
        scored: the image and its figures.
        begun_with: (P, N, N) probe that it was begun with; None takes that of its scan.
        backend: engine that made it, whose own forward model is asked where it has one; None asks the oracle.
        known: what else is known of it; None takes what its own stats say.

    Raises:
        BackendError: the forward model failed, or only that of an engine that is not given explains the image.
    """
    return Judgement(scored, scored.scan.probe if begun_with is None else begun_with, backend, known).verdict()
