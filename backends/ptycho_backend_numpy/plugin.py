"""Entry point of the NumPy engine: says what it is called and what it needs."""

from __future__ import annotations

from ptycho_core.data.propagation import PROPAGATIONS
from ptycho_core.plugins.hookspecs import hookimpl
from ptycho_core.protocol import BackendSpec, Capabilities

__all__ = ["CAPABILITIES", "ptycho_backend"]

CAPABILITIES = Capabilities(
    methods=("solver",),
    losses=("poisson", "amplitude"),
    mask=True,
    background=True,
    probe_trainable=True,
    stepping=True,
    preview=True,
    refine_positions=True,
    position_affine=True,
    probe_constraints=True,
    frame_scale=True,
    propagations=PROPAGATIONS,
    resume=True,
    precisions=("auto", "32", "64"),
    threads=True,
)
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
