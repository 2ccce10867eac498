"""Training checkpoints: safetensors with plain JSON beside, for engines without a safe format of their own.

One file: named arrays, and a metadata entry ``ptycho_checkpoint`` with JSON: which engine wrote it and whatever plain
values it needs to go on. Nothing in it is code.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ArchiveError
from ..io.atomic import ensure_output_folder, write_bytes
from ..io.regular import check_regular

__all__ = [
    "CHECKPOINT_SECONDS",
    "CheckpointPace",
    "Found",
    "checkpoint_backend",
    "checkpoints_in",
    "read_checkpoint",
    "refuse_foreign",
    "write_checkpoint",
]

_KEY = "ptycho_checkpoint"

CHECKPOINT_SECONDS = 30.0
"""Work that a killed process may lose; an epoch's where that takes longer and the engine keeps none on the way."""

_SHARE = 0.05
"""Part of the time that may be spent on writing sooner than that."""


class CheckpointPace:
    """When a training writes its checkpoint: after the first epoch, and again after 30 s, or sooner while it is cheap.

    Args:
        write: writes the checkpoint as the training stands.
        clock: seconds; for tests.

    Attributes:
        current: whether the checkpoint is of the last epoch that was told of.
    """

    def __init__(self, write: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write, self._clock = write, clock
        self._began = self._ended = clock()
        self._spent = 0.0
        self.current = False

    def after_epoch(self) -> None:
        """Write the checkpoint if it is due; call it after each epoch, before anyone is told of the epoch."""
        now, self.current = self._clock(), False
        if now - self._ended >= CHECKPOINT_SECONDS or self._spent <= _SHARE * (now - self._began):
            self.now()

    def now(self) -> None:
        """Write the checkpoint, unless it is of this epoch already: at the end, and before an interruption goes on."""
        if self.current:
            return
        started = self._clock()
        self._write()
        self._ended = self._clock()
        self._spent += self._ended - started
        self.current = True


def write_checkpoint(path: Path, backend: str, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically.

    Args:
        path: file; its folder is made where it is missing.
        backend: name of the engine.
        arrays: name → array.
        facts: plain JSON data.

    Raises:
        OutputError: the file cannot be written; an older one is still there.
    """
    from safetensors.numpy import save

    ensure_output_folder(path.parent)
    plain = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    write_bytes(path, save(plain, metadata={_KEY: json.dumps({"backend": backend, "facts": facts})}))


def _content(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Arrays and the JSON entry; an empty one where the file is a safetensors file of another kind."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        entry = json.loads((file.metadata() or {}).get(_KEY, "{}"))
        return {name: file.get_tensor(name) for name in file.keys()}, entry  # noqa: SIM118 (not a mapping)


def checkpoint_backend(path: Path) -> str | None:
    """Name of the engine that wrote a checkpoint in this format, or None for a file of another format."""
    from safetensors import safe_open

    try:
        check_regular(path, ArchiveError)  # one that is a pipe would be waited for
        with safe_open(path, framework="numpy") as file:
            name = json.loads((file.metadata() or {})[_KEY])["backend"]
    except Exception:  # it is asked of any file, and safetensors raises many kinds
        return None
    return name if isinstance(name, str) else None


@dataclass(frozen=True)
class Found:
    """A checkpoint in a folder.

    Attributes:
        path: the file.
        backend: engine that wrote it.
        epochs: that it has done.
    """

    path: Path
    backend: str
    epochs: int

    def describe(self) -> str:
        """It in words."""
        after = "before the end of its first epoch" if self.epochs == 0 else f"after {self.epochs} epochs"
        return f"the checkpoint {self.path} (engine {self.backend!r}, {after.replace('1 epochs', '1 epoch')})"


def checkpoints_in(folder: Path) -> list[Found]:
    """Checkpoints in this format in a training folder, the newest first; whatever else lies there is left alone."""
    found = []
    for path in [*folder.glob("*.safetensors"), *folder.glob("*.ckpt"), *folder.glob("checkpoints/*.ckpt")]:
        backend = None if path.name.startswith(".") or not path.is_file() else checkpoint_backend(path)
        if backend is not None:
            found.append((path.stat().st_mtime_ns, Found(path, backend, _epochs_in(path))))
    return [one for _, one in sorted(found, key=lambda pair: pair[0], reverse=True)]


def _epochs_in(path: Path) -> int:
    """Epochs in the history that a checkpoint holds, wherever its engine keeps it; 0 where there is none."""
    from safetensors import safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            facts = json.loads((file.metadata() or {})[_KEY])["facts"]
        state = facts.get("state", facts)
        return max((len(values) for values in state["history"].values()), default=0)
    except Exception:  # as in checkpoint_backend; other engines keep what they like there
        return 0


def refuse_foreign(path: Path, backend: str) -> None:
    """Refuse a checkpoint in this format of another engine; any other file is none of its business.

    Raises:
        ArchiveError: it is one; both engines are named.
    """
    maker = checkpoint_backend(path)
    if maker is not None and maker != backend:
        raise ArchiveError(
            f"{path}: a checkpoint of engine {maker!r}, which engine {backend!r} cannot go on from; "
            f"resume with backend = {maker!r}. A finished model bundle can be used by both."
        )


def read_checkpoint(path: Path, backend: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read the arrays and facts of a checkpoint of one engine.

    Raises:
        ArchiveError: missing, damaged, of another format, or of another engine; both are then named.
    """
    check_regular(path, ArchiveError, what="a checkpoint")
    if not os.path.exists(path):  # unlike Path.exists, it does not raise for a name that cannot be one
        raise ArchiveError(
            f"{path}: no such checkpoint; give resume_from a file from a training folder. A training that ended before "
            "its first epoch did has left none: begin anew, without resume_from."
        )
    try:
        arrays, entry = _content(path)
    except Exception as error:  # safetensors, json and the file system raise many kinds for a damaged or foreign file
        raise ArchiveError(
            f"{path}: not a checkpoint that can be read safely by engine {backend!r} ({type(error).__name__}); if "
            "another engine made it, resume with that one."
        ) from error
    made = isinstance(entry, dict) and isinstance(entry.get("backend"), str) and isinstance(entry.get("facts"), dict)
    if not made:
        raise ArchiveError(f"{path}: not a training checkpoint; give resume_from a file from a training folder.")
    refuse_foreign(path, backend)
    return arrays, entry["facts"]
