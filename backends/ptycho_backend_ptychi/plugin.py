"""Entry point of the pty-chi engine: says what it is called and what it needs, and imports no framework."""

from __future__ import annotations

from ptycho_core.plugins.hookspecs import hookimpl
from ptycho_core.protocol import OPTIMISER_FIELDS, BackendSpec, Capabilities

__all__ = ["CAPABILITIES", "ptycho_backend"]

CAPABILITIES = Capabilities(
    losses=("amplitude", "poisson"),
    mask=True,
    background=False,
    probe_trainable=True,
    refine=True,
    refine_positions=True,
    preview=True,
    resume=True,
    accelerators=("auto", "cpu", "cuda"),
    threads=True,
    ignored_fields=OPTIMISER_FIELDS,
)
"""What the engine can do: said here too, where no framework is imported."""


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
        capabilities=CAPABILITIES,
        options="ptycho_backend_ptychi.options:PtychiOptions",
    )
