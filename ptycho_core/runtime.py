"""Runtime: what does the work, and where. It is no part of a result: it stays out of models and their config.

Two runs of one config on two machines, or with more threads, are the same run. What did the work is stated in summary
and report.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .config_checks import check_choice, check_range, check_types
from .data.shown import card, settings_line

__all__ = ["DEFAULT_RUNTIME", "LOGGERS", "PRECISIONS", "RESUME_AUTO", "Runtime", "runtime_to_mapping"]

PRECISIONS = ("auto", "32", "64", "bf16")
LOGGERS = ("tensorboard", "mlflow")

RESUME_AUTO = Path("auto")
"""What ``resume_from`` says where a run takes up whatever one before it left, unless there is a file of that name."""


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Hardware, folders and trackers of a job.

    Attributes:
        accelerator: device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        devices: number of devices.
        strategy: distribution strategy, as the engine calls it. ``auto`` lets it choose.
        precision: ``auto``, ``32``, ``64`` where the engine can, or ``bf16`` for a network, whose propagation and loss
            stay float32.
        threads: CPU threads. None measures how many are fastest, up to the processors that this process may use, and
            again when the machine fills or empties.
        num_workers: processes or threads that read groups ahead. 0 reads when a step asks.
        frames_at_once: frames that a network predicts at once. It changes memory and speed, not the result.
        output_dir: folder for checkpoints, logs and the CSV history. None writes nothing.
        resume_from: checkpoint to go on from, or a folder: the newest one in it. ``auto`` goes on from what an
            interrupted run left in the folder of the results, and starts anew where there is nothing.
        loggers: extra trackers: ``tensorboard``, ``mlflow``.
    """

    accelerator: str = "auto"
    devices: int = 1
    strategy: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    num_workers: int = 0
    frames_at_once: int = 64
    output_dir: Path | None = None
    resume_from: Path | None = None
    loggers: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """One line: what differs from the defaults."""
        return settings_line(self)

    def _repr_html_(self) -> str:
        """A table for a notebook."""
        return card(self)

    def __post_init__(self) -> None:
        check_types(self)
        owner = "Runtime"
        for name in ("devices", "threads", "frames_at_once"):
            check_range(owner, name, getattr(self, name), 1)
        check_range(owner, "num_workers", self.num_workers, 0)
        check_choice(owner, "precision", self.precision, PRECISIONS)
        for logger in self.loggers:
            check_choice(owner, "loggers", logger, LOGGERS)


DEFAULT_RUNTIME = Runtime()
"""What does the work where nobody says anything."""


def runtime_to_mapping(runtime: Runtime) -> dict[str, Any]:
    """A runtime as plain JSON data."""
    plain = dataclasses.asdict(runtime)
    return (
        plain
        | {name: None if plain[name] is None else str(plain[name]) for name in ("output_dir", "resume_from")}
        | {"loggers": list(runtime.loggers)}
    )
