"""Entry point of the TensorFlow engine: says what it is called and what it needs, and imports no framework."""

from __future__ import annotations

from dataclasses import replace

from ptycho_core.enginekit.shipped import NETWORK_CAPABILITIES
from ptycho_core.plugins.hookspecs import hookimpl
from ptycho_core.protocol import BackendSpec

__all__ = ["CAPABILITIES", "ptycho_backend"]

CAPABILITIES = replace(NETWORK_CAPABILITIES, accelerators=("auto", "cpu", "cuda"), ignored_fields=("runtime.strategy",))
"""What the engine can do: said here too, where no framework is imported."""


@hookimpl
def ptycho_backend() -> BackendSpec:
    """Describe the TensorFlow engine."""
    return BackendSpec(
        name="tensorflow",
        factory="ptycho_backend_tensorflow.backend:TensorFlowBackend",
        requires=("tensorflow",),
        extra="ptycho-core[tensorflow]",
        title="TensorFlow",
        protocol_version=2,
        capabilities=CAPABILITIES,
        options="ptycho_backend_tensorflow.options:TensorflowOptions",
        quiet_environment={"TF_CPP_MIN_LOG_LEVEL": "2"},
    )
