"""What watches a training: it keeps the history, stops one that has gone wrong, and talks to the caller."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NoReturn

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from ptycho_core.config import config_to_mapping
from ptycho_core.errors import BackendError, Cancelled, CollapseError, PtychoError
from ptycho_core.io import write_text
from ptycho_core.protocol import Progress, ProgressEvent

from .data import GroupDataModule
from .relay import Mailbox

__all__ = ["HISTORY_FILE", "HistoryAndHealth", "ReportProgress", "run_facts"]

HISTORY_FILE = "history.csv"
_MIN_STEPS_BEFORE_COLLAPSE = 100


_SAME_WHEN_RESUMED = (
    "batch_size", "devices", "seed", "loss", "learning_rate", "schedule", "weight_decay", "weight_average",
    "probe_trainable", "probe_learning_rate", "scale_trainable", "scale_learning_rate",
)  # fmt: skip


def run_facts(module: Any, data: GroupDataModule) -> dict[str, float | str]:
    """What decides the order and the size of a training's steps, and so must be the same when it is resumed.

    Rates and decays among them: an optimiser takes them up from the checkpoint, whatever the config says by then.
    """
    groups, plain = data.train_set.container, config_to_mapping(module.config)
    return {
        "n_groups": groups.n_groups,
        "group_size": groups.group_size,
        "mean_counts": groups.statistics.mean_counts,
        **{name: plain[name] for name in _SAME_WHEN_RESUMED},
    }


def _loss_of(trainer: pl.Trainer, outputs: Any) -> float:
    """Loss of a step; with several processes the mean of theirs, so that all see one figure."""
    loss: Tensor = outputs["loss"] if isinstance(outputs, dict) else outputs
    if trainer.world_size > 1:
        loss = trainer.strategy.reduce(loss.detach().clone(), reduce_op="mean")
    return float(loss)


def write_history(path: Path, history: dict[str, list[float]]) -> None:
    """Write one row an epoch; the whole file anew, so that a resumed training has its first epochs too."""
    rows = [",".join(["epoch", *history])]
    for epoch in range(max(map(len, history.values()))):
        figures = (values[epoch] if epoch < len(values) else math.nan for values in history.values())
        rows.append(",".join([str(epoch + 1), *(f"{figure:.9g}" for figure in figures)]))
    write_text(path, "\n".join(rows) + "\n")


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
        data: Any = trainer
        checkpoint["ptycho_run"] = run_facts(pl_module, data.datamodule)

    def _fail(self, error: PtychoError) -> NoReturn:
        if self.mailbox is not None:
            self.mailbox.error(error)
        raise error

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Hand the history over to the caller's process."""
        if self.mailbox is not None and trainer.is_global_zero:
            self.mailbox.history(pl_module.history)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Stop at the first loss that is not a number."""
        loss, n_groups = _loss_of(trainer, outputs), len(batch["counts"])
        if not math.isfinite(loss):
            self._fail(
                BackendError(
                    f"training loss became {loss} at step {trainer.global_step}; "
                    f"lower learning_rate (now {pl_module.config.learning_rate:g}) or set gradient_clip_norm."
                )
            )
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
        past_start = trainer.global_step >= max(_MIN_STEPS_BEFORE_COLLAPSE, pl_module.total_steps // 3)
        if past_start and pl_module.variation < pl_module.config.collapse_threshold:
            self._fail(
                CollapseError(
                    f"the predicted object is constant (relative variation {pl_module.variation:.2g}, threshold "
                    f"{pl_module.config.collapse_threshold:g}) after {trainer.global_step} steps. Lower "
                    "learning_rate, try loss 'amplitude', check the probe with 'ptycho inspect', or set "
                    "collapse_threshold to 0 for a sample that really is empty."
                )
            )


class ReportProgress(Callback):
    """Tells the caller after each step; a ``Cancelled`` from there leaves a checkpoint between two steps.

    The checkpoint is written before the next batch starts, not right after the step, because only then do Lightning's
    counters say that the step is complete, and a complete epoch is over.

    Args:
        progress: the caller's.
        checkpoint_folder: where a cancelled training is kept, or None.
        mailbox: to the caller's process, when training runs in others; then it stands for `progress`.
    """

    def __init__(self, progress: Progress, checkpoint_folder: Path | None, mailbox: Mailbox | None = None) -> None:
        self.progress = progress if mailbox is None else mailbox.progress
        self.folder, self.mailbox = checkpoint_folder, mailbox
        self.cancelled: Cancelled | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Prepare a process that was started for the training."""
        if self.mailbox is not None:
            self.mailbox.settle_in()

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

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Stop between two batches."""
        if self.cancelled is None:
            return
        path = None
        if self.folder is not None:
            path = self.folder / "interrupted.ckpt"
            trainer.save_checkpoint(path)
        error = Cancelled(str(self.cancelled), None if path is None else str(path))
        if self.mailbox is not None and trainer.is_global_zero:
            self.mailbox.error(error)
        raise error from self.cancelled
