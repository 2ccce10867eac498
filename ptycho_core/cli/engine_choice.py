"""Which engine a command takes where none is named: one that is installed, by a rule that it says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import BackendUnavailableError
from ..text import one_line

__all__ = ["with_engine"]

_NETWORKS = ("pytorch", "tensorflow")
_SOLVERS = ("numpy", *_NETWORKS, "ptychi")
"""The fastest first, measured on a CPU: a framework pays for its start, and is no quicker there."""

_OTHER_HARDWARE = ("cuda", "mps")


def with_engine(settings: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Settings that name their engine, and what to say of it in a line.

    An engine that is named is taken as it is. Else a network is trained by ``pytorch``, or by ``tensorflow`` where
    only that is installed; an image is solved by ``numpy``, or, where other hardware than the CPU is asked for, by one
    of the two that know it. Any other engine is taken only where none of this project is there.

    Args:
        settings: plain settings of a training, under their current names.

    Raises:
        BackendUnavailableError: none is installed; the message has the pip line.
    """
    named = settings.get("backend")
    if named not in (None, "auto"):
        return dict(settings), one_line(str(named), 100)
    method = settings.get("method")  # a solver with sizes of a network is for the settings to refuse
    network = method == "network" or (method != "solver" and settings.get("model") is not None)
    hardware = settings.get("accelerator")
    wanted = _NETWORKS if network or hardware in _OTHER_HARDWARE else _SOLVERS
    name = _installed(wanted, "trains a network" if network else "solves", strangers=not network)
    if network:
        why = "trains the network"
    elif hardware in _OTHER_HARDWARE:
        why = f"solves; the first that is installed for {hardware}"
    elif name == _SOLVERS[0]:
        why = "solves; the fastest on a CPU"
    else:
        why = "solves; the first engine that is installed"
    return {**settings, "backend": name}, f"{name} {why} (--backend names another)"


def _installed(wanted: tuple[str, ...], does: str, *, strangers: bool) -> str:
    """The first engine that is ready; where `strangers` may do it, any other after those of this project.

    Raises:
        BackendUnavailableError: none is.
    """
    from ..plugins.registry import INSTALL_ONE, available_backends

    engines = {engine.name: engine for engine in available_backends()}
    ready = [name for name, engine in engines.items() if engine.state == "ready"]
    order: list[str] = [*wanted, *(sorted(ready) if strangers else ())]
    for name in order:
        if name in ready:
            return name
    faults = [f"{name} is {engines[name].state}: {engines[name].detail}" for name in wanted if name in engines]
    raise BackendUnavailableError(
        f"no engine that {does} is installed; install one with: {INSTALL_ONE}"
        + "".join(f" ({fault.rstrip('.')})" for fault in faults)
    )
