"""The descent: batches of frames, steps over curvature, momentum, and an end that the held-out frames decide."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError, DataError
from ..physics.patches import extract
from ..physics.probe import orthogonalise
from ..physics.steps import (
    DARK_COUNTS,
    illumination,
    least_squares_length,
    lit_level,
    object_step,
    patch_light,
    position_step,
    probe_step,
)
from .state import ScanState

__all__ = [
    "CHUNK_BYTES",
    "BatchGradient",
    "Descent",
    "ScanGradient",
    "batch_size_for",
    "descend",
]

Quantity = Literal["object", "probe", "positions"]

CHUNK_BYTES = 16 * 2**20
"""Waves that an engine should have on its device at once, for one of the several arrays that are alive together."""

MOMENTUM = 0.5
"""Nesterov momentum of the object within an epoch; with 0.5 the star needs two thirds of the epochs of none."""

PROBE_SHARE = 0.5
"""Part of its step that the probe takes: object and probe explain the same waves, and half each is enough."""

POSITION_STEP_PX = 0.25
"""The farthest that a position moves at once: far from the minimum the curvature says too little."""

WATCHED_STEPS = 2
"""Steps that the position of a held-out frame takes after each epoch, so that it follows the object."""

FULL_STEPS = 0.6
"""Part of the epochs that go by in full steps, at most."""

LAST_STEP = 1 / 30
"""Steps shrink to this in the end, so that the noise of the last batches is averaged away."""


@dataclass(frozen=True)
class BatchGradient:
    """An engine's answer for some frames.

    Attributes:
        loss: summed over the good pixels of the frames, without the dark counts of a step.
        object: (H, W) complex ∂L/∂O, or None when not asked for.
        probe: (P, N, N) complex ∂L/∂P, or None.
        positions: (J, 2) real ∂L/∂δ (y, x), or None.
    """

    loss: float
    object: NDArray[Any] | None = None
    probe: NDArray[Any] | None = None
    positions: NDArray[Any] | None = None


class ScanGradient(Protocol):
    """An engine's physics bound to a scan: its counts, mask and background, and the loss."""

    def __call__(
        self,
        frames: NDArray[np.int64],
        corners_px: NDArray[np.int64],
        subpixel_px: NDArray[np.float32],
        obj: NDArray[Any],
        probe: NDArray[Any],
        wanted: Collection[Quantity],
        dark_counts: float = 0.0,
    ) -> BatchGradient:
        """Loss of frames (J,) and the gradients wanted, at scale 1 and divisor 1.

        Args:
            frames: (J,) numbers of the frames in the scan.
            corners_px: (J, 2) integer corners (y, x) on the object.
            subpixel_px: (J, 2) sub-pixel rest (y, x).
            obj: (H, W) complex.
            probe: (P, N, N) complex.
            wanted: what to differentiate for; none gives the loss alone.
            dark_counts: expected counts added to every pixel for the gradients. The loss is told without them: it is
                what epochs are chosen by, and whoever judges the image afterwards knows nothing of them.
        """


@dataclass(frozen=True, kw_only=True)
class Descent:
    """How to descend.

    Attributes:
        loss: ``poisson`` or ``amplitude``, as the gradient was bound with.
        epochs: most passes over the frames.
        batch_size: frames in one step.
        probe: whether the probe is refined.
        positions: whether the positions are.
        position_limit_px: farthest that a position may be from where it was read.
        patience: epochs without a better held-out loss after which steps begin to shrink, and so the end begins.
        seed: of the order of the frames.
        least_squares: stretch each step of the object to where the curvature has its minimum along it.
    """

    loss: str
    epochs: int
    batch_size: int
    probe: bool = False
    positions: bool = False
    position_limit_px: float = 0.0
    patience: int | None = None
    seed: int = 0
    least_squares: bool = False

    def wanted(self) -> tuple[Quantity, ...]:
        """What to ask the engine for."""
        extra: tuple[tuple[bool, Quantity], ...] = ((self.probe, "probe"), (self.positions, "positions"))
        return ("object", *(name for on, name in extra if on))


def batch_size_for(n_frames: int) -> int:
    """Frames in a step that suit a scan: about twelve steps a pass, of 16 to 128 frames.

    More steps bring an image sooner, larger ones average more noise; below a dozen a pass nothing was gained.
    """
    return max(16, min(128, n_frames // 12))


class _Pace:
    """Length of the steps: full, until the held-out loss stalls or most epochs are gone; then ever shorter."""

    def __init__(self, plan: Descent) -> None:
        self.last_full = max(1, round(FULL_STEPS * plan.epochs))
        self.shrink = LAST_STEP ** (1 / max(1, plan.epochs - self.last_full))
        self.patience = plan.patience
        self.best, self.stalled = np.inf, 0

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


def _check(state: ScanState, epoch: int, watched: float | None) -> None:
    parts = {"object": state.object, "probe": state.probe, "loss of held-out frames": np.array(watched or 0.0)}
    for name, array in parts.items():
        if not np.isfinite(array).all():
            raise BackendError(
                f"sweeps diverged in epoch {epoch + 1}: the {name} holds NaN or infinite values. Refine fewer things "
                "at once (probe, positions), or look for frames that are not of this scan."
            )


def _move(state: ScanState, frames: NDArray[np.int64], step: NDArray[np.float64], plan: Descent) -> None:
    """Move positions by a step, no farther at once and from where they were read than allowed."""
    step = np.clip(step, -POSITION_STEP_PX, POSITION_STEP_PX)
    nominal = state.scan.raw.positions_px[frames]
    moved = state.positions_px[frames] + step
    state.positions_px[frames] = nominal + np.clip(moved - nominal, -plan.position_limit_px, plan.position_limit_px)


def _step(
    state: ScanState,
    frames: NDArray[np.int64],
    gradient: ScanGradient,
    plan: Descent,
    length: float,
    velocity: NDArray[Any],
) -> float:
    """One step with some frames; the state and the velocity (H, W) of the object are changed in place."""
    corners, rest = state.corners(frames)
    got = gradient(frames, corners, rest, state.object, state.probe, plan.wanted(), DARK_COUNTS)
    light = illumination(state.probe, corners, state.object.shape)
    step = object_step(got.object, light, plan.loss)  # type: ignore[arg-type]
    if plan.least_squares:
        step *= least_squares_length(step, got.object, light, plan.loss)  # type: ignore[arg-type]
    if got.positions is not None:
        moved = position_step(got.positions, state.probe, lit_level(state.object, light), plan.loss)
        # frames that all move alike, and the object with them, explain the data as well: that is left out
        _move(state, frames, length * (moved - moved.mean(axis=0)), plan)
    if got.probe is not None:
        patches = extract(state.object, corners, state.scan.raw.side)
        state.probe += (length * PROBE_SHARE) * probe_step(got.probe, patch_light(patches), plan.loss)
    velocity *= MOMENTUM
    velocity += length * step
    state.object += MOMENTUM * velocity + length * step
    return got.loss


def _settle(state: ScanState, plan: Descent, power: float) -> None:
    """Take out what the data leave open: which of object and probe has the level, and how modes are mixed."""
    if plan.probe:
        factor = np.sqrt(power / state.power())
        state.probe *= factor
        state.object /= factor
        if len(state.probe) > 1:
            state.probe[:] = orthogonalise(state.probe)


def descend(
    state: ScanState,
    gradient: ScanGradient,
    plan: Descent,
    *,
    frames: NDArray[np.int64],
    heldout: NDArray[np.int64],
    after_epoch: Callable[[int, ScanState, float, float | None], None],
    first_epoch: int = 0,
    power: float | None = None,
    initial: ScanState | None = None,
    choose: bool = True,
) -> ScanState:
    """Lower the loss of some frames (BE-16, BE-17).

    Args:
        state: where to start; it is changed.
        gradient: the engine's physics.
        plan: how.
        frames: (n,) frames to descend on.
        heldout: (n,) frames that are only watched; their positions follow the object, if positions are refined.
        after_epoch: called with the number of the epoch, from 0, the state, and the losses a frame of `frames`
            (during the epoch) and of the held-out frames; it may raise to stop.
        first_epoch: where to go on, for a run that was interrupted.
        power: Σ|P|² that a refined probe keeps; None takes that of `state`. A run that is gone on with gives that of
            its beginning.
        initial: a candidate beside the states of this descent; None for none.
        choose: whether held-out frames choose what is returned; else they are only watched, and no state is put aside.

    Returns:
        The state that explained the held-out frames best, `initial` among them, at the level that explains the counts
        (``ScanState.leveled``); the last one without such frames; `state` itself where nothing is chosen.

    Raises:
        DataError: no frames to descend on.
        BackendError: it diverged.
    """
    if not len(frames):
        raise DataError(f"{state.scan.raw.source.path or 'scan'}: none of its frames is to be learned from.")
    power = state.power() if power is None else power
    pace, best = _Pace(plan), state
    if initial is not None and len(heldout):
        best, pace.best = initial, _loss_a_frame(initial, heldout, gradient, plan)
    for epoch in range(first_epoch, plan.epochs):
        order = np.random.default_rng([plan.seed, epoch]).permutation(frames)
        velocity, total, length = np.zeros_like(state.object), 0.0, pace.length(epoch)
        for batch in _batches(order, plan):
            total += _step(state, np.sort(batch), gradient, plan, length, velocity)
        _settle(state, plan, power)
        watched = _watch(state, heldout, gradient, plan)
        _check(state, epoch, watched)
        if watched is not None and pace.note(epoch, watched) and choose:
            best = state.leveled()
        after_epoch(epoch, state, total / len(frames), watched)
        if watched is not None and pace.spent(epoch):
            break
    if not choose:
        return state
    return best if len(heldout) else state.leveled()


def _batches(frames: NDArray[np.int64], plan: Descent) -> list[NDArray[np.int64]]:
    return np.array_split(frames, max(1, round(len(frames) / plan.batch_size)))


def _loss_a_frame(state: ScanState, frames: NDArray[np.int64], gradient: ScanGradient, plan: Descent) -> float:
    """Loss of some frames of a state as it is, divided by their number."""
    total = 0.0
    for part in _batches(frames, plan):
        corners, rest = state.corners(part)
        total += gradient(part, corners, rest, state.object, state.probe, ()).loss
    return total / len(frames)


def _watch(state: ScanState, heldout: NDArray[np.int64], gradient: ScanGradient, plan: Descent) -> float | None:
    """Loss a frame of the held-out frames, or None without any; their positions take steps of their own."""
    if not len(heldout):
        return None
    for frames in _batches(heldout, plan) if plan.positions else []:
        for _ in range(WATCHED_STEPS):
            corners, rest = state.corners(frames)
            wanted: tuple[Quantity, ...] = ("positions",)
            got = gradient(frames, corners, rest, state.object, state.probe, wanted, DARK_COUNTS)
            level = lit_level(state.object, illumination(state.probe, corners, state.object.shape))
            _move(state, frames, position_step(got.positions, state.probe, level, plan.loss), plan)  # type: ignore[arg-type]
    # held-out frames may reach beyond what the others light; there the image that is judged afterwards is 0
    return _loss_a_frame(state.judged(), heldout, gradient, plan)
