"""Entry point of the TensorFlow engine: says what it is called and what it needs, and imports no framework."""

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
    accelerators=("auto", "cpu", "cuda"),
    schedules=("one_cycle", "cosine", "exponential", "constant"),
    loggers=("tensorboard", "mlflow"),
    max_devices=None,
    threads=True,
    ignored_fields=("runtime.strategy",),
)
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
