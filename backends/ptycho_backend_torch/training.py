"""The training path: a Trainer built from a config, the callbacks it runs, and resuming from a checkpoint."""

from __future__ import annotations

import contextlib
import logging
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, EMAWeightAveraging, ModelCheckpoint

from ptycho_core.config import TrainingConfig
from ptycho_core.errors import ArchiveError, BackendError, Cancelled, CollapseError
from ptycho_core.protocol import Progress, ProgressEvent

from .data import GroupDataModule
from .hardware import lightning_accelerator
from .lightning_module import PtychoModule

__all__ = ["build_trainer", "fit", "read_checkpoint"]

_MIN_STEPS_BEFORE_COLLAPSE = 100


class HistoryAndHealth(Callback):
    """Keeps one figure an epoch, and stops a training that has gone wrong."""

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop at the first loss that is not a number."""
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        if batch_idx % 10 == 0 and not torch.isfinite(loss.detach()).all():
            raise BackendError(
                f"training loss became {float(loss)} at step {trainer.global_step}; "
                f"lower learning_rate (now {pl_module.config.learning_rate:g}) or set gradient_clip_norm."
            )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Record the epoch, then look for a collapsed object."""
        for name in ("train_loss", "test_loss"):
            if name in trainer.callback_metrics:
                pl_module.history.setdefault(name, []).append(float(trainer.callback_metrics[name]))
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        pl_module.history.setdefault("learning_rate", []).append(float(rate))
        past_start = trainer.global_step >= max(_MIN_STEPS_BEFORE_COLLAPSE, pl_module.total_steps // 3)
        if past_start and pl_module.variation < pl_module.config.collapse_threshold:
            raise CollapseError(
                f"the predicted object is constant (relative variation {pl_module.variation:.2g}, threshold "
                f"{pl_module.config.collapse_threshold:g}) after {trainer.global_step} steps. Lower learning_rate, try "
                "loss 'amplitude', check the probe with 'ptycho inspect', or set collapse_threshold to 0 for a sample "
                "that really is empty."
            )


class ReportProgress(Callback):
    """Tells the caller after each step; a ``Cancelled`` from there leaves a checkpoint between two steps.

    The checkpoint is written before the next batch starts, not right after the step, because only then do Lightning's
    counters say that the step is complete.
    """

    def __init__(self, progress: Progress, checkpoint_folder: Path | None) -> None:
        self.progress, self.folder = progress, checkpoint_folder
        self.cancelled: Cancelled | None = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Report a step."""
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        metrics = {"loss": float(loss), "epoch": float(trainer.current_epoch)}
        try:
            self.progress(
                ProgressEvent(stage="train", done=trainer.global_step, total=pl_module.total_steps, metrics=metrics)
            )
        except Cancelled as error:
            self.cancelled = error

    def _stop_if_cancelled(self, trainer: pl.Trainer) -> None:
        if self.cancelled is None:
            return
        path = None
        if self.folder is not None:
            path = self.folder / "interrupted.ckpt"
            trainer.save_checkpoint(path)
        raise Cancelled(str(self.cancelled), None if path is None else str(path)) from self.cancelled

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Stop between two batches."""
        self._stop_if_cancelled(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Stop between two epochs."""
        self._stop_if_cancelled(trainer)


def _loggers(config: TrainingConfig) -> Any:
    """CSV always when there is a folder; trackers only when asked, and only then imported."""
    if config.output_dir is None:
        return False
    from lightning.pytorch.loggers import CSVLogger

    chosen: list[Any] = [CSVLogger(config.output_dir, name="", version="history", flush_logs_every_n_steps=50)]
    if "tensorboard" in config.loggers:
        from lightning.pytorch.loggers import TensorBoardLogger

        chosen.append(TensorBoardLogger(config.output_dir, name="", version="tensorboard"))
    if "mlflow" in config.loggers:
        from lightning.pytorch.loggers import MLFlowLogger

        uri = f"sqlite:///{(config.output_dir / 'mlflow.db').resolve()}"
        chosen.append(MLFlowLogger(experiment_name="ptycho", tracking_uri=uri))
    return chosen


def build_trainer(config: TrainingConfig, progress: Progress, has_test: bool) -> pl.Trainer:
    """A Trainer with everything that the config says, and nothing that it does not."""
    folder = None if config.output_dir is None else config.output_dir / "checkpoints"
    callbacks: list[Callback] = [HistoryAndHealth(), ReportProgress(progress, folder)]
    watched = "test_loss" if has_test else "train_loss"
    if config.weight_average > 0:
        callbacks.append(EMAWeightAveraging(decay=config.weight_average))
    if config.early_stopping_patience is not None:
        callbacks.append(EarlyStopping(watched, patience=config.early_stopping_patience, check_on_train_epoch_end=True))
    if folder is not None:
        callbacks.append(
            ModelCheckpoint(
                folder, "best", monitor=watched, save_last=True, save_top_k=1, enable_version_counter=False,
                save_on_train_epoch_end=True,
            )
        )  # fmt: skip
    return pl.Trainer(
        accelerator=lightning_accelerator(config.accelerator),
        devices=config.devices,
        strategy=config.strategy,
        max_epochs=config.epochs,
        logger=_loggers(config),
        callbacks=callbacks,
        enable_checkpointing=folder is not None,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        use_distributed_sampler=False,
        default_root_dir=config.output_dir,
    )


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """Hold back Lightning's start-up notes and tips while it runs; errors pass."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            warnings.filterwarnings("ignore", module=r"torch\..*")
            warnings.filterwarnings("ignore", message=r".*(LeafSpec|_pytree|tensorboardX).*")
            yield
    finally:
        logger.setLevel(level)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint that holds tensors and plain values only.

    Raises:
        ArchiveError: missing, damaged, or holding anything else.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ArchiveError(f"{path}: no such checkpoint; give resume_from a file from a training folder.") from error
    except Exception as error:  # torch raises many kinds for a damaged or unsafe file
        raise ArchiveError(f"{path}: not a checkpoint that can be read safely ({type(error).__name__}).") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint or "loops" not in checkpoint:
        raise ArchiveError(f"{path}: not a training checkpoint; give resume_from a file from a training folder.")
    return checkpoint


def _check_resumable(checkpoint: dict[str, Any], path: Path, module: PtychoModule, n_batches: int) -> int:
    """Refuse a checkpoint of another network, probe or number of groups; return the batches done of its epoch."""
    found = {name: tuple(value.shape) for name, value in checkpoint["state_dict"].items()}
    wanted = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    if found != wanted:
        differing = sorted(n for n in found.keys() | wanted.keys() if found.get(n) != wanted.get(n))
        name = differing[0]
        raise ArchiveError(
            f"{path}: made by another configuration: {len(differing)} weights differ, first {name!r} with shape "
            f"{found.get(name)} where {wanted.get(name)} is needed. Resume with the model and probe it was made with."
        )
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    step = int(checkpoint["global_step"])
    if step >= module.total_steps:
        raise ArchiveError(f"{path}: its {step} steps are all that was asked for; raise epochs to train on.")
    done = int(progress["current"]["completed"])
    if int(progress["total"]["completed"]) != step or (done < n_batches and (step - done) % n_batches):
        raise ArchiveError(
            f"{path}: made with another number of groups, or batch_size: {step} steps do not fit epochs of "
            f"{n_batches}. Resume with the settings it was made with."
        )
    return done % n_batches


def fit(module: PtychoModule, data: GroupDataModule, config: TrainingConfig, progress: Progress) -> Path | None:
    """Train `module` in place.

    Returns:
        Checkpoint that training can be resumed from, or None when there is no output folder.

    Raises:
        CollapseError, BackendError, Cancelled, ArchiveError: see the callbacks and :func:`read_checkpoint`.
    """
    with quiet_lightning():
        trainer = build_trainer(config, progress, data.test_set is not None)
        if config.resume_from is not None:
            checkpoint = read_checkpoint(config.resume_from)
            n_batches = math.ceil(len(data.train_set) / (config.batch_size * max(1, trainer.world_size)))
            data.skip_batches = _check_resumable(checkpoint, config.resume_from, module, n_batches)
        trainer.fit(module, datamodule=data, ckpt_path=config.resume_from, weights_only=True)
    folder = None if config.output_dir is None else config.output_dir / "checkpoints"
    if folder is not None and config.early_stopping_patience is not None and (folder / "best.ckpt").exists():
        module.load_state_dict(read_checkpoint(folder / "best.ckpt")["state_dict"], strict=True)
    return None if folder is None else folder / "last.ckpt"
