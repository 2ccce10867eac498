"""Checkpoints of a training: pty-chi's state beside what decides the run, by the rule that every engine keeps."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import ArchiveError
from ptycho_core.networks.checkpoint import read_checkpoint, write_checkpoint
from ptycho_core.networks.training import HISTORY_FILE, check_resumable, write_history

__all__ = ["CHECKPOINT", "History", "leave_checkpoint", "take_checkpoint"]

CHECKPOINT = "ptychi_checkpoint.safetensors"
_ENGINE = "ptychi"

History = dict[str, list[float]]


def leave_checkpoint(
    path: Path, state: Mapping[str, NDArray[Any]], history: Mapping[str, list[float]], facts: Mapping[str, Any]
) -> None:
    """Write a checkpoint, and the history beside it.

    Args:
        path: file.
        state: of the solver, by name; see ``state.read_state``.
        history: name → one float an epoch.
        facts: what decides the run; see ``networks.training.run_facts``.
    """
    write_checkpoint(path, _ENGINE, state, {"run": dict(facts), "history": dict(history)})
    write_history(path.parent / HISTORY_FILE, history)


def take_checkpoint(
    path: Path, names: Collection[str], facts: Mapping[str, Any], epochs: int
) -> tuple[dict[str, NDArray[Any]], History]:
    """Read the solver's state and the history of a checkpoint that this run can go on from.

    Args:
        path: file.
        names: of the losses that this run has a history of.
        facts: what decides this run.
        epochs: that are asked for.

    Raises:
        ArchiveError: no checkpoint of this engine, one of another run, or more epochs than are asked for.
    """
    state, found = read_checkpoint(path, _ENGINE)
    run, history = found.get("run"), found.get("history")
    if not isinstance(run, dict):
        raise ArchiveError(
            f"{path}: it does not say which run it is of; train again, or give resume_from a file from a training "
            "folder."
        )
    steps = len(history["train_loss"]) if _is_history(history, names) else 0
    # the digest of a scan covers all that decides the shapes of object and probe: what differs is told by that
    check_resumable(path, ({}, {}), (run, facts), steps, epochs)
    if not steps:
        raise ArchiveError(
            f"{path}: its history must hold as many losses of {' and of '.join(names)}, and at least one; train again."
        )
    return state, history


def _is_history(history: Any, names: Collection[str]) -> bool:
    """Whether it is name → floats, as many of each, of the names that it must have."""
    if not isinstance(history, dict) or sorted(history) != sorted(names):
        return False
    lists = list(history.values())
    numbers = all(isinstance(v, list) and all(isinstance(x, float) for x in v) for v in lists)
    return numbers and len({len(v) for v in lists}) == 1 and bool(np.isfinite(lists).all())
