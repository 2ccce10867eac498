"""Entry point of the pty-chi engine: says what it is called and what it needs, and imports no framework."""

from __future__ import annotations

from ptycho_core.plugins.hookspecs import hookimpl
from ptycho_core.protocol import BackendSpec

__all__ = ["ptycho_backend"]


@hookimpl
def ptycho_backend() -> BackendSpec:
    """Describe the pty-chi engine."""
    return BackendSpec(
        name="ptychi",
        factory="ptycho_backend_ptychi.backend:PtychiBackend",
        requires=("torch", "ptychi"),
        extra="ptycho-core[ptychi]",
        title="pty-chi",
        protocol_version=2,
        options="ptycho_backend_ptychi.options:PtychiOptions",
    )
