"""Which engine is behind the client: ``PTYCHO_BACKEND``, the only environment variable of the adapter, or a rule."""

from __future__ import annotations

import os
from pathlib import Path

from ptycho_core import available_backends
from ptycho_core.errors import BackendUnavailableError

__all__ = ["VARIABLE", "chosen_engine", "named_engine"]

VARIABLE = "PTYCHO_BACKEND"
"""Its value is the name of an engine (``numpy``, ``pytorch``, ``tensorflow``, …); ``auto`` is the same as none."""

_NETWORKS = ("pytorch", "tensorflow")
_GPU = Path("/dev/nvidiactl")


def named_engine() -> str | None:
    """The engine that the variable names, or None."""
    name = os.environ.get(VARIABLE, "").strip()
    return None if name in ("", "auto") else name


def chosen_engine(*, network: bool) -> tuple[str, str]:
    """The engine, and why, in words.

    A solver is fastest without a framework to start, unless there is a GPU; a network needs a framework.

    Args:
        network: whether a network is to be trained.

    Raises:
        BackendUnavailableError: none that can is installed.
    """
    name = named_engine()
    if name is not None:
        return name, f"named by {VARIABLE}"
    order: tuple[str, ...]
    ready = {engine.name for engine in available_backends() if engine.state == "ready"}
    if network:
        order, why = _NETWORKS, "the first installed one that trains networks"
    elif _GPU.exists() and ready & set(_NETWORKS):
        order, why = _NETWORKS, "for the GPU"
    else:
        order, why = ("numpy", *_NETWORKS), "no framework has to start"
    for engine in order:
        if engine in ready:
            return engine, why
    raise BackendUnavailableError(
        f"no engine for this is installed ({', '.join(order)}); install one with: pip install 'ptycho-core[torch]'"
    )
