"""The rules of a training that every engine with a network keeps: order of groups, health, history, resuming."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..config import TrainingConfig
from ..config_mapping import config_to_mapping
from ..data.container import PtychoDataContainer
from ..errors import ArchiveError, BackendError, CollapseError, ConfigError
from ..io.atomic import write_text

__all__ = [
    "HISTORY_FILE",
    "check_loss",
    "check_resumable",
    "check_trackers",
    "check_trainable",
    "check_variation",
    "epoch_batches",
    "run_facts",
    "steps_an_epoch",
    "write_history",
]

HISTORY_FILE = "history.csv"

_MIN_STEPS_BEFORE_COLLAPSE = 100

_SAME_WHEN_RESUMED = (
    "batch_size", "devices", "seed", "loss", "learning_rate", "schedule", "weight_decay", "weight_average",
    "probe_trainable", "probe_learning_rate", "scale_trainable", "scale_learning_rate", "precision",
)  # fmt: skip

_TRACKER_MODULES = {
    "tensorboard": ("tensorboard",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),  # MLflow's small package comes without its database
}


def check_trainable(train: PtychoDataContainer, test: PtychoDataContainer | None, config: TrainingConfig) -> None:
    """Refuse groups or a probe that the config cannot be followed with.

    Raises:
        ConfigError: test groups smaller than a ``cnn`` is tied to, or a trainable scale of a calibrated probe.
    """
    if config.model.generator == "cnn" and test is not None and test.group_size != train.group_size:
        raise ConfigError(
            f"generator 'cnn' needs test groups of {train.group_size} frames, like its training groups, but there "
            f"are only {test.group_size} test frames; lower group_size or raise test_fraction."
        )
    if config.scale_trainable and train.raw.probe_calibrated:
        raise ConfigError(
            f"scale_trainable = True, but the probe of {train.raw.source.path or 'the scan'} is calibrated: it is "
            "in photons, and its scale is 1 and fixed. Leave scale_trainable out, or give the probe uncalibrated."
        )


def steps_an_epoch(n_groups: int, config: TrainingConfig) -> int:
    """Optimiser steps in an epoch; a step takes ``batch_size`` groups on each device."""
    return math.ceil(n_groups / (config.batch_size * config.devices))


def epoch_batches(
    n_groups: int,
    batch_size: int,
    seed: int,
    epoch: int,
    *,
    shuffle: bool = True,
    rank: int = 0,
    world_size: int = 1,
    first_batch: int = 0,
) -> Iterator[list[int]]:
    """Batches of group numbers in an order that seed and epoch decide, so that a resumed run sees the same batches.

    With several devices each takes its share of every batch's groups; the last groups are repeated so that all make
    the same number of steps.

    Args:
        n_groups: groups in an epoch.
        batch_size: groups in a batch of one device.
        seed: decides the order, together with the epoch.
        epoch: number of the epoch.
        shuffle: whether to shuffle at all.
        rank: number of this device.
        world_size: number of devices.
        first_batch: batches to leave out at the start.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(n_groups) if shuffle else np.arange(n_groups)
    stride = batch_size * world_size
    if world_size > 1:
        order = np.resize(order, math.ceil(n_groups / stride) * stride)
    for start in range(first_batch * stride, len(order), stride):
        mine = order[start + rank : min(start + stride, len(order)) : world_size]
        yield [int(group) for group in mine]


def check_loss(loss: float, step: int, config: TrainingConfig) -> None:
    """Stop at the first loss that is not a number.

    Raises:
        BackendError: it is not finite.
    """
    if not math.isfinite(loss):
        raise BackendError(
            f"training loss became {loss} at step {step}; "
            f"lower learning_rate (now {config.learning_rate:g}) or set gradient_clip_norm."
        )


def check_variation(variation: float, step: int, total_steps: int, config: TrainingConfig) -> None:
    """Look for a collapsed object, once a third of the training is over.

    Args:
        variation: spread of the predicted object where the probe lights it, relative to its mean.
        step: steps done.
        total_steps: steps in all.
        config: ``collapse_threshold`` is read.

    Raises:
        CollapseError: the object is constant.
    """
    past_start = step >= max(_MIN_STEPS_BEFORE_COLLAPSE, total_steps // 3)
    if past_start and variation < config.collapse_threshold:
        raise CollapseError(
            f"the predicted object is constant (relative variation {variation:.2g}, threshold "
            f"{config.collapse_threshold:g}) after {step} steps. Lower "
            "learning_rate, try loss 'amplitude', check the probe with 'ptycho inspect', or set "
            "collapse_threshold to 0 for a sample that really is empty."
        )


def write_history(path: Path, history: Mapping[str, list[float]]) -> None:
    """Write one row an epoch; the whole file anew, so that a resumed training has its first epochs too."""
    rows = [",".join(["epoch", *history])]
    for epoch in range(max(map(len, history.values()))):
        figures = (values[epoch] if epoch < len(values) else math.nan for values in history.values())
        rows.append(",".join([str(epoch + 1), *(f"{figure:.9g}" for figure in figures)]))
    write_text(path, "\n".join(rows) + "\n")


def run_facts(config: TrainingConfig, groups: PtychoDataContainer) -> dict[str, Any]:
    """What decides the order and the size of a training's steps, and so must be the same when it is resumed.

    Rates and decays among them: an optimiser takes them up from the checkpoint, whatever the config says by then.
    """
    plain = config_to_mapping(config)
    return {
        "n_groups": groups.n_groups,
        "group_size": groups.group_size,
        "mean_counts": groups.statistics.mean_counts,
        **{name: plain[name] for name in _SAME_WHEN_RESUMED},
    }


def check_resumable(
    path: Path,
    shapes: tuple[Mapping[str, tuple[int, ...]], Mapping[str, tuple[int, ...]]],
    facts: tuple[Mapping[str, Any], Mapping[str, Any]],
    step: int,
    total_steps: int,
) -> None:
    """Refuse a checkpoint of another training.

    Args:
        path: of the checkpoint.
        shapes: name → shape of every parameter, in the checkpoint and as needed now.
        facts: :func:`run_facts` of the checkpoint and of now.
        step: steps that the checkpoint has done.
        total_steps: steps asked for.

    Raises:
        ArchiveError: another network, probe, scan or setting, or nothing left to do.
    """
    found, wanted = shapes
    if found != wanted:
        differing = sorted(n for n in found.keys() | wanted.keys() if found.get(n) != wanted.get(n))
        name = differing[0]
        raise ArchiveError(
            f"{path}: made by another configuration: {len(differing)} weights differ, first {name!r} with shape "
            f"{found.get(name)} where {wanted.get(name)} is needed. Resume with the model and probe it was made with."
        )
    then, now = facts
    for name, value in now.items():
        if then.get(name) != value:
            raise ArchiveError(
                f"{path}: made with {name} = {then.get(name)}, now it is {value}; resume with the scan and the "
                "settings it was made with."
            )
    if step >= total_steps:
        raise ArchiveError(f"{path}: its {step} steps are all that was asked for; raise epochs to train on.")


def check_trackers(config: TrainingConfig) -> None:
    """Refuse trackers that cannot be used, before anything is computed.

    Raises:
        ConfigError: trackers without a folder to write to, or one that is not installed.
    """
    if config.loggers and config.output_dir is None:
        raise ConfigError(
            f"loggers = {list(config.loggers)}, but output_dir is None, which writes nothing; set output_dir."
        )
    for name in config.loggers:
        try:
            for module in _TRACKER_MODULES[name]:
                importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"loggers = {list(config.loggers)}: {name!r} needs a package that is not installed "
                f"({str(error).splitlines()[0]}). "
                f"Run: pip install 'ptycho-core[{name}]', or leave it out."
            ) from error
