"""The descent: batches of frames, steps over curvature, momentum, and an end that the held-out frames decide.

It decides the order of frames, how far steps go and when they end; a stepper makes them, on its device (BE-24 … BE-27).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError, Cancelled, DataError
from ..protocol import Constraints, Quantity, StepLengths, Stepper

__all__ = ["Descended", "Descent", "batch_size_for", "descend"]

MOMENTUM = 0.5
"""Nesterov momentum of the object within an epoch; with 0.5 the star needs two thirds of the epochs of none."""

PROBE_SHARE = 0.5
"""Part of its step that the probe takes: object and probe explain the same waves, and half each is enough."""

WATCHED_STEPS = 2
"""Steps that the position of a held-out frame takes after each epoch, so that it follows the object."""

FULL_STEPS = 0.6
"""Part of the epochs that go by in full steps, at most."""

LAST_STEP = 1 / 30
"""Steps shrink to this in the end, so that the noise of the last batches is averaged away."""


@dataclass(frozen=True, kw_only=True)
class Descent:
    """How to descend.

    Attributes:
        epochs: most passes over the frames.
        batch_size: frames in one step.
        wanted: what is refined, the object among it.
        position_limit_px: farthest that a position may be from where it was read.
        position_affine: whether a stretch, rotation and shear of all positions together is fitted too.
        constraints: what a refined probe is held to.
        patience: epochs without a better held-out loss after which steps begin to shrink, and so the end begins.
        seed: of the order of the frames.
        first_order: number of the order of the frames that the first epoch takes, so that what goes on takes others.
        least_squares: stretch each step of the object to where the curvature has its minimum along it.
        full_steps: part of the epochs that go by in full steps, at most; 1 never shrinks them, for a start that
            another descent goes on from.
    """

    epochs: int
    batch_size: int
    wanted: tuple[Quantity, ...] = ("object",)
    position_limit_px: float = 0.0
    position_affine: bool = False
    constraints: Constraints = field(default_factory=Constraints)
    patience: int | None = None
    seed: int = 0
    first_order: int = 0
    least_squares: bool = False
    full_steps: float = FULL_STEPS

    def lengths(self, length: float) -> StepLengths:
        """The lengths of a step of an epoch."""
        return StepLengths(
            object=length,
            probe=length * PROBE_SHARE,
            positions=length,
            momentum=MOMENTUM,
            least_squares=self.least_squares,
            position_limit_px=self.position_limit_px,
            position_affine=self.position_affine,
        )


@dataclass(frozen=True)
class Descended:
    """What a descent came to.

    Attributes:
        least: the lowest loss a frame of the held-out frames, that of the start where it was told among them; None
            without such frames.
        better: whether a state of this descent has it, which the stepper is in now. Without held-out frames it is True.
        epochs: that were made.
    """

    least: float | None
    better: bool
    epochs: int


def batch_size_for(n_frames: int) -> int:
    """Frames in a step that suit a scan: about twelve steps a pass, of 16 to 128 frames.

    More steps bring an image sooner, larger ones average more noise; below a dozen a pass nothing was gained.
    """
    return max(16, min(128, n_frames // 12))


class _Pace:
    """Length of the steps: full, until the held-out loss stalls or most epochs are gone; then ever shorter."""

    def __init__(self, plan: Descent) -> None:
        self.last_full = max(1, round(plan.full_steps * plan.epochs))
        self.shrink = LAST_STEP ** (1 / max(1, plan.epochs - self.last_full))
        self.patience = plan.patience
        self.best, self.stalled = math.inf, 0

    def length(self, epoch: int) -> float:
        """Length of the steps of an epoch, counted from 0."""
        return float(max(LAST_STEP, self.shrink ** max(0, epoch + 1 - self.last_full)))

    def note(self, epoch: int, loss: float) -> bool:
        """Take the held-out loss after an epoch; return whether it is the best so far."""
        if loss < self.best:
            self.best, self.stalled = loss, 0
            return True
        self.stalled += 1
        if self.patience is not None and self.stalled >= self.patience and epoch + 1 < self.last_full:
            self.last_full, self.stalled = epoch + 1, 0
        return False

    def spent(self, epoch: int) -> bool:
        """Whether going on is of no use after an epoch."""
        return self.patience is not None and self.shrink ** max(0, epoch + 1 - self.last_full) <= LAST_STEP * (1 + 1e-9)


def descend(
    stepper: Stepper,
    plan: Descent,
    *,
    frames: NDArray[np.int64],
    heldout: NDArray[np.int64],
    after_epoch: Callable[[int, float, float | None], None],
    first_epoch: int = 0,
    least: float | None = None,
    choose: bool = True,
    name: str = "scan",
) -> Descended:
    """Lower the loss of some frames (BE-16, BE-17).

    Args:
        stepper: where to start. Afterwards it is in the state that explained the held-out frames best, or in the last
            one without such frames, where nothing is chosen, or where no state was better than `least`.
        plan: how.
        frames: (n,) frames to descend on.
        heldout: (n,) frames that are only watched; their positions and intensities follow, if any are refined.
        after_epoch: called with the number of the epoch, from 0, and the losses a frame of `frames` (during the epoch)
            and of the held-out frames; it may raise to stop.
        first_epoch: where to go on, for a run that was interrupted.
        least: loss a frame of the held-out frames that a state must be below to be chosen; None takes any.
        choose: whether held-out frames choose the state; else they are only watched, and no state is put aside.
        name: of the scan, for errors.

    Raises:
        DataError: no frames to descend on.
        BackendError: it diverged.
    """
    if not len(frames):
        raise DataError(f"{name}: it has no training frames.")
    pace, best, epoch = _Pace(plan), None, first_epoch - 1
    pace.best = math.inf if least is None else least
    for epoch in range(first_epoch, plan.epochs):
        order = np.random.default_rng([plan.seed, plan.first_order + epoch]).permutation(frames)
        total = _sweep(stepper, order, plan, plan.lengths(pace.length(epoch)))
        if "probe" in plan.wanted:
            stepper.settle(plan.constraints)
        watched = _watch(stepper, heldout, plan)
        _check(epoch, {"training": total, "validation": watched})
        if watched is not None and pace.note(epoch, watched) and choose:
            best = stepper.snapshot()
        try:
            after_epoch(epoch, total / len(frames), watched)
        except Cancelled:
            if best is not None:  # whoever keeps what there is finds it in the state that it would have been given
                stepper.restore(best)
            raise
        if watched is not None and pace.spent(epoch):
            break
    if best is not None:
        stepper.restore(best)
    known = len(heldout) > 0 and math.isfinite(pace.best)
    return Descended(pace.best if known else None, best is not None or not len(heldout), epoch + 1 - first_epoch)


def _batches(frames: NDArray[np.int64], plan: Descent) -> list[NDArray[np.int64]]:
    return [np.sort(batch) for batch in np.array_split(frames, max(1, round(len(frames) / plan.batch_size)))]


def _sweep(stepper: Stepper, order: NDArray[np.int64], plan: Descent, lengths: StepLengths) -> float:
    """One pass over the frames in an order; the summed loss during it."""
    batches, losses = _batches(order, plan), []
    stepper.begin()
    stepper.prepare(batches[0])
    for number, batch in enumerate(batches):
        if number + 1 < len(batches):
            stepper.prepare(batches[number + 1])
        losses.append(stepper.step(batch, lengths, plan.wanted))
    return sum(float(loss) for loss in losses)  # read at the end: a device need not wait for it between steps


def _watch(stepper: Stepper, heldout: NDArray[np.int64], plan: Descent) -> float | None:
    """Loss a frame of the held-out frames, or None without any; what is a frame's own takes steps of its own."""
    if not len(heldout):
        return None
    batches = _batches(heldout, plan)
    own: tuple[Quantity, ...] = ("positions", "frame_scale")
    follows = tuple(name for name in own if name in plan.wanted)
    lengths = StepLengths(position_limit_px=plan.position_limit_px)
    for batch in batches if follows else []:
        for _ in range(WATCHED_STEPS):
            stepper.step(batch, lengths, follows)
    return sum(stepper.loss(batch) for batch in batches) / len(heldout)


def _check(epoch: int, losses: dict[str, float | None]) -> None:
    for which, loss in losses.items():
        if loss is not None and not math.isfinite(loss):
            raise BackendError(
                f"the solver diverged in epoch {epoch + 1}: the loss of the {which} frames is {loss}. Refine fewer "
                "things at once (probe, positions), or look for frames that are not of this scan."
            )
