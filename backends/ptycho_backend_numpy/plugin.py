"""Entry point of the NumPy engine: says what it is called and what it needs."""

from __future__ import annotations

from dataclasses import replace

from ptycho_core.enginekit.shipped import SOLVER_CAPABILITIES
from ptycho_core.plugins.hookspecs import hookimpl
from ptycho_core.protocol import BackendSpec

__all__ = ["CAPABILITIES", "ptycho_backend"]

CAPABILITIES = replace(SOLVER_CAPABILITIES, precisions=("auto", "32", "64"))
"""What the engine can do: said here too, where no framework is imported."""


@hookimpl
def ptycho_backend() -> BackendSpec:
    """Describe the NumPy engine."""
    return BackendSpec(
        name="numpy",
        factory="ptycho_backend_numpy.backend:NumpyBackend",
        requires=("numpy", "scipy"),
        extra="ptycho-core",
        title="NumPy",
        protocol_version=2,
        capabilities=CAPABILITIES,
    )
