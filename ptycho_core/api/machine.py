"""What a job works on, in words; and hardware that is not there, told before a framework is imported."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ..enginekit.processors import available_cpus
from ..errors import ConfigError
from ..limits import memory_left
from ..plugins.guard import engine_at_work
from ..plugins.registry import LoadedBackend
from ..protocol import SupportsDeviceWords
from ..runtime import Runtime

__all__ = ["machine_words", "refuse_absent"]

_GPU_DRIVERS = ("dev/nvidiactl", "dev/nvidia0", "proc/driver/nvidia/version", "dev/kfd", "dev/dxg")
"""Files of which a Linux with a driver for a GPU has at least one: NVIDIA's, AMD's, and Windows' below Linux."""


def refuse_absent(accelerator: str, engine: str, *, root: Path = Path("/"), platform: str = sys.platform) -> None:
    """Refuse an accelerator that this machine cannot have; whether one that it may have works, its framework says.

    Args:
        accelerator: as in a :class:`~ptycho_core.runtime.Runtime`.
        engine: name of the engine that is to use it.
        root: of the file system in which drivers are looked for.
        platform: as Python calls it.

    Raises:
        ConfigError: there is no driver for it here.
    """
    why = ""
    if accelerator == "mps" and platform != "darwin":
        why = "it is the GPU of a Mac, and this is none"
    if accelerator == "cuda" and platform == "darwin":
        why = "a Mac has none; its GPU is called mps"
    if accelerator == "cuda" and platform == "linux" and not any((root / name).exists() for name in _GPU_DRIVERS):
        why = "no driver for a GPU was found"
    if why:
        raise ConfigError(
            f"engine '{engine}': accelerator = {accelerator!r} is not available here: {why}. Use 'cpu' or leave it out."
        )


def machine_words(jobs: Sequence[tuple[LoadedBackend, Runtime]]) -> str:
    """Engines and what they work on: ``pytorch on cuda:0 (NVIDIA H100), 80 GB``, ``numpy, up to 2 threads, …``.

    Args:
        jobs: engines, each with its runtime; those that work on the same are told together.

    Raises:
        ConfigError: an engine finds that the accelerator is not there.
    """
    on: dict[str, list[str]] = {}
    for engine, runtime in jobs:
        on.setdefault(_place(engine, runtime), []).append(engine.name)
    return "; ".join(f"{' and '.join(dict.fromkeys(names))}{place}" for place, names in on.items())


def _place(engine: LoadedBackend, runtime: Runtime) -> str:
    """What an engine works on, to stand after its name."""
    if isinstance(engine.backend, SupportsDeviceWords):
        with engine_at_work(engine.name, "device_words"):
            device = engine.backend.device_words(runtime)
        if device:
            return f" on {device}"
    words = [""]
    if runtime.threads is not None:
        words.append(f"{runtime.threads} thread{'s' if runtime.threads > 1 else ''}")
    elif engine.capabilities.threads:
        most = available_cpus()
        words.append(f"up to {most} threads" if most > 1 else "1 thread")
    left = memory_left()
    return ", ".join([*words, *([] if left is None else [f"{left / 1e9:.0f} GB memory free"])])
