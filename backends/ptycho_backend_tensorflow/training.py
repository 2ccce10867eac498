"""The training loop: steps, epochs, checkpoints, and going on from one."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ptycho_core.enginekit.checkpoint import CHECKPOINT_SECONDS, read_checkpoint, write_checkpoint
from ptycho_core.enginekit.network_training import (
    HISTORY_FILE,
    check_loss,
    check_resumable,
    check_variation,
    write_history,
)
from ptycho_core.enginekit.schedules import learning_rate_factor
from ptycho_core.errors import ArchiveError, Cancelled
from ptycho_core.io.atomic import ensure_output_folder
from ptycho_core.protocol import Progress, ProgressEvent

from .data import GroupData
from .network import PtychoNetwork
from .optimizer import AdamW
from .tracking import Trackers

__all__ = ["BACKEND", "Training"]

BACKEND = "tensorflow"

_STEPS_BETWEEN_LOOKS = 10
"""Batches from one look at how much the object varies to the next."""

_LAST, _BEST = "last.ckpt", "best.ckpt"


@dataclass
class State:
    """Where a training stands: plain values, which a checkpoint keeps.

    Attributes:
        epoch: epochs done.
        batch: batches done of the epoch under way.
        loss_sum: sum of their losses, each times its groups.
        n_groups: their groups.
        variation: how much the object varied at the last look.
        best: least watched loss of an epoch.
        epochs_since_best: epochs without a better one.
        history: name → one float an epoch.
    """

    epoch: int = 0
    batch: int = 0
    loss_sum: float = 0.0
    n_groups: int = 0
    variation: float = math.inf
    best: float = math.inf
    epochs_since_best: int = 0
    history: dict[str, list[float]] = field(default_factory=dict)


class Training:
    """A network being trained on groups.

    Args:
        network: its parameters are trained in place.
        data: groups to learn from, and those that are held out.
        facts: what decides this training; see ``enginekit.network_training.run_facts``.
        devices: names of the devices to work on.
        progress: called after each step.
    """

    def __init__(
        self,
        network: PtychoNetwork,
        data: GroupData,
        facts: Mapping[str, Any],
        devices: tuple[str, ...],
        progress: Progress,
    ) -> None:
        self.network, self.data, self.facts, self.config = network, data, facts, data.config
        self.runtime = data.runtime
        self.devices, self.progress = devices, progress
        self.optimizer = AdamW(network.parameters, network.groups())
        self.steps_an_epoch = data.draw.steps_an_epoch(len(devices))
        self.total_steps = self.config.epochs * self.steps_an_epoch
        self.average: dict[str, NDArray[np.float32]] | None = None
        self.state = State()
        self._folder = None if self.runtime.output_dir is None else self.runtime.output_dir / "checkpoints"
        self._watched = "test_loss" if data.n_heldout else "train_loss"
        self._saved_at = time.monotonic()

    @property
    def checkpoint_path(self) -> Path | None:
        """Checkpoint of the last epoch, or None when nothing is written."""
        return None if self._folder is None else self._folder / _LAST

    def final_values(self) -> dict[str, NDArray[np.float32]]:
        """Name → value of every parameter: the moving average where there is one, else as they are."""
        if self.average is not None:
            return dict(self.average)
        return {name: variable.numpy() for name, variable in self.network.parameters.items()}

    def run(self) -> None:
        """Train to the end, or until early stopping.

        Raises:
            CollapseError, BackendError: see ``enginekit.network_training``.
            Cancelled: `progress` raised it.
            ArchiveError: a checkpoint to go on from that is damaged or of another training.
            ConfigError: a tracker that cannot be used.
            OutputError: an output folder that cannot be written.
        """
        config = self.config
        if self.runtime.output_dir is not None:
            ensure_output_folder(self.runtime.output_dir)
        if self.runtime.resume_from is not None:
            self._resume(self.runtime.resume_from)
        if self._is_over():
            self._end_anew()
        else:
            with Trackers(self.runtime) as trackers:
                while not self._is_over():
                    cancelled = self._run_epoch()
                    figures = {name: values[-1] for name, values in self.state.history.items()}
                    trackers.log({**figures, "epoch": self.state.epoch - 1}, self.optimizer.steps - 1)
                    if cancelled is not None and not self._is_over():
                        self._stop(cancelled)
        if config.early_stopping_patience is not None:
            self._return_to_best()

    def _is_over(self) -> bool:
        """Whether all epochs are done, or stopping early is due.

        That is when nothing was better for long enough, or the watched loss is no number.
        """
        state, patience = self.state, self.config.early_stopping_patience
        if state.epoch >= self.config.epochs:
            return True
        if patience is None or state.epoch == 0 or state.batch > 0:
            return False
        return state.epochs_since_best >= patience or not math.isfinite(state.history[self._watched][-1])

    def _end_anew(self) -> None:
        """Leave the files of a training that was over when its process was killed, in a folder that may be another."""
        if self._folder is not None and self.runtime.output_dir is not None:
            self._save(self._folder / _LAST)
            write_history(self.runtime.output_dir / HISTORY_FILE, self.state.history)

    def _run_epoch(self) -> Cancelled | None:
        """The rest of an epoch and its end; a wish to stop during its last step is returned.

        Raises:
            Cancelled: the wish to stop came earlier; a checkpoint was left.
        """
        state, shape = self.state, self.data.canvas_shape(self.state.epoch)
        batches = self.data.epoch(state.epoch, n_devices=len(self.devices), first_batch=state.batch)
        cancelled = None
        for batch in _read(self.data, batches):
            metrics = {"loss": self._step(batch, shape), "epoch": float(state.epoch)}
            try:
                self.progress(
                    ProgressEvent(stage="train", done=self.optimizer.steps, total=self.total_steps, metrics=metrics)
                )
            except Cancelled as error:
                cancelled = error
            if state.batch == self.steps_an_epoch:
                break
            if cancelled is not None:
                self._stop(cancelled)
            if self._folder is not None and time.monotonic() - self._saved_at > CHECKPOINT_SECONDS:
                self._save(self._folder / _LAST)
        self._end_epoch()
        return cancelled

    def _step(self, batch: Mapping[str, tf.Tensor], shape: tuple[int, int]) -> float:
        """One step of the optimiser, on all devices; return its loss."""
        n_groups = int(batch["counts"].shape[0])
        divisor = self._divisor(batch)
        factor = learning_rate_factor(self.config.schedule, self.optimizer.steps, self.total_steps)
        values = {name: variable.value() for name, variable in self.network.parameters.items()}
        share = n_groups // len(self.devices)
        answers = []
        for number, device in enumerate(self.devices):
            with tf.device(device):
                part = _part(batch, number * share, (number + 1) * share)
                answers.append(self.network.gradients(values, part, shape, divisor))
        with tf.device(self.devices[0]):
            loss = tf.add_n([answer[0] for answer in answers])
            gradients = {name: tf.add_n([answer[1][name] for answer in answers]) for name in answers[0][1]}
            self.optimizer.step(gradients, factor)
        if self.config.weight_average > 0:
            self._update_average(self.config.weight_average)
        if self.state.batch % _STEPS_BETWEEN_LOOKS == 0:
            self.state.variation = float(answers[0][2])
        value = float(loss)
        check_loss(value, self.optimizer.steps, self.config)
        self.state.batch += 1
        self.state.loss_sum += value * n_groups
        self.state.n_groups += n_groups
        return value

    def _divisor(self, batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Frames of a batch times the mean counts of its scan (FM-8)."""
        n_groups, C = (int(n) for n in batch["counts"].shape[:2])
        return tf.constant(n_groups * C * self.network.mean_counts[int(batch["scan"])], tf.float32)

    def _update_average(self, decay: float) -> None:
        current = {name: variable.numpy() for name, variable in self.network.parameters.items()}
        if self.average is None:
            self.average = current
            return
        d = np.float32(decay)
        self.average = {name: d * self.average[name] + (1 - d) * value for name, value in current.items()}

    def _test_loss(self) -> float:
        """Mean loss of the held-out frames of all scans, with the weights that count in the end."""
        data, total = self.data, 0.0
        values = {name: tf.constant(value) for name, value in self.final_values().items()}
        for scan, groups in enumerate(data.heldout):
            if groups is None:
                continue
            shape = data.canvas_of([groups])
            for batch in _read(data, data.heldout_batches(scan)):
                divisor = tf.constant(self.network.mean_counts[scan], tf.float32)
                with tf.device(self.devices[0]):
                    total += float(self.network.loss(values, batch, shape, divisor))
        return total / data.n_heldout

    def _end_epoch(self) -> None:
        """Record the epoch, look for a collapsed object, and keep checkpoints."""
        config, state = self.config, self.state
        rate = config.learning_rate * learning_rate_factor(config.schedule, self.optimizer.steps, self.total_steps)
        figures = {"train_loss": state.loss_sum / max(state.n_groups, 1)}
        if self.data.n_heldout:
            figures["test_loss"] = self._test_loss()
        figures["learning_rate"] = rate
        for name, value in figures.items():
            state.history.setdefault(name, []).append(value)
        if self.runtime.output_dir is not None:
            write_history(self.runtime.output_dir / HISTORY_FILE, state.history)
        check_variation(state.variation, self.optimizer.steps, self.total_steps, config)
        better = figures[self._watched] < state.best
        if better:
            state.best = figures[self._watched]
        state.epochs_since_best = 0 if better else state.epochs_since_best + 1
        state.epoch, state.batch, state.loss_sum, state.n_groups = state.epoch + 1, 0, 0.0, 0
        if self._folder is not None:
            if better:
                self._save(self._folder / _BEST)
            self._save(self._folder / _LAST)

    def _return_to_best(self) -> None:
        """Take up the best epoch's weights, where it was kept."""
        if self._folder is not None and (best := self._best_of(self._folder)) is not None:
            self._take_up(best[0])

    def _best_of(self, folder: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]] | None:
        """The best epoch of this training in a folder of checkpoints; that of another training is none of ours."""
        if not (folder / _BEST).exists():
            return None
        arrays, facts = read_checkpoint(folder / _BEST, BACKEND)
        own = facts.get("run") == self.facts
        return (arrays, facts) if own and _shapes(arrays) == self._shapes_wanted() else None

    def _stop(self, cancelled: Cancelled) -> None:
        """Leave a checkpoint where one is wanted, and stop."""
        path = None
        if self._folder is not None:
            path = self._folder / "interrupted.ckpt"
            self._save(path)
        raise Cancelled(str(cancelled), None if path is None else str(path)) from cancelled

    def _save(self, path: Path) -> None:
        arrays = {f"parameter.{name}": variable.numpy() for name, variable in self.network.parameters.items()}
        if self.average is not None:
            arrays |= {f"average.{name}": value for name, value in self.average.items()}
        arrays |= {f"optimizer.{name}": value for name, value in self.optimizer.state().items()}
        facts = {"run": self.facts, "step": self.optimizer.steps, "state": asdict(self.state)}
        write_checkpoint(path, BACKEND, arrays, facts)
        self._saved_at = time.monotonic()

    def _take_up(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        for name, variable in self.network.parameters.items():
            variable.assign(arrays[f"parameter.{name}"])
        self.average = _named(arrays, "average.") or None

    def _resume(self, path: Path) -> None:
        """Go on where a checkpoint of the same training stopped."""
        arrays, facts = read_checkpoint(path, BACKEND)
        try:
            shapes = (_shapes(arrays), self._shapes_wanted())
            check_resumable(path, shapes, (facts["run"], self.facts), facts["step"], self.total_steps)
            state, moments = State(**facts["state"]), _named(arrays, "optimizer.")
            self.optimizer.restore(moments, facts["step"])
        except ArchiveError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise ArchiveError(
                f"{path}: a checkpoint of engine {BACKEND!r} that lacks something, or has more than this version knows "
                f"({type(error).__name__}: {error}); resume with the version of ptycho-core that wrote it."
            ) from error
        self._take_up(arrays)
        self.state = state
        if (
            self._folder is not None
            and self._folder != path.parent
            and (best := self._best_of(path.parent)) is not None
        ):
            write_checkpoint(self._folder / _BEST, BACKEND, *best)

    def _shapes_wanted(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(variable.shape) for name, variable in self.network.parameters.items()}


def _shapes(arrays: Mapping[str, NDArray[Any]]) -> dict[str, tuple[int, ...]]:
    return {name: value.shape for name, value in _named(arrays, "parameter.").items()}


def _named(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def _part(batch: Mapping[str, tf.Tensor], start: int, stop: int) -> dict[str, tf.Tensor]:
    """Some groups of a batch, without what only the reader needs."""
    return {name: batch[name][start:stop] for name in ("counts", "corners_px", "subpixel_px")} | {"scan": batch["scan"]}


def _read(data: GroupData, batches: tf.data.Dataset) -> Iterator[dict[str, tf.Tensor]]:
    """Iterate over batches; an error while one is read is raised as what it was."""
    data.error = None
    try:
        yield from batches
    except tf.errors.OpError as error:
        if data.error is not None:
            raise data.error from error
        raise
