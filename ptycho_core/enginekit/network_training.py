"""The rules of a training that every engine with a network keeps: order of groups, health, history, resuming."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..config import TrainingConfig
from ..config_mapping import config_to_mapping
from ..data.container import PtychoDataContainer
from ..errors import ArchiveError, BackendError, CollapseError, ConfigError, DataError
from ..generators import Generator
from ..io.atomic import write_text
from ..runtime import Runtime
from .architectures import GENERATORS
from .weights import generator_shapes, network_of

__all__ = [
    "HISTORY_FILE",
    "check_loss",
    "check_resumable",
    "check_trainable",
    "check_variation",
    "run_facts",
    "scan_digest",
    "training_scans",
    "write_history",
]

HISTORY_FILE = "history.csv"

_MIN_STEPS_BEFORE_COLLAPSE = 100

_FREE_WHEN_RESUMED = frozenset({
    "backend",  # a checkpoint says itself whose it is
    "n_subsample", "test_fraction", "test_split", "probe_modes", "nphotons",  # decide the scan, which has a digest
    "inference", "refinement", "algorithm",  # come after a training
    "epochs", "early_stopping_patience",  # more may be asked for
    "collapse_threshold",  # stops a training and does not change it
})  # fmt: skip
"""Settings that may be others when a training is resumed; every other field of the config must be the same."""


def check_trainable(
    scans: Sequence[PtychoDataContainer], config: TrainingConfig, generators: Sequence[Generator] = GENERATORS
) -> None:
    """Refuse scans that the config cannot be followed with, or that do not go together.

    Args:
        scans: at least one.
        config: of the training.
        generators: records of the engine's generators.

    Raises:
        ConfigError: held-out frames too few for groups of a fixed size, or a trainable scale of a calibrated probe.
        DataError: scans whose frames or numbers of modes differ, or a first scan without training frames.
    """
    first, record = scans[0], network_of(config.network, generators).record
    for number, scan in enumerate(scans):
        name, held = scan.raw.source.path or f"scan {number}", len(scan.heldout_frames)
        if record.fixed_group and 0 < held < config.group_size:
            raise ConfigError(
                f"generator {record.name!r} needs test groups of {config.group_size} frames, like its training groups, "
                f"but {name} has only {held} held-out frames; lower group_size or raise test_fraction."
            )
        if config.scale_trainable and scan.raw.probe_calibrated:
            raise ConfigError(
                f"scale_trainable = True, but the probe of {scan.raw.source.path or 'the scan'} is calibrated: it is "
                "in photons, and its scale is 1 and fixed. Leave scale_trainable out, or give the probe uncalibrated."
            )
        if scan.probe.shape != first.probe.shape:
            raise DataError(
                f"{name}: its probe is {scan.probe.shape}, that of the first scan is {first.probe.shape}; scans that "
                "are trained on together need frames of one size and as many modes (probe_modes)."
            )
    if not len(first.train_frames):
        raise DataError(f"{first.raw.source.path or 'scan'}: it has no training frames.")
    generator_shapes(config, first.raw.side, generators)  # before an engine asks for the memory of its weights


def training_scans(scans: Sequence[PtychoDataContainer]) -> list[PtychoDataContainer]:
    """Those of some scans that have frames to train on; the others are for the held-out loss alone."""
    return [scan for scan in scans if len(scan.train_frames)]


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


def scan_digest(scan: PtychoDataContainer) -> str:
    """A fingerprint of a scan as a training sees it.

    Of positions, propagation, all counts, roles, mask, background, the probe to start from and the statistics. Counts
    are read block by block, once; they are float32 whatever they are stored as, and bad pixels are 0, so nothing else
    tells in them.
    """
    raw, statistics, found = scan.raw, scan.statistics, hashlib.sha256()
    constants = np.array([statistics.mean_counts, statistics.scale])
    for array in (raw.positions_px, scan.role, raw.mask, raw.background, scan.probe, constants):
        found.update(b"none" if array is None else np.ascontiguousarray(array).tobytes())
    found.update(repr(raw.propagation).encode())
    for _, counts in raw.chunks():
        found.update(np.ascontiguousarray(counts).data)
    return found.hexdigest()[:16]


def run_facts(
    config: TrainingConfig, scans: Sequence[PtychoDataContainer], runtime: Runtime | None = None
) -> dict[str, Any]:
    """What decides a training, and so must be the same when it is resumed: plain JSON data, the same for every engine.

    Rates and decays among them: an optimiser takes them up from the checkpoint, whatever the config says by then.
    ``epochs`` is not: more of them may be asked for. A new field of the config is one until it is said to be none. Of
    the runtime two are: precision, and the number of devices, which each take groups of their own in a step.
    """
    runtime = runtime or Runtime()
    solver = {"algorithm": config.algorithm} if config.method == "solver" else {}
    settings = config_to_mapping(config).items()
    return {
        "scans": [scan_digest(scan) for scan in scans],
        **{name: value for name, value in settings if name not in _FREE_WHEN_RESUMED},
        **solver,
        "precision": runtime.precision,
        "devices": runtime.devices,
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
        ArchiveError: another network, probe, scan or setting, or more steps than are asked for. A training that has
            done them all is resumed to its own end: killed before its model was saved, it is not lost.
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
    if step > total_steps:
        raise ArchiveError(
            f"{path}: it has done {step} steps, more than the {total_steps} that are asked for; raise epochs to train "
            "on, or leave them as they were to take its result."
        )
