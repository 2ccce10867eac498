"""The training loop: steps, epochs, checkpoints, and going on from one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ptycho_core.config import TrainingConfig
from ptycho_core.errors import ArchiveError, Cancelled
from ptycho_core.io.atomic import ensure_output_folder
from ptycho_core.networks.checkpoint import read_checkpoint, write_checkpoint
from ptycho_core.networks.schedules import learning_rate_factor
from ptycho_core.networks.training import (
    HISTORY_FILE,
    check_loss,
    check_resumable,
    check_variation,
    run_facts,
    steps_an_epoch,
    write_history,
)
from ptycho_core.protocol import Progress, ProgressEvent

from .data import GroupData
from .network import PtychoNetwork
from .optimizer import AdamW
from .tracking import Trackers

__all__ = ["BACKEND", "Training"]

BACKEND = "tensorflow"

_STEPS_BETWEEN_LOOKS = 10
"""Batches from one look at how much the object varies to the next."""


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
        train: groups to learn from.
        test: held-out groups, or None.
        config: the training config.
        devices: names of the devices to work on.
        progress: called after each step.
    """

    def __init__(
        self,
        network: PtychoNetwork,
        train: GroupData,
        test: GroupData | None,
        config: TrainingConfig,
        devices: tuple[str, ...],
        progress: Progress,
    ) -> None:
        self.network, self.train, self.test, self.config = network, train, test, config
        self.devices, self.progress = devices, progress
        self.optimizer = AdamW(network.parameters, network.groups())
        self.steps_an_epoch = steps_an_epoch(len(train), config)
        self.total_steps = config.epochs * self.steps_an_epoch
        self.average: dict[str, NDArray[np.float32]] | None = None
        self.state = State()
        self._folder = None if config.output_dir is None else config.output_dir / "checkpoints"
        self._shape = _largest_canvas(train)

    @property
    def checkpoint_path(self) -> Path | None:
        """Checkpoint of the last epoch, or None when nothing is written."""
        return None if self._folder is None else self._folder / "last.ckpt"

    def final_values(self) -> dict[str, NDArray[np.float32]]:
        """Name → value of every parameter: the moving average where there is one, else as they are."""
        if self.average is not None:
            return dict(self.average)
        return {name: variable.numpy() for name, variable in self.network.parameters.items()}

    def run(self) -> None:
        """Train to the end, or until early stopping.

        Raises:
            CollapseError, BackendError: see ``networks.training``.
            Cancelled: `progress` raised it.
            ArchiveError: a checkpoint to go on from that is damaged or of another training.
            ConfigError: a tracker that cannot be used.
            OutputError: an output folder that cannot be written.
        """
        config = self.config
        if config.output_dir is not None:
            ensure_output_folder(config.output_dir)
        if config.resume_from is not None:
            self._resume(config.resume_from)
        with Trackers(config) as trackers:
            while self.state.epoch < config.epochs:
                cancelled = self._run_epoch()
                figures = {name: values[-1] for name, values in self.state.history.items()}
                trackers.log({**figures, "epoch": self.state.epoch - 1}, self.optimizer.steps - 1)
                if self._patience_is_over():
                    self._return_to_best()
                    return
                if cancelled is not None and self.state.epoch < config.epochs:
                    self._stop(cancelled)
        if config.early_stopping_patience is not None:
            self._return_to_best()

    def _run_epoch(self) -> Cancelled | None:
        """The rest of an epoch and its end; a wish to stop during its last step is returned.

        Raises:
            Cancelled: the wish to stop came earlier; a checkpoint was left.
        """
        config, state = self.config, self.state
        batches = self.train.epoch(
            config.batch_size, config.seed, state.epoch, n_devices=len(self.devices), first_batch=state.batch,
            num_workers=config.num_workers,
        )  # fmt: skip
        cancelled = None
        for batch in _read(self.train, batches):
            metrics = {"loss": self._step(batch), "epoch": float(state.epoch)}
            try:
                self.progress(
                    ProgressEvent(stage="train", done=self.optimizer.steps, total=self.total_steps, metrics=metrics)
                )
            except Cancelled as error:
                cancelled = error
            if cancelled is not None and state.batch < self.steps_an_epoch:
                self._stop(cancelled)
        self._end_epoch()
        return cancelled

    def _step(self, batch: Mapping[str, tf.Tensor]) -> float:
        """One step of the optimiser, on all devices; return its loss."""
        n_groups = int(batch["counts"].shape[0])
        frames = n_groups * int(batch["counts"].shape[1])
        divisor = tf.constant(frames * self.network.statistics.mean_counts, tf.float32)
        factor = learning_rate_factor(self.config.schedule, self.optimizer.steps, self.total_steps)
        values = {name: variable.value() for name, variable in self.network.parameters.items()}
        share = n_groups // len(self.devices)
        answers = []
        for number, device in enumerate(self.devices):
            with tf.device(device):
                part = _part(batch, number * share, (number + 1) * share)
                answers.append(self.network.gradients(values, part, self._shape, divisor))
        with tf.device(self.devices[0]):
            loss = tf.add_n([answer[0] for answer in answers])
            gradients = {name: tf.add_n([answer[1][name] for answer in answers]) for name in self.network.trained}
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

    def _update_average(self, decay: float) -> None:
        current = {name: variable.numpy() for name, variable in self.network.parameters.items()}
        if self.average is None:
            self.average = current
            return
        d = np.float32(decay)
        self.average = {name: d * self.average[name] + (1 - d) * value for name, value in current.items()}

    def _test_loss(self, test: GroupData) -> float:
        """Mean loss of the held-out groups with the weights that count in the end."""
        shape, total = _largest_canvas(test), 0.0
        values = {name: tf.constant(value) for name, value in self.final_values().items()}
        for batch in _read(test, test.epoch(self.config.batch_size, self.config.seed, 0, shuffle=False)):
            n_groups, C = (int(n) for n in batch["counts"].shape[:2])
            divisor = tf.constant(n_groups * C * self.network.statistics.mean_counts, tf.float32)
            with tf.device(self.devices[0]):
                total += n_groups * float(self.network.loss(values, _part(batch, 0, n_groups), shape, divisor))
        return total / len(test)

    def _end_epoch(self) -> None:
        """Record the epoch, look for a collapsed object, and keep checkpoints."""
        config, state = self.config, self.state
        rate = config.learning_rate * learning_rate_factor(config.schedule, self.optimizer.steps, self.total_steps)
        figures = {"train_loss": state.loss_sum / max(state.n_groups, 1)}
        if self.test is not None:
            figures["test_loss"] = self._test_loss(self.test)
        figures["learning_rate"] = rate
        for name, value in figures.items():
            state.history.setdefault(name, []).append(value)
        if config.output_dir is not None:
            write_history(config.output_dir / HISTORY_FILE, state.history)
        check_variation(state.variation, self.optimizer.steps, self.total_steps, config)
        watched = figures["train_loss" if self.test is None else "test_loss"]
        better = watched < state.best
        if better:
            state.best = watched
        state.epochs_since_best = 0 if better else state.epochs_since_best + 1
        state.epoch, state.batch, state.loss_sum, state.n_groups = state.epoch + 1, 0, 0.0, 0
        if self._folder is not None:
            if better:
                self._save(self._folder / "best.ckpt")
            self._save(self._folder / "last.ckpt")

    def _patience_is_over(self) -> bool:
        """Whether to stop early: nothing better for long enough, or a watched loss that is no number."""
        patience, history = self.config.early_stopping_patience, self.state.history
        if patience is None:
            return False
        watched = history["train_loss" if self.test is None else "test_loss"][-1]
        return self.state.epochs_since_best >= patience or not math.isfinite(watched)

    def _return_to_best(self) -> None:
        """Take up the best epoch's weights, where it was kept."""
        if self._folder is not None and (best := self._best_of(self._folder)) is not None:
            self._take_up(best[0])

    def _best_of(self, folder: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]] | None:
        """The best epoch of this training in a folder of checkpoints; that of another training is none of ours."""
        if not (folder / "best.ckpt").exists():
            return None
        arrays, facts = read_checkpoint(folder / "best.ckpt", BACKEND)
        own = facts.get("run") == run_facts(self.config, self.train.container)
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
        facts = {
            "run": run_facts(self.config, self.train.container),
            "step": self.optimizer.steps,
            "state": asdict(self.state),
        }
        write_checkpoint(path, BACKEND, arrays, facts)

    def _take_up(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        for name, variable in self.network.parameters.items():
            variable.assign(arrays[f"parameter.{name}"])
        self.average = _named(arrays, "average.") or None

    def _resume(self, path: Path) -> None:
        """Go on where a checkpoint of the same training stopped."""
        arrays, facts = read_checkpoint(path, BACKEND)
        now = run_facts(self.config, self.train.container)
        try:
            shapes = (_shapes(arrays), self._shapes_wanted())
            check_resumable(path, shapes, (facts["run"], now), facts["step"], self.total_steps)
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
            write_checkpoint(self._folder / "best.ckpt", BACKEND, *best)

    def _shapes_wanted(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(variable.shape) for name, variable in self.network.parameters.items()}


def _shapes(arrays: Mapping[str, NDArray[Any]]) -> dict[str, tuple[int, ...]]:
    return {name: value.shape for name, value in _named(arrays, "parameter.").items()}


def _named(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def _part(batch: Mapping[str, tf.Tensor], start: int, stop: int) -> dict[str, tf.Tensor]:
    """Some groups of a batch, without what only the reader needs."""
    return {name: batch[name][start:stop] for name in ("counts", "corners_px", "subpixel_px")}


def _largest_canvas(groups: GroupData) -> tuple[int, int]:
    """Height and width that hold every group: canvases of one shape, so that one compiled step serves all batches."""
    height, width = groups.container.canvas_shape.max(axis=0)
    return int(height), int(width)


def _read(groups: GroupData, batches: tf.data.Dataset) -> Any:
    """Iterate over batches; an error while one is read is raised as what it was."""
    groups.error = None
    try:
        yield from batches
    except tf.errors.OpError as error:
        if groups.error is not None:
            raise groups.error from error
        raise
