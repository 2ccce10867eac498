"""The training path: a Trainer built from a config, and resuming from a checkpoint."""

from __future__ import annotations

import contextlib
import functools
import logging
import shutil
import threading
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, WeightAveraging
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from ptycho_core.config import TrainingConfig
from ptycho_core.enginekit.checkpoint import refuse_foreign
from ptycho_core.enginekit.network_training import HISTORY_FILE, check_resumable, check_trackers, write_history
from ptycho_core.errors import ArchiveError, ConfigError
from ptycho_core.io.atomic import atomic_path, ensure_output_folder
from ptycho_core.protocol import Progress
from ptycho_core.runtime import Runtime

from .callbacks import LAST, HistoryAndHealth, ReportProgress
from .data import GroupDataModule
from .hardware import lightning_accelerator
from .lightning_module import PtychoModule
from .relay import Listener, Mailbox, has_own_processes, strategy_of

__all__ = ["build_trainer", "fit", "read_checkpoint"]

CHECKPOINTS, BEST = "checkpoints", "best.ckpt"


def _tracker(name: str, folder: Path) -> Any:
    if name == "tensorboard":
        from lightning.pytorch.loggers import TensorBoardLogger

        return TensorBoardLogger(folder, name="", version="tensorboard")
    from lightning.pytorch.loggers import MLFlowLogger

    return MLFlowLogger(experiment_name="ptycho", tracking_uri=f"sqlite:///{(folder / 'mlflow.db').resolve()}")


def _loggers(runtime: Runtime) -> Any:
    """Trackers that were asked for; only then is one imported.

    Raises:
        ConfigError: see :func:`check_trackers`.
    """
    check_trackers(runtime)
    if runtime.output_dir is None or not runtime.loggers:
        return False
    return [_tracker(name, runtime.output_dir) for name in dict.fromkeys(runtime.loggers)]


def _moving_average(average: Tensor, current: Tensor, n_averaged: Tensor | int, *, decay: float) -> Tensor:
    """One step of the average; a function of the module, so that it can be sent to another process."""
    return decay * average + (1 - decay) * current


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints beside their target, flushed and renamed; Lightning's own go through the system's temporary files."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint; a killed process leaves the old one or the new one."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(Path(path)) as temporary:
            torch.save(checkpoint, temporary)


def _is_of(path: Path, facts: Mapping[str, Any]) -> bool:
    """Whether there is a checkpoint and it is of this training; that of another one is none of ours."""
    return path.is_file() and read_checkpoint(path)["ptycho_run"] == facts


class BestCheckpoint(ModelCheckpoint):
    """The best epoch, which stays the best when a training goes on in another folder; Lightning would forget it.

    Args:
        folder: where it is kept.
        watched: name of the figure that decides.
        facts: what decides this training.
        settings: for ``ModelCheckpoint``.
    """

    def __init__(self, folder: Path, watched: str, facts: Mapping[str, Any], **settings: Any) -> None:
        super().__init__(folder, Path(BEST).stem, monitor=watched, **settings)
        self._facts = facts

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the best epoch so far along."""
        here, there = Path(str(self.dirpath)), Path(state_dict.get("dirpath") or str(self.dirpath))
        kept = there / Path(state_dict["best_model_path"]).name
        if here != there and state_dict["best_model_path"]:
            own = ensure_output_folder(here) / kept.name
            if _is_of(kept, self._facts):
                with atomic_path(own) as temporary:
                    shutil.copyfile(kept, temporary)
            paths = {"best_model_path": str(own), "kth_best_model_path": str(own), "dirpath": self.dirpath}
            state_dict = {**state_dict, **paths, "best_k_models": {str(own): state_dict["best_model_score"]}}
        super().load_state_dict(state_dict)


def _callbacks(data: GroupDataModule, progress: Progress, mailbox: Mailbox | None) -> list[Callback]:
    config, output = data.config, data.runtime.output_dir
    folder = None if output is None else output / CHECKPOINTS
    callbacks: list[Callback] = [
        HistoryAndHealth(output, mailbox),
        ReportProgress(progress, folder, mailbox),
    ]
    watched = "test_loss" if data.test_set is not None else "train_loss"
    if config.weight_average > 0:
        average = functools.partial(_moving_average, decay=config.weight_average)
        callbacks.append(WeightAveraging(use_buffers=False, avg_fn=average))
    if config.early_stopping_patience is not None:
        callbacks.append(EarlyStopping(watched, patience=config.early_stopping_patience, check_on_train_epoch_end=True))
    if folder is not None:
        always: dict[str, Any] = {"enable_version_counter": False, "save_on_train_epoch_end": True}
        callbacks.append(BestCheckpoint(folder, watched, data.facts, **always))
        # not save_last, which writes only when the best does
        callbacks.append(ModelCheckpoint(folder, "last", **always))
    return callbacks


def build_trainer(data: GroupDataModule, progress: Progress, mailbox: Mailbox | None = None) -> pl.Trainer:
    """A Trainer with everything that config and runtime of `data` say, and nothing that they do not.

    Raises:
        ConfigError: devices or a strategy that are not to be had here.
    """
    config, runtime = data.config, data.runtime
    settings: dict[str, Any] = {
        "accelerator": lightning_accelerator(runtime.accelerator),
        "devices": runtime.devices,
        "strategy": _strategy(data),
    }
    loggers, callbacks = _loggers(runtime), _callbacks(data, progress, mailbox)
    try:
        return pl.Trainer(
            **settings,
            max_epochs=config.epochs,
            logger=loggers,
            callbacks=callbacks,
            plugins=[AtomicCheckpointIO()],
            enable_checkpointing=runtime.output_dir is not None,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
            use_distributed_sampler=False,
            default_root_dir=runtime.output_dir,
        )
    except (ValueError, MisconfigurationException) as error:
        given = ", ".join(f"{name} = {value!r}" for name, value in settings.items())
        raise ConfigError(f"Lightning refuses {given}: {' '.join(str(error).split())}") from error


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
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


class _QuietLightning:
    """Holds back Lightning's start-up notes and tips while any training runs; errors pass.

    Warning filters and log levels belong to the process. If each of two trainings that overlap put back what it found,
    the one that ends last would put back what the first had set.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if self._users == 0:
                self._undo.enter_context(_held_back())
            self._users += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._undo.close()


_quiet_lightning = _QuietLightning()


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint that holds tensors and plain values only.

    Raises:
        ArchiveError: missing, damaged, or holding anything else.
    """
    refuse_foreign(path, "pytorch")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ArchiveError(f"{path}: no such checkpoint; give resume_from a file from a training folder.") from error
    except Exception as error:  # torch raises many kinds for a damaged or unsafe file
        raise ArchiveError(f"{path}: not a checkpoint that can be read safely ({type(error).__name__}).") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint or "ptycho_run" not in checkpoint:
        raise ArchiveError(f"{path}: not a training checkpoint; give resume_from a file from a training folder.")
    return checkpoint


def _check_resumable(checkpoint: dict[str, Any], path: Path, module: PtychoModule, data: GroupDataModule) -> int:
    """Refuse a checkpoint of another training; return the steps that it has done."""
    found = {name: tuple(value.shape) for name, value in checkpoint["state_dict"].items()}
    wanted = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    step = int(checkpoint["global_step"])
    check_resumable(path, (found, wanted), (checkpoint["ptycho_run"], data.facts), step, module.total_steps)
    return step


def _is_over(checkpoint: dict[str, Any], step: int, config: TrainingConfig, total_steps: int) -> bool:
    """Whether a checkpoint is the end of its training: all steps are done, or it was stopped early."""
    patience = config.early_stopping_patience
    states = [state for state in checkpoint["callbacks"].values() if "wait_count" in state]
    tired = patience is not None and any(state["wait_count"] >= patience for state in states)
    return step == total_steps or (tired and step % (total_steps // config.epochs) == 0)


def _take_result(module: PtychoModule, checkpoint: dict[str, Any], path: Path, folder: Path | None) -> None:
    """End a training that was over when it was killed: its weights and history, and its files where it had some."""
    module.load_state_dict(checkpoint["state_dict"], strict=True)
    module.history = {name: list(values) for name, values in checkpoint["ptycho_history"].items()}
    if folder is None:
        return
    own = ensure_output_folder(folder / CHECKPOINTS)
    for source, name in ((path, LAST), (path.with_name(BEST), BEST)):
        if _is_of(source, checkpoint["ptycho_run"]) and source.resolve() != (own / name).resolve():
            with atomic_path(own / name) as temporary:
                shutil.copyfile(source, temporary)
    write_history(folder / HISTORY_FILE, module.history)


def _strategy(data: GroupDataModule) -> str:
    config = data.config
    idle = data.n_trained > 1 and (config.probe_trainable or config.scale_trainable)
    return strategy_of(data.runtime.strategy, data.runtime.devices, idle_parameters=idle)


def _run(module: PtychoModule, data: GroupDataModule, progress: Progress) -> None:
    """Train, in this process or in others."""
    resume_from = data.runtime.resume_from
    if has_own_processes(_strategy(data)):
        with Listener(progress) as listener:
            trainer = build_trainer(data, progress, listener.mailbox)
            trainer.fit(module, datamodule=data, ckpt_path=resume_from, weights_only=True)
        module.history = listener.history
    else:
        trainer = build_trainer(data, progress)
        trainer.fit(module, datamodule=data, ckpt_path=resume_from, weights_only=True)


def fit(module: PtychoModule, data: GroupDataModule, progress: Progress) -> Path | None:
    """Train `module` in place, as config and runtime of `data` say.

    Returns:
        Checkpoint that training can be resumed from, or None when there is no output folder.

    Raises:
        CollapseError, BackendError, Cancelled, ArchiveError: see the callbacks and :func:`read_checkpoint`.
        ConfigError: a tracker that cannot be used.
        OutputError: an output folder that cannot be written.
    """
    config = data.config
    resume_from, output, checkpoint = data.runtime.resume_from, data.runtime.output_dir, None
    if output is not None:
        ensure_output_folder(output)
    if resume_from is not None:
        checkpoint = read_checkpoint(resume_from)
        data.first_step = _check_resumable(checkpoint, resume_from, module, data)
    if (
        resume_from is not None
        and checkpoint is not None
        and _is_over(checkpoint, data.first_step, config, module.total_steps)
    ):
        _take_result(module, checkpoint, resume_from, output)
    else:
        with _quiet_lightning:
            _run(module, data, progress)
    folder = None if output is None else output / CHECKPOINTS
    if folder is not None and config.early_stopping_patience is not None and _is_of(folder / BEST, data.facts):
        module.load_state_dict(read_checkpoint(folder / BEST)["state_dict"], strict=True)
    return None if folder is None else folder / LAST
