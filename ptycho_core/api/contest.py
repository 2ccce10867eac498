"""Variants of one scan held to the same frames: which explains them best, and which are not told from it (FIND-3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..data.container import PtychoDataContainer
from ..data.raw import RawData
from ..data.results import Image
from ..data.trials import Trial
from ..physics.corrections import loss_noise
from ..physics.merit import SUMS, frame_sums
from ..protocol import ReconstructionBackend
from ..runtime import Runtime
from .score import oracle_counts
from .trials import TrialPlan, try_scan

__all__ = ["CHANCE", "LEAST_GAIN", "Contest", "hold_contest"]

LEAST_GAIN = 0.05
"""Part of the winner's misfit above its noise that must be gained on another variant to tell the two apart."""

CHANCE = 1e-3
"""Chance, by Student's t over the held-out frames, with which a gain may be one of noise or of the frames drawn."""

_MANY = 10**6


@dataclass(frozen=True)
class Contest:
    """What the variants came to.

    Attributes:
        n_frames: frames of the region.
        noise: standard deviation that the noise of the counts gives the mean misfit.
        trials: name → its trial.
        misfits: name → (n,) deviance of each held-out frame.
        floors: name → mean deviance a frame that noise alone has.
    """

    n_frames: int
    noise: float
    trials: dict[str, Trial] = field(default_factory=dict)
    misfits: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    floors: dict[str, float] = field(default_factory=dict)

    @property
    def n_heldout(self) -> int:
        """Frames that judged."""
        return len(next(iter(self.misfits.values())))

    @property
    def ranked(self) -> list[str]:
        """Names, the one with the least misfit first."""
        return sorted(self.trials, key=lambda name: self.trials[name].misfit)

    def gain(self, name: str) -> tuple[float, float]:
        """What the winner gains on another, deviance a held-out frame, and what it must gain to be told from it."""
        winner = self.ranked[0]
        rows = self.misfits[name] - self.misfits[winner]
        excess = max(float(self.misfits[winner].mean()) - self.floors[winner], 0.0)
        spread = float(rows.std(ddof=1)) / math.sqrt(len(rows)) if len(rows) > 1 else math.inf
        needed = (LEAST_GAIN * excess, _student(len(rows) - 1) * spread, _student(_MANY) * self.noise)
        return float(rows.mean()), max(needed)

    def told_from_winner(self, name: str) -> bool:
        """Whether the winner gains more on another than chance allows."""
        gained, needed = self.gain(name)
        return gained > needed

    @property
    def alike(self) -> tuple[str, ...]:
        """The winner, and those that are not told from it, the best first."""
        first, *others = self.ranked
        return (first, *(name for name in others if not self.told_from_winner(name)))


def _student(degrees: int) -> float:
    """Standard errors above zero that a mean has by chance so with :data:`CHANCE` only."""
    from scipy.special import stdtrit

    return float(stdtrit(max(degrees, 1), 1 - CHANCE))


def hold_contest(
    variants: Mapping[str, RawData],
    heldout: NDArray[np.int64],
    key: str,
    *,
    plan: TrialPlan,
    engine: ReconstructionBackend,
    runtime: Runtime,
    after_each: Callable[[], None] = lambda: None,
) -> Contest:
    """Solve each variant briefly, from the same start, and judge by the same frames.

    Args:
        variants: name → a scan with a probe; all have the same frames.
        heldout: (n,) frames that judge.
        key: what the name is called in ``Trial.tried``.
        plan: of every trial.
        engine: that makes the steps.
        runtime: what does the work.
        after_each: called after each trial; it may raise.

    Returns:
        The contest.

    Raises:
        BackendError: the engine broke.
    """
    first = next(iter(variants.values()))
    # the deviance is twice the Poisson loss
    noise = 2 * loss_noise(first.read_counts(heldout), "poisson", first.mask) / len(heldout)
    out = Contest(first.n_frames, noise)
    for name, raw in variants.items():
        trial, image = try_scan(raw, heldout, {key: name}, plan=plan, engine=engine, runtime=runtime)
        sums = _heldout_sums(raw, heldout, image)
        out.trials[name] = trial
        out.misfits[name] = sums[:, SUMS.index("deviance")]
        out.floors[name] = float(sums[:, SUMS.index("deviance_floor")].mean())
        after_each()
    return out


def _heldout_sums(raw: RawData, heldout: NDArray[np.int64], image: Image) -> NDArray[np.float64]:
    """The sums of each held-out frame, by ``physics.merit.frame_sums``."""
    scan = PtychoDataContainer.of(raw, heldout=heldout)
    return frame_sums(oracle_counts(image, scan, heldout), raw.read_counts(heldout), raw.mask)
