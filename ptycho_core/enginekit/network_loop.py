"""The training of a network: steps, epochs, checkpoints, stopping, and going on from one, the same in every engine.

An engine brings a :class:`Learner`, which has the parameters, the optimiser and the devices. Which batches there are,
how long a step is, which epoch was the best, when to stop and what a checkpoint holds are decided here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..config import TrainingConfig
from ..data.results import Image
from ..errors import ArchiveError, Cancelled
from ..io.atomic import ensure_output_folder
from ..protocol import Progress, ProgressEvent
from ..runtime import Runtime
from ..text import one_line
from .checkpoint import CHECKPOINT_SECONDS, read_checkpoint, write_checkpoint
from .network_result import Learnt, NetworkResult
from .network_training import HISTORY_FILE, check_loss, check_resumable, check_variation, write_history
from .schedules import learning_rate_factor
from .tracking import Trackers, check_trackers

__all__ = ["Learner", "Step", "Training"]

_STEPS_BETWEEN_LOOKS = 10
"""Batches from one look at how much the object varies to the next."""

_FOLDER, _LAST, _BEST, _INTERRUPTED = "checkpoints", "last.ckpt", "best.ckpt", "interrupted.ckpt"
_PARAMETER, _BEST_VALUE = "parameter.", "best."

Arrays = Mapping[str, NDArray[Any]]


class Step(NamedTuple):
    """What an optimiser step says.

    Attributes:
        loss: of all its groups.
        n_groups: of this process.
        variation: of the predicted object, or None where nobody looked.
    """

    loss: float
    n_groups: int
    variation: float | None


class Learner(Protocol):
    """Parameters, optimiser and batches of a training, on an engine's devices; every array here is NumPy.

    Attributes:
        steps_an_epoch: optimiser steps in an epoch.
        n_heldout: held-out frames of all scans.
        leads: whether this process is the one, of several that train together, which writes and tells.
    """

    steps_an_epoch: int
    n_heldout: int
    leads: bool

    def batches(self, epoch: int, first_batch: int) -> Iterable[Any]:
        """Batches of an epoch in the order of ``GroupDraw.batches``, in the engine's own form."""

    def step(self, batch: Any, factor: float, look: bool) -> Step:
        """One step of the optimiser with learning rates times `factor`; `look` at how much the object varies."""

    def heldout_loss(self) -> float:
        """Mean loss of the held-out frames of all scans, by the weights that count in the end."""

    def values(self) -> dict[str, NDArray[np.float32]]:
        """Name → parameter, as it counts in the end: the moving average where there is one."""

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What a training goes on from: ``parameter.NAME``, and whatever else in names of the engine's own."""

    def take(self, arrays: Arrays, steps: int) -> None:
        """Go on from arrays of :meth:`arrays`, after some steps.

        Raises:
            KeyError, TypeError, ValueError: they are not these.
        """

    def agree(self, wish: bool) -> bool:
        """Whether any of the processes that train together wishes so; the wish itself where there is one only."""


@dataclass
class State:
    """Where a training stands: plain values, which a checkpoint keeps.

    Attributes:
        steps: optimiser steps done.
        epoch: epochs done.
        batch: batches done of the epoch under way.
        loss_sum: sum of their losses, each times its groups.
        n_groups: their groups.
        variation: how much the object varied at the last look.
        best: least watched loss of an epoch.
        epochs_since_best: epochs without a better one.
        history: name → one float an epoch.
    """

    steps: int = 0
    epoch: int = 0
    batch: int = 0
    loss_sum: float = 0.0
    n_groups: int = 0
    variation: float = math.inf
    best: float = math.inf
    epochs_since_best: int = 0
    history: dict[str, list[float]] = field(default_factory=dict)


class Training:
    """A network being trained.

    Args:
        learner: the engine's.
        config: of the training.
        runtime: ``output_dir``, ``resume_from`` and trackers are read.
        backend: name of the engine.
        facts: what decides this training; see ``network_training.run_facts``.
        progress: called after each step, in the process that leads.
        result: makes the model that a training leaves when it is stopped, and the image of it on the way; None makes
            neither, where they are wanted in another process.

    Raises:
        ConfigError: a tracker that cannot be used.
    """

    def __init__(
        self,
        learner: Learner,
        config: TrainingConfig,
        runtime: Runtime,
        backend: str,
        facts: Mapping[str, Any],
        progress: Progress,
        result: NetworkResult | None = None,
    ) -> None:
        check_trackers(runtime)
        assert config.epochs is not None  # a config of a network says it
        self.learner, self.config, self.runtime = learner, config, runtime
        self.backend, self.facts, self.progress, self.result = backend, facts, progress, result
        self.epochs = config.epochs
        self.total_steps = config.epochs * learner.steps_an_epoch
        self.state = State()
        self.best: dict[str, NDArray[np.float32]] | None = None
        self._folder = None if runtime.output_dir is None else runtime.output_dir / _FOLDER
        self._watched = "test_loss" if learner.n_heldout else "train_loss"
        self._checkpoint: Path | None = None
        self._saved_at = time.monotonic()

    def run(self) -> Learnt:
        """Train to the end, or until early stopping, which ends with the best epoch.

        Raises:
            CollapseError, BackendError: see ``network_training``.
            Cancelled: `progress` raised it.
            ArchiveError: a checkpoint to go on from that is damaged or of another training.
            OutputError: an output folder that cannot be written.
        """
        if self.runtime.output_dir is not None:
            ensure_output_folder(self.runtime.output_dir)
        if self.runtime.resume_from is not None:
            self._resume(self.runtime.resume_from)
        if self._is_over():  # when its process was killed; its files may be wanted in another folder
            self._save(_LAST)
            self._write_history()
        else:
            with Trackers(self.runtime, wanted=self.learner.leads) as trackers:
                while not self._is_over():
                    cancelled = self._run_epoch()
                    figures = {name: values[-1] for name, values in self.state.history.items()}
                    trackers.log({**figures, "epoch": self.state.epoch - 1}, self.state.steps - 1)
                    if cancelled is not None and not self._is_over():
                        self._stop(cancelled)
        stopping = self.config.early_stopping_patience is not None and self.best is not None
        values = self.best if stopping and self.best is not None else self.learner.values()
        return Learnt(values, self.state.history, self._checkpoint)

    def so_far(self) -> Learnt | None:
        """The best epoch so far, by the loss that is watched; None before one is finished."""
        if self.best is None:
            return None
        history = {name: list(values) for name, values in self.state.history.items()}
        return Learnt(self.best, history, self._checkpoint)

    def _is_over(self) -> bool:
        """Whether all epochs are done, or stopping early is due.

        That is when nothing was better for long enough, or the watched loss is no number.
        """
        state, patience = self.state, self.config.early_stopping_patience
        if state.epoch >= self.epochs:
            return True
        if patience is None or state.epoch == 0 or state.batch > 0:
            return False
        return state.epochs_since_best >= patience or not math.isfinite(state.history[self._watched][-1])

    def _run_epoch(self) -> Cancelled | None:
        """The rest of an epoch and its end; a wish to stop during its last step is returned.

        Raises:
            Cancelled: the wish to stop came earlier; a checkpoint was left.
        """
        state, learner = self.state, self.learner
        for batch in learner.batches(state.epoch, state.batch):
            metrics = {"loss": self._step(batch), "epoch": float(state.epoch)}
            if state.batch == learner.steps_an_epoch:
                self._end_epoch()
                return self._told(self._event(metrics, epoch=state.epoch))
            cancelled = self._told(self._event(metrics))
            if cancelled is not None:
                self._stop(cancelled)
            late = time.monotonic() - self._saved_at > CHECKPOINT_SECONDS
            if self._folder is not None and learner.agree(late):
                self._save(_LAST)
        self._end_epoch()  # of a learner that gives fewer batches than it says
        return None

    def _event(self, metrics: Mapping[str, float], epoch: int | None = None) -> ProgressEvent:
        """What is told of a step; of one that ended an epoch, with the way to see the network so far.

        Where patience is at its end there are no more steps than these: whoever waits for the last one sees it.
        """
        image, over = (None, False) if epoch is None else (self._image(), self._is_over())
        done, total = self.state.steps, self.state.steps if over else self.total_steps
        return ProgressEvent(stage="train", done=done, total=total, metrics=metrics, epoch=epoch, image=image)

    def _image(self) -> Callable[[], Image] | None:
        """Gives the image of the best epoch so far, where there is one and somebody makes images."""
        result, learnt = self.result, self.so_far()
        return None if result is None or learnt is None else lambda: result.image(learnt)

    def _told(self, event: ProgressEvent) -> Cancelled | None:
        """Tell of a step; the wish to stop that comes back, of any process."""
        cancelled = None
        if self.learner.leads:
            try:
                self.progress(event)
            except Cancelled as error:
                cancelled = error
        return (cancelled or Cancelled()) if self.learner.agree(cancelled is not None) else None

    def _step(self, batch: Any) -> float:
        """One step of the optimiser; return its loss."""
        state = self.state
        factor = learning_rate_factor(self.config.schedule, state.steps, self.total_steps)
        done = self.learner.step(batch, factor, state.batch % _STEPS_BETWEEN_LOOKS == 0)
        state.steps += 1
        state.batch += 1
        check_loss(done.loss, state.steps, self.config)
        state.loss_sum += done.loss * done.n_groups
        state.n_groups += done.n_groups
        if done.variation is not None:
            state.variation = done.variation
        return done.loss

    def _end_epoch(self) -> None:
        """Record the epoch, look for a collapsed object, and keep the best weights and checkpoints."""
        config, state = self.config, self.state
        figures = {"train_loss": state.loss_sum / max(state.n_groups, 1)}
        if self.learner.n_heldout:
            figures["test_loss"] = self.learner.heldout_loss()
        factor = learning_rate_factor(config.schedule, state.steps, self.total_steps)
        figures["learning_rate"] = config.learning_rate * factor
        for name, value in figures.items():
            state.history.setdefault(name, []).append(value)
        self._write_history()
        check_variation(state.variation, state.steps, self.total_steps, config)
        better = figures[self._watched] < state.best
        if better:
            state.best, self.best = figures[self._watched], self.learner.values()
        state.epochs_since_best = 0 if better else state.epochs_since_best + 1
        state.epoch, state.batch, state.loss_sum, state.n_groups = state.epoch + 1, 0, 0.0, 0
        if better:
            self._save(_BEST)
        self._save(_LAST)

    def _write_history(self) -> None:
        if self.runtime.output_dir is not None and self.learner.leads:
            write_history(self.runtime.output_dir / HISTORY_FILE, self.state.history)

    def _stop(self, cancelled: Cancelled) -> None:
        """Leave a checkpoint where one is wanted, and stop with the model of the best epoch so far."""
        self._save(_INTERRUPTED)
        path, learnt = None if self._checkpoint is None else str(self._checkpoint), self.so_far()
        model = None if self.result is None or learnt is None else self.result.model(learnt)
        raise Cancelled(str(cancelled), path, model=model) from cancelled

    def _save(self, name: str) -> None:
        """Write a checkpoint where a folder is wanted; every one holds the weights of the best epoch too."""
        if self._folder is None:
            return
        arrays = self.learner.arrays()
        arrays |= {_BEST_VALUE + key: value for key, value in (self.best or {}).items()}
        if self.learner.leads:
            write_checkpoint(
                self._folder / name, self.backend, arrays, {"run": self.facts, "state": asdict(self.state)}
            )
        self._saved_at, self._checkpoint = time.monotonic(), self._folder / name

    def _resume(self, path: Path) -> None:
        """Go on where a checkpoint of the same training stopped."""
        arrays, facts = read_checkpoint(path, self.backend)
        found = {name: value.shape for name, value in _named(arrays, _PARAMETER).items()}
        wanted = {name: value.shape for name, value in _named(self.learner.arrays(), _PARAMETER).items()}
        try:
            state = _state_of(facts["state"], self._watched)
            check_resumable(path, (found, wanted), (facts["run"], self.facts), state.steps, self.total_steps)
            best = _named(arrays, _BEST_VALUE)
            if best and {name: value.shape for name, value in best.items()} != wanted:
                raise ValueError("the values of its best epoch are of another network")
            self.learner.take(arrays, state.steps)
        except ArchiveError:
            raise
        except Exception as error:  # an engine's library says in its own way what is wrong with what it is given
            said = one_line(f"{type(error).__name__}: {error}", 200)
            raise ArchiveError(
                f"{path}: a checkpoint of engine {self.backend!r} that lacks something, or has more than this version "
                f"knows ({said}); resume with the version of ptycho-core that wrote it."
            ) from error
        self.state, self.best = state, best or None
        if self._folder is not None and self._folder != path.parent and self.learner.leads:
            self._bring_best(path.with_name(_BEST), self._folder)

    def _bring_best(self, path: Path, folder: Path) -> None:
        """Take the checkpoint of the best epoch along to another folder; that of another training is none of ours."""
        try:
            arrays, facts = read_checkpoint(path, self.backend)
        except ArchiveError:
            return
        if facts.get("run") == self.facts:
            write_checkpoint(folder / _BEST, self.backend, arrays, facts)


def _state_of(plain: Any, watched: str) -> State:
    """The state that plain values say, of a checkpoint that may be anybody's.

    Raises:
        TypeError, ValueError: they say none.
    """
    state = State(**plain)
    for name in ("steps", "epoch", "batch", "n_groups", "epochs_since_best"):
        value = getattr(state, name)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
            raise ValueError(f"{name} is no number of steps")
    for name in ("loss_sum", "variation", "best"):
        if not isinstance(getattr(state, name), float):
            raise ValueError(f"{name} is no number")
    if not isinstance(state.history, dict):
        raise ValueError("its history is none")
    for values in state.history.values():
        if not isinstance(values, list) or not all(isinstance(value, float) for value in values):
            raise ValueError("its history holds what is no number")
    if len(state.history.get(watched, [])) != state.epoch or any(len(v) != state.epoch for v in state.history.values()):
        raise ValueError(f"its history is not one of {state.epoch} epochs")
    return state


def _named(arrays: Arrays, prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
