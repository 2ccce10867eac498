"""Refining an image with an engine's steps, as ``config.refinement`` says (BE-16, BE-17).

What a config leaves open is tried (BE-27): after a few epochs that settle object and probe, one more probe mode and the
positions each take some epochs from one state, on the same batches, beside a descent that goes on as it was. The one
that explains the held-out frames best is gone on with, where it gains more than noise can, and there is another round.
Modes are never added before the first has settled: from a poor probe they would settle in the corners of the window.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ..config import TrainingConfig
from ..data.container import PtychoDataContainer
from ..data.results import Image
from ..errors import Cancelled
from ..physics.corrections import loss_noise, saturated_loss
from ..protocol import Constraints, Progress, ProgressEvent, Quantity, ReconstructionBackend, Stepper, SupportsStepping
from ..runtime import Runtime
from .descent import FULL_STEPS, Descent, batch_size_for, descend
from .loss_choice import refinement_loss
from .state import room_to_move, with_modes, with_room

__all__ = ["refine_by_steps"]

SETTLE_EPOCHS = 5
"""Epochs that settle object and probe before anything is added, at most; an eighth of all where that is less."""

TRIAL_EPOCHS = 3
"""Epochs of a trial: a mode that the scan has in it gains tenths in them, one that it has not next to nothing."""

TRIAL_SHARE = 0.6
"""Part of the epochs that may go into settling and trials."""

MOST_MODES = 4
"""Modes that are taken up unasked, at most."""

NOISE_MARGIN = 3.0
"""Standard deviations of the noise in the held-out loss that a trial must gain to be taken up."""

PROMISING = 1 / 3
"""Part of what it must gain that a trial has gained after its first epoch, or it is given up."""

LEAST_GAIN = 0.01
"""Part of the held-out misfit that it must gain besides: epochs of full steps differ by as much from batch to batch."""

AFFINE_ROOM = 0.05
"""Stretch of a scan that its canvas has room for."""

_BLOCK = 256


@dataclass(frozen=True)
class _State:
    """Where refining stands.

    Attributes:
        image: laid out with room for positions to move.
        positions: whether they are refined.
        loss: loss a frame of the held-out frames; None where it is not known, or nothing is held out.
        losses: the same after each epoch of full steps that led here.
    """

    image: Image
    positions: bool
    loss: float | None
    losses: tuple[float, ...] = ()


class _GivenUp(Exception):  # noqa: N818  # no error: it ends a trial that is behind
    """A trial explains the held-out frames too little better than what it is tried beside to be taken up."""


def refine_by_steps(
    engine: ReconstructionBackend,
    image: Image,
    scan: PtychoDataContainer,
    config: TrainingConfig,
    runtime: Runtime,
    progress: Progress,
) -> Image:
    """Go on from an image as ``config.refinement`` says.

    Args:
        engine: that makes the steps; see ``protocol.SupportsStepping``.
        image: object, probe, scale, positions and intensities to start from; left as it is.
        scan: its scan, with the frames to refine on and those that are held out.
        config: ``refinement``, ``algorithm`` and ``seed``. Modes and positions that it leaves open are taken up where
            the held-out frames support them, as ``stats`` of what is returned say; without such frames nothing is.
        runtime: what does the work.
        progress: called after each epoch, those of trials among them; it may raise ``Cancelled``.

    Returns:
        The state that explained the held-out frames best, that of `image` among them, which then comes back itself;
        the last one without such frames.

    Raises:
        DataError: the image is of another scan.
        ConfigError: more modes than can be added.
        BackendError: refining diverged.
    """
    work, plan = _Work(engine, scan, config, runtime, progress), config.refinement
    state = work.start(image)
    first, given, n_modes = state.loss, plan.probe_modes, len(image.probe)
    if given is not None and given < n_modes:
        state = work.with_modes(state, given)
    more = given is not None and given > n_modes
    settle = min(SETTLE_EPOCHS, plan.epochs // 8)
    if more or work.candidates(state):
        state = work.explore(state, settle)
        work.order += settle
    if given is not None and more:
        state = work.with_modes(state, given)
    while candidates := work.candidates(state):
        state, took_up = work.round(state, candidates)
        if not took_up:
            break
    state = work.descend(state, plan.epochs - work.done)
    if first is not None and not (state.loss is not None and state.loss < first):
        return image
    return replace(state.image, stats={**state.image.stats, **work.stats})


class _Work:
    """One refinement: descents one after another, which count their epochs together, and what trials found."""

    def __init__(
        self,
        engine: ReconstructionBackend,
        scan: PtychoDataContainer,
        config: TrainingConfig,
        runtime: Runtime,
        progress: Progress,
    ) -> None:
        self.engine, self.scan, self.config, self.runtime, self.progress = engine, scan, config, runtime, progress
        self.loss = refinement_loss(config, engine.capabilities.losses)
        self.done, self.order = 0, 0
        self._ready: tuple[Image, Stepper] | None = None
        self.stats: dict[str, float | int | str] = {}

    def stepper(self, image: Image) -> Stepper:
        """The engine's stepper from an image."""
        assert isinstance(self.engine, SupportsStepping)
        return self.engine.stepper(image, self.scan, self.loss, self.runtime)

    def start(self, image: Image) -> _State:
        """The image laid out, and how well it explains the held-out frames."""
        plan, held, margin = self.config.refinement, self.scan.heldout_frames, 0
        if plan.positions is not False:
            margin = room_to_move(image, self.scan, plan.position_limit_px)
        if plan.position_affine:
            extent = np.ptp(self.scan.raw.positions_px[self.scan.used_frames], axis=0).max()
            margin += math.ceil(AFFINE_ROOM * extent / 2)
        wide = with_room(image, margin)
        stepper = self.stepper(wide)
        self._ready = (wide, stepper)  # the first descent mostly starts from there
        return _State(wide, bool(plan.positions), stepper.loss(held) / len(held) if len(held) else None)

    def with_modes(self, state: _State, n_modes: int) -> _State:
        """The state with as many modes, which explains less until they have settled."""
        return _State(with_modes(state.image, n_modes), state.positions, None)

    def descend(self, state: _State, epochs: int) -> _State:
        """The best state of a descent to its end, or the state itself where none is better."""
        if epochs < 1:
            return state
        stepper = self._stepper_in(state)
        try:
            found = descend(
                stepper,
                self._plan(state, epochs, FULL_STEPS),
                frames=self.scan.train_frames,
                heldout=self.scan.heldout_frames,
                after_epoch=partial(self._report, stepper),
                least=state.loss,
                name=self.scan.raw.source.path or "scan",
            )
        except Cancelled as error:
            image = stepper.image()
            error.image = replace(image, stats={**image.stats, **self.stats})
            raise
        return replace(state, image=stepper.image(), loss=found.least) if found.better else state

    def explore(self, state: _State, epochs: int, beside: Sequence[float] = ()) -> _State:
        """The last state of some epochs of full steps, which something is to go on from.

        Nothing is chosen: after full steps every state has the noise of its last batches, and one that was settled by
        short steps before would always seem the better.

        Args:
            state: where to start.
            epochs: how many.
            beside: held-out losses, epoch by epoch, that this descent must be below, or it is given up.
        """
        if epochs < 1:
            return state
        stepper, losses = self._stepper_in(state), list[float]()

        def report(epoch: int, loss: float, heldout_loss: float | None) -> None:
            if heldout_loss is not None:
                losses.append(heldout_loss)
            self._report(stepper, epoch, loss, heldout_loss)
            if heldout_loss is not None and epoch < len(beside) - 1 and heldout_loss >= beside[epoch]:
                raise _GivenUp

        with contextlib.suppress(_GivenUp):
            descend(
                stepper,
                replace(self._plan(state, epochs, 1.0), patience=None),
                frames=self.scan.train_frames,
                heldout=self.scan.heldout_frames,
                after_epoch=report,
                choose=False,
                name=self.scan.raw.source.path or "scan",
            )
        return replace(state, image=stepper.image(), loss=losses[-1] if losses else None, losses=tuple(losses))

    def _stepper_in(self, state: _State) -> Stepper:
        """A stepper in a state: the one that is there, or a new one."""
        ready, self._ready = self._ready, None
        return ready[1] if ready is not None and ready[0] is state.image else self.stepper(state.image)

    def _report(self, stepper: Stepper, epoch: int, loss: float, heldout_loss: float | None) -> None:
        """Count an epoch, and tell of it."""
        mean_counts, total = self.scan.statistics.mean_counts, self.config.refinement.epochs
        self.done += 1
        metrics = {"epoch": float(self.done), "train_loss": loss / mean_counts}
        if heldout_loss is not None:
            metrics["test_loss"] = heldout_loss / mean_counts
        event = ProgressEvent(stage="refine", done=self.done, total=total, metrics=metrics, image=stepper.image)
        self.progress(event)

    def _plan(self, state: _State, epochs: int, full_steps: float) -> Descent:
        plan, image, n_frames = self.config.refinement, state.image, len(self.scan.train_frames)
        switches: tuple[tuple[bool, Quantity], ...] = (
            (plan.probe, "probe"),
            (state.positions, "positions"),
            (plan.frame_scale, "frame_scale"),
        )
        power = image.scale * float(np.sum(np.abs(image.probe.astype(np.complex128)) ** 2))
        support = None if plan.probe_support is None else plan.probe_support * self.scan.raw.side / 2
        return Descent(
            epochs=epochs,
            batch_size=plan.batch_size or batch_size_for(n_frames),
            wanted=("object", *(name for on, name in switches if on)),
            position_limit_px=plan.position_limit_px,
            position_affine=plan.position_affine,
            constraints=Constraints(power=power if plan.probe_power == "kept" else None, support=support),
            patience=plan.patience,
            seed=self.config.seed,
            first_order=self.order,
            least_squares=self.config.algorithm == "lsq",
            full_steps=full_steps,
        )

    def candidates(self, state: _State) -> dict[str, _State]:
        """What is left open and may still be tried: name → the state with it."""
        plan, able, image = self.config.refinement, self.engine.capabilities, state.image
        n_modes, most = len(image.probe), min(MOST_MODES, able.max_modes or MOST_MODES)
        found = {}
        if plan.probe and plan.probe_modes is None and n_modes < most:
            found[f"mode_{n_modes + 1}"] = self.with_modes(state, n_modes + 1)
        if plan.positions is None and not state.positions and able.refine_positions:
            found["positions"] = _State(image, True, None)
        settle = 0 if self.done else min(SETTLE_EPOCHS, plan.epochs // 8)
        needed = self.done + settle + TRIAL_EPOCHS * (1 + len(found))
        return found if len(self.scan.heldout_frames) and needed <= TRIAL_SHARE * plan.epochs else {}

    def round(self, state: _State, candidates: dict[str, _State]) -> tuple[_State, bool]:
        """Try each from the same state on the same batches; the best, and whether any was taken up."""
        base = self.explore(state, TRIAL_EPOCHS)
        assert base.loss is not None
        misfit, noise = self._misfit(base.loss)
        needed = max(NOISE_MARGIN * noise, LEAST_GAIN * misfit)
        best, most, winner = base, needed, ""
        least = PROMISING * needed / len(self.scan.heldout_frames)
        for name, candidate in candidates.items():
            tried = self.explore(candidate, TRIAL_EPOCHS, [loss - least for loss in base.losses])
            assert tried.loss is not None
            # one that was given up is compared where it was
            gain = (base.losses[len(tried.losses) - 1] - tried.loss) * len(self.scan.heldout_frames)
            self.stats[f"tried_{name}_gain"] = gain / misfit
            self.stats[f"tried_{name}_gain_needed"] = needed / misfit
            if gain > most:
                best, most, winner = tried, gain, name
        self.order += TRIAL_EPOCHS
        if winner == "positions":
            self.stats["took_up_positions"] = 1
        elif winner:
            self.stats["took_up_modes"] = int(self.stats.get("took_up_modes", 0)) + 1
        return best, bool(winner)

    def _misfit(self, loss: float) -> tuple[float, float]:
        """The held-out loss above that of a perfect fit, and the standard deviation that noise gives it."""
        raw, held, perfect, variance = self.scan.raw, self.scan.heldout_frames, 0.0, 0.0
        for start in range(0, len(held), _BLOCK):
            counts = raw.read_counts(held[start : start + _BLOCK])
            perfect += saturated_loss(counts, self.loss, raw.mask)
            variance += loss_noise(counts, self.loss, raw.mask) ** 2
        return loss * len(held) - perfect, math.sqrt(variance)
