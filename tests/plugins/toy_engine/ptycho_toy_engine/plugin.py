"""Entry point of the toy engine."""

from __future__ import annotations

from ptycho_core.plugins.hookspecs import hookimpl
from ptycho_core.protocol import BackendSpec

__all__ = ["ptycho_backend"]


@hookimpl
def ptycho_backend() -> BackendSpec:
    """Describe the toy engine."""
    return BackendSpec(
        name="toy",
        factory="ptycho_toy_engine.backend:ToyBackend",
        requires=("numpy",),
        extra="ptycho-toy-engine",
        title="Toy ePIE",
        protocol_version=2,
    )
