"""Entry point of the PyTorch engine: says what it is called and what it needs, and imports no framework."""

from __future__ import annotations

from ptycho_core.data.propagation import PROPAGATIONS
from ptycho_core.plugins.hookspecs import hookimpl
from ptycho_core.protocol import BackendSpec, Capabilities

__all__ = ["CAPABILITIES", "ptycho_backend"]

CAPABILITIES = Capabilities(
    methods=("solver", "network"),
    generators=("probe_unet", "unrolled", "cnn"),
    losses=("poisson", "amplitude"),
    propagations=PROPAGATIONS,
    max_scans=None,
    mask=True,
    background=True,
    probe_trainable=True,
    scale_trainable=True,
    stepping=True,
    preview=True,
    refine_positions=True,
    position_affine=True,
    probe_constraints=True,
    frame_scale=True,
    resume=True,
    precisions=("auto", "32", "bf16"),
    accelerators=("auto", "cpu", "cuda", "mps"),
    schedules=("one_cycle", "cosine", "exponential", "constant"),
    loggers=("tensorboard", "mlflow"),
    max_devices=None,
    threads=True,
)
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
