"""Entry point of the PyTorch engine: says what it is called and what it needs, and imports no framework."""

from __future__ import annotations

from dataclasses import replace

from ptycho_core.enginekit.shipped import NETWORK_CAPABILITIES
from ptycho_core.plugins.hookspecs import hookimpl
from ptycho_core.protocol import BackendSpec

__all__ = ["CAPABILITIES", "ptycho_backend"]

CAPABILITIES = replace(NETWORK_CAPABILITIES, accelerators=("auto", "cpu", "cuda", "mps"))
"""What the engine can do: said here too, where no framework is imported."""


@hookimpl
def ptycho_backend() -> BackendSpec:
    """Describe the PyTorch engine."""
    return BackendSpec(
        name="pytorch",
        factory="ptycho_backend_torch.backend:TorchBackend",
        requires=("torch", "lightning"),
        extra="ptycho-core[torch]",
        title="PyTorch",
        protocol_version=2,
        capabilities=CAPABILITIES,
    )
