"""What watches a training: it keeps the history, stops one that has gone wrong, and talks to the caller."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from ptycho_core.enginekit.checkpoint import CHECKPOINT_SECONDS
from ptycho_core.enginekit.network_training import HISTORY_FILE, check_loss, check_variation, write_history
from ptycho_core.errors import Cancelled, PtychoError
from ptycho_core.protocol import Progress, ProgressEvent

from .relay import Mailbox

__all__ = ["LAST", "HistoryAndHealth", "ReportProgress"]

LAST = "last.ckpt"
"""Name of the checkpoint that a training can be resumed from."""


def _loss_of(trainer: pl.Trainer, outputs: Any) -> float:
    """Loss of a step; with several processes the mean of theirs, so that all see one figure."""
    loss: Tensor = outputs["loss"] if isinstance(outputs, dict) else outputs
    if trainer.world_size > 1:
        loss = trainer.strategy.reduce(loss.detach().clone(), reduce_op="mean")
    return float(loss)


class HistoryAndHealth(Callback):
    """Keeps one figure an epoch, and stops a training that has gone wrong.

    The mean loss of an epoch is added up here and is part of a checkpoint, so that an epoch which was interrupted and
    resumed has the mean of all its batches.

    Args:
        folder: where the history is written after every epoch, or None.
        mailbox: to the caller's process, when training runs in others.
    """

    def __init__(self, folder: Path | None, mailbox: Mailbox | None = None) -> None:
        self.folder, self.mailbox = folder, mailbox
        self.loss_sum = 0.0
        self.n_groups = 0

    def state_dict(self) -> dict[str, Any]:
        """The epoch so far."""
        return {"loss_sum": self.loss_sum, "n_groups": self.n_groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up an epoch."""
        self.loss_sum, self.n_groups = float(state_dict["loss_sum"]), int(state_dict["n_groups"])

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Say which training this is."""
        fitted: Any = trainer
        checkpoint["ptycho_run"] = fitted.datamodule.facts

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Hand an error over to the caller's process before it is raised in this one."""
        try:
            yield
        except PtychoError as error:
            if self.mailbox is not None:
                self.mailbox.error(error)
            raise

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Hand the history over to the caller's process."""
        if self.mailbox is not None and trainer.is_global_zero:
            self.mailbox.history(pl_module.history)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Stop at the first loss that is not a number."""
        loss, n_groups = _loss_of(trainer, outputs), len(batch["counts"])
        with self._told():
            check_loss(loss, trainer.global_step, pl_module.config)
        pl_module.step_loss = loss
        self.loss_sum += loss * n_groups
        self.n_groups += n_groups

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Record the epoch, then look for a collapsed object."""
        pl_module.log("train_loss", self.loss_sum / max(self.n_groups, 1))
        self.loss_sum, self.n_groups = 0.0, 0
        history = pl_module.history
        for name in ("train_loss", "test_loss"):
            if name in trainer.callback_metrics:
                history.setdefault(name, []).append(float(trainer.callback_metrics[name]))
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        history.setdefault("learning_rate", []).append(float(rate))
        if self.folder is not None and trainer.is_global_zero:
            write_history(self.folder / HISTORY_FILE, history)
        with self._told():
            check_variation(pl_module.variation, trainer.global_step, pl_module.total_steps, pl_module.config)


class ReportProgress(Callback):
    """Tells the caller after each step; a ``Cancelled`` from there leaves a checkpoint between two steps.

    So does a long epoch, in the file that the end of an epoch is kept in. A checkpoint is written before the next batch
    starts, not right after the step, because only then do Lightning's counters say that the step is complete, and a
    complete epoch is over.

    Args:
        progress: the caller's.
        checkpoint_folder: where checkpoints are kept, or None.
        mailbox: to the caller's process, when training runs in others; then it stands for `progress`.
    """

    def __init__(self, progress: Progress, checkpoint_folder: Path | None, mailbox: Mailbox | None = None) -> None:
        self.progress = progress if mailbox is None else mailbox.progress
        self.folder, self.mailbox = checkpoint_folder, mailbox
        self.cancelled: Cancelled | None = None
        self.saved_at, self.due = time.monotonic(), False

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Prepare a process that was started for the training."""
        self.saved_at = time.monotonic()
        if self.mailbox is not None:
            self.mailbox.settle_in()

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Note when; nothing is due, whoever asked for this one."""
        self.saved_at, self.due = time.monotonic(), False

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Report a step; with several processes the first one does, and all agree on what it was told."""
        metrics = {"loss": pl_module.step_loss, "epoch": float(trainer.current_epoch)}
        if trainer.is_global_zero:
            try:
                self.progress(
                    ProgressEvent(stage="train", done=trainer.global_step, total=pl_module.total_steps, metrics=metrics)
                )
            except Cancelled as error:
                self.cancelled = error
        stop = trainer.strategy.reduce_boolean_decision(self.cancelled is not None, all=False)
        if stop and self.cancelled is None:
            self.cancelled = Cancelled()
        if self.folder is not None:
            late = time.monotonic() - self.saved_at > CHECKPOINT_SECONDS
            self.due = trainer.strategy.reduce_boolean_decision(late, all=False)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Stop between two batches, or keep what was done so far."""
        if self.cancelled is None:
            if self.folder is not None and self.due:
                trainer.save_checkpoint(self.folder / LAST)
            return
        path = None
        if self.folder is not None:
            path = self.folder / "interrupted.ckpt"
            trainer.save_checkpoint(path)
        error = Cancelled(str(self.cancelled), None if path is None else str(path))
        if self.mailbox is not None and trainer.is_global_zero:
            self.mailbox.error(error)
        raise error from self.cancelled
