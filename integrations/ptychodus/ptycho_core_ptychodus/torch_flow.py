"""What the client's Torch plugin calls, in its order, in a process that lives for one call.

The client drives a Lightning trainer there and hangs a callback of its own on it. Here core trains and tells of its
epochs afterwards, so the trainer is as much of one as the callback reads. A model file is our archive under the name
of a checkpoint; nothing in it is pickled. Nothing here imports PyTorch: an engine does, where it is chosen.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptycho_core.errors import ArchiveError, ConfigError, DataError

from . import torch_configs
from .archive import Archive, read_archive, write_archive
from .archive_checks import client_config
from .imaging import image_of
from .scans import ClientScan
from .settings import Job, job_of_torch
from .training import learn

__all__ = [
    "CHECKPOINT", "ConfigManager", "DataloaderFormats", "InferenceEngine", "LoadedModel", "PtychoDataLoader",
    "PtychoModel", "Trainer", "find_best_checkpoint",
]  # fmt: skip

CHECKPOINT = "best-checkpoint.ckpt"
_TRAIN, _TEST = "train_data.npz", "test_data.npz"
_SAVED = {
    "data_config": torch_configs.DataConfig,
    "model_config": torch_configs.ModelConfig,
    "training_config": torch_configs.TrainingConfig,
    "inference_config": torch_configs.InferenceConfig,
}


class DataloaderFormats(Enum):
    """How data are loaded, in the client's word."""

    LIGHTNING_ONLY_MODULE = "lightning_only_module"


@dataclass
class ConfigManager:
    """The client's five configs together."""

    data_config: torch_configs.DataConfig
    model_config: torch_configs.ModelConfig
    training_config: torch_configs.TrainingConfig
    inference_config: torch_configs.InferenceConfig
    datagen_config: torch_configs.DatagenConfig | None = None

    @classmethod
    def from_loaded_model(cls, model: PtychoModel) -> ConfigManager:
        """The configs that a model was trained with."""
        return cls(model.data_config, model.model_config, model.training_config, model.inference_config)

    def validate_arch_compatibility(self, model: PtychoModel) -> None:
        """Refuse a model of another network than the configs say.

        Raises:
            ConfigError: it is.
        """
        if self.model_config != model.model_config:
            raise ConfigError(
                "the model was trained with other settings of the network than those given; load it again."
            )

    def job(self) -> Job:
        """What a training with them comes to.

        Raises:
            ConfigError: a setting that would have no effect.
        """
        return job_of_torch(self.data_config, self.model_config, self.training_config, self.inference_config)

    def plain(self) -> dict[str, Any]:
        """The configs as plain data."""
        return {name: asdict(getattr(self, name)) for name in _SAVED}


def _configs(client: Mapping[str, Any], path: str) -> tuple[Any, ...]:
    """The four configs in an archive.

    Raises:
        ArchiveError: they are not there, or of another version.
    """
    return tuple(client_config(kind, client.get(name), name, path) for name, kind in _SAVED.items())


class PtychoDataLoader:
    """The scans of a job.

    Attributes:
        output_dir: where the training puts its files: a folder of this run below the one given.
        train: the scan.
        test: frames to judge by, or None.
    """

    def __init__(
        self,
        data_dir: Path | str,
        config_manager: ConfigManager,
        data_format: DataloaderFormats = DataloaderFormats.LIGHTNING_ONLY_MODULE,
        output_dir: Path | str = ".",
    ) -> None:
        folder = Path(data_dir)
        first = folder / _TRAIN
        if not first.is_file():
            found = sorted(path for path in folder.glob("*.npz") if path.name != _TEST)
            if len(found) != 1:
                raise DataError(
                    f"{folder}: {len(found)} NPZ files and none called {_TRAIN}; give the scan to train on that name."
                )
            first = found[0]
        self.train = ClientScan.from_file(first)
        self.test = ClientScan.from_file(folder / _TEST) if (folder / _TEST).is_file() else None
        self.output_dir: Path = Path(output_dir) / f"run_{time.strftime('%Y%m%d_%H%M%S')}"

    @classmethod
    def from_np(
        cls, diff_patterns: ArrayLike, probe: ArrayLike, positions: ArrayLike, config_manager: ConfigManager
    ) -> PtychoDataLoader:
        """The scan of arrays.

        Args:
            diff_patterns: (M, N, N) counts.
            probe: (P, N, N) complex.
            positions: (M, 2) (y, x), pixels of the client's object.
            config_manager: not read.
        """
        made = cls.__new__(cls)
        made.train = ClientScan.from_arrays(diff_patterns, positions, probe)
        made.test, made.output_dir = None, Path()
        return made


class LoadedModel:
    """What stands where the client expects a Lightning module: the names of its losses, and an archive once trained."""

    loss_name = "train_loss"
    val_loss_name = "test_loss"

    def __init__(self, archive: Archive | None = None) -> None:
        self.archive = archive

    @classmethod
    def load_from_checkpoint(cls, path: Path | str, **configs: Any) -> LoadedModel:
        """Read a model file.

        Raises:
            ArchiveError: no model of ours.
        """
        return cls(read_archive(path))


class PtychoModel:
    """A model with its four configs."""

    def __init__(
        self,
        model_config: torch_configs.ModelConfig,
        data_config: torch_configs.DataConfig,
        training_config: torch_configs.TrainingConfig,
        inference_config: torch_configs.InferenceConfig,
    ) -> None:
        self.model_config = model_config
        self.data_config = data_config
        self.training_config = training_config
        self.inference_config = inference_config
        self.model = LoadedModel()

    @classmethod
    def _new_model(cls, model: type[LoadedModel], config_manager: ConfigManager) -> PtychoModel:
        """A model to train; `model` is :class:`LoadedModel`."""
        c = config_manager
        made = cls(c.model_config, c.data_config, c.training_config, c.inference_config)
        made.model = model()
        return made

    @staticmethod
    def _extract_configs_from_checkpoint(path: str) -> tuple[Any, ...]:
        """Data, model, training and inference config of a model file.

        Raises:
            ArchiveError: no model of ours, or one of the TensorFlow plugin.
        """
        client = read_archive(path).client
        if client.get("plugin") != "torch":
            raise ArchiveError(f"{path}: it was trained by PtychoPINN; load it there.")
        return _configs(client, path)


class _Told:
    """As much of a Lightning trainer as a callback reads."""

    def __init__(self) -> None:
        self.callbacks: list[Any] = []
        self.callback_metrics: dict[str, float] = {}
        self.current_epoch = 0
        self.sanity_checking = False


class Trainer:
    """Trains a model on the scans of a loader."""

    def __init__(self, model: PtychoModel, loader: PtychoDataLoader, config_manager: ConfigManager) -> None:
        self.model = model
        self.loader = loader
        self.config_manager = config_manager
        self._trainer = _Told()

    @classmethod
    def _from_lightning(
        cls, model: PtychoModel, dataloader: PtychoDataLoader, orchestration: str, config_manager: ConfigManager
    ) -> Trainer:
        """A trainer; `orchestration` is ``lightning``."""
        return cls(model, dataloader, config_manager)

    def _tell(self, history: Mapping[str, list[float]]) -> None:
        """Tell the callbacks of each epoch: the client looks at them when all is over."""
        told = self._trainer
        for epoch in range(len(history["train_loss"])):
            told.current_epoch = epoch
            told.callback_metrics = {
                name: float(values[epoch])
                for name, values in history.items()
                if name in (LoadedModel.loss_name, LoadedModel.val_loss_name)
            }
            for callback in told.callbacks:
                callback.on_validation_epoch_end(told, self.model.model)
                callback.on_train_epoch_end(told, self.model.model)

    def train(self, orchestration: str = "lightning", experiment_name: str = "") -> None:
        """Train, and write the model below the loader's folder.

        Raises:
            ConfigError: a setting that would have no effect.
            PtychoError: see :func:`.training.learn`.
        """
        client = {"plugin": "torch", **self.config_manager.plain()}
        learned = learn(self.loader.train, self.loader.test, self.config_manager.job(), client)
        self._tell(learned.history)
        self.model.model.archive = learned.archive
        folder = self.loader.output_dir / "checkpoints"
        folder.mkdir(parents=True, exist_ok=True)
        write_archive(learned.archive, folder / CHECKPOINT)


def find_best_checkpoint(folder: Path | str) -> Path | None:
    """The model file of a run, or None."""
    path = Path(folder) / "checkpoints" / CHECKPOINT
    return path if path.is_file() else None


class InferenceEngine:
    """Applies a model to a scan."""

    def __init__(self, config_manager: ConfigManager, ptycho_model: PtychoModel) -> None:
        self.config_manager = config_manager
        self.model = ptycho_model

    def predict_and_stitch(self, loader: PtychoDataLoader) -> NDArray[np.complex64]:
        """The image (H, W) complex64, on the client's grid.

        Raises:
            DataError: the model was not trained or loaded.
            PtychoError: see :func:`.imaging.image_of`.
        """
        archive = self.model.model.archive
        if archive is None:
            raise DataError("the model has not been trained or loaded, so it makes no image.")
        return image_of(archive, loader.train).object
