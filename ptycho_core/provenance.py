"""Where a result came from: versions, machine, data, config and time, as plain JSON data."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .config import TrainingConfig
from .config_mapping import config_to_mapping
from .data.raw import Source
from .enginekit.processors import available_cpus
from .runtime import Runtime, runtime_to_mapping

__all__ = ["collect_provenance", "machine", "package_versions"]

CORE_PACKAGES = ("ptycho-core", "numpy", "scipy", "h5py", "safetensors", "scikit-image")


def package_versions(packages: Iterable[str] = ()) -> dict[str, str]:
    """Versions of the core packages and of others, from their metadata; nothing is imported.

    Args:
        packages: further distribution or top-level module names, e.g. what an engine requires.

    Returns:
        name → version; those not installed are left out. A module that another distribution brings (``tensorflow`` in
        ``tensorflow-cpu``) stands under the distribution's name.
    """
    out: dict[str, str] = {}
    for name in (*CORE_PACKAGES, *packages):
        try:
            out[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # perhaps a module that comes in a distribution of another name
            for distribution in importlib.metadata.packages_distributions().get(name, ()):
                out[distribution] = importlib.metadata.version(distribution)
    return out


def _processor() -> str:
    """Name of the processor; Linux tells it only in a file."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def machine() -> dict[str, Any]:
    """Python, system, processor and the number of processors this process may use; no names of host or user."""
    return {
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
        "platform": platform.platform(),
        "processor": _processor(),
        "processors": available_cpus(),
    }


def collect_provenance(
    config: TrainingConfig,
    sources: Sequence[Source],
    *,
    runtime: Runtime | None = None,
    engine_packages: Iterable[str] = (),
    now: datetime | None = None,
) -> dict[str, Any]:
    """Bind what is needed to repeat a run.

    Args:
        config: as used.
        sources: of the scans, the first trained on.
        runtime: what did the work; None is the default one.
        engine_packages: what the engine requires, for their versions.
        now: time to record; None records the present.

    Returns:
        ``time_utc``, ``versions``, ``machine``, ``seed``, ``data`` (the first source), ``further_data`` (the others),
        ``config``, ``runtime``: plain JSON data.
    """
    return {
        "time_utc": (now or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds"),
        "versions": package_versions(engine_packages),
        "machine": machine(),
        "seed": config.seed,
        "data": dataclasses.asdict(sources[0]),
        "further_data": [dataclasses.asdict(source) for source in sources[1:]],
        "config": config_to_mapping(config),
        "runtime": runtime_to_mapping(runtime or Runtime()),
    }
