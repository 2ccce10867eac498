"""Entry point of the NumPy engine: says what it is called and what it needs."""

from __future__ import annotations

from ptycho_core.plugins.hookspecs import hookimpl
from ptycho_core.protocol import BackendSpec

__all__ = ["ptycho_backend"]


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
    )
