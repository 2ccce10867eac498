"""What this machine can do: which devices, which precision, and where XLA is used."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

from ptycho_core.enginekit.hardware import choose_accelerator, onednn_may_use_bf16
from ptycho_core.errors import ConfigError

__all__ = ["Hardware", "Work", "choose_devices", "choose_hardware"]

XLA_PAYS_FOR_NETWORK = 3e7
"""Pixels × channels of a training from which compiling its step, about ten seconds, costs less than it saves."""

XLA_PAYS_FOR_SWEEPS = 5e7
"""Pixels × sweeps of a job from which compiling its solver sweeps, about one second, costs less than it saves."""

_BF16_CAPABILITY = (8, 0)
"""First CUDA compute capability that multiplies bfloat16 in hardware."""


def _leave_memory_to_others(gpu: tf.config.PhysicalDevice) -> None:
    """Have TensorFlow take a GPU's memory as it needs it; by default it takes all at once."""
    if tf.config.experimental.get_memory_growth(gpu):
        return
    try:
        tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError:  # TensorFlow is running already, and its devices are fixed
        warnings.warn(
            f"{gpu.name}: TensorFlow was started by other code that let it take all memory of this GPU, so other "
            "programs on it may find none. To avoid that, call tf.config.experimental.set_memory_growth(gpu, True) "
            "before TensorFlow is first used.",
            UserWarning,
            stacklevel=4,
        )


def choose_devices(accelerator: str, n_devices: int = 1) -> tuple[str, ...]:
    """Names of the devices to work on; ``auto`` takes GPUs where there are any.

    Args:
        accelerator: as in a config.
        n_devices: how many.

    Raises:
        ConfigError: the accelerator, or so many devices, are not there. Nothing falls back to the CPU silently.
    """
    physical, visible = tf.config.list_physical_devices("GPU"), tf.config.get_visible_devices("GPU")
    for gpu in visible:  # also for a job on the CPU: whatever lists the devices first fixes how they are used
        _leave_memory_to_others(gpu)
    if accelerator == "cuda" and physical and not visible:
        raise ConfigError(
            f"accelerator = 'cuda', and this machine has {len(physical)} GPU(s), but this process has hidden them from "
            "TensorFlow (tf.config.set_visible_devices), which cannot be undone once it is running; start a new "
            "process, or set accelerator = 'cpu'."
        )
    kind = {"cpu": "CPU", "cuda": "GPU"}[
        choose_accelerator(accelerator, {"cpu": True, "cuda": bool(visible)}, "TensorFlow")
    ]
    names = [device.name for device in tf.config.list_logical_devices(kind)]
    if n_devices > len(names):
        raise ConfigError(
            f"devices = {n_devices}, but TensorFlow has {len(names)} {kind} device(s) here ({', '.join(names)}); "
            f"set devices to at most {len(names)}. All cores are one device, unless the program has divided "
            "them with tf.config.set_logical_device_configuration."
        )
    return tuple(names[:n_devices])


def _is_gpu(device: str) -> bool:
    return tf.DeviceSpec.from_string(device).device_type == "GPU"


def _cpu_has(*features: str) -> bool:
    """Whether the processor has any of some features; Linux tells, elsewhere the answer is no."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").split()
    except OSError:
        return False
    return not set(features).isdisjoint(flags)


def _onednn_is_on() -> bool:
    """Whether TensorFlow uses oneDNN: what its own switch says, else on processors made for neural networks."""
    switch = os.environ.get("TF_ENABLE_ONEDNN_OPTS", "").lower()
    if switch in ("0", "false", "1", "true"):
        return switch in ("1", "true")
    return _cpu_has("avx512_vnni", "avx512_bf16", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16")


def _cpu_multiplies_bf16() -> bool:
    """Whether convolutions in bfloat16 are fast: by oneDNN, with instructions that the processor has and it may use."""
    return _cpu_has("avx512_bf16", "amx_bf16") and _onednn_is_on() and onednn_may_use_bf16(os.environ)


def _gpu_multiplies_bf16() -> bool:
    details = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.get_visible_devices("GPU")]
    return all(tuple(detail.get("compute_capability", (0, 0))) >= _BF16_CAPABILITY for detail in details)


def _low_precision(precision: str, device: str) -> tf.DType | None:
    """bfloat16 where it was asked for, or where ``auto`` finds hardware that computes it faster; None is float32."""
    if precision == "32":
        return None
    if precision == "bf16" or (_gpu_multiplies_bf16() if _is_gpu(device) else _cpu_multiplies_bf16()):
        return tf.bfloat16
    return None


@dataclass(frozen=True)
class Work:
    """How much there is to do, which decides whether compiling pays.

    Attributes:
        pixels: N² times the frames of all steps of the job.
        channels: of the network at full resolution where it is trained; 0 where it is only applied.
        sweeps: solver sweeps before the network.
    """

    pixels: int
    channels: int
    sweeps: int


@dataclass(frozen=True)
class Hardware:
    """Where to work, and how; figures behind the choices are in docs/which-engine.md.

    Attributes:
        devices: names of the devices.
        low_precision: of the generator's body; None is float32.
        compile_sweeps: whether XLA compiles solver sweeps: on a CPU, where it fuses their many small operations.
        compile_network: whether XLA compiles the training step of a network: on a CPU without oneDNN, where it wins
            with the gradients of convolutions. With oneDNN the plain step is the faster one.
    """

    devices: tuple[str, ...]
    low_precision: tf.DType | None
    compile_sweeps: bool
    compile_network: bool


def choose_hardware(accelerator: str, precision: str, work: Work, n_devices: int = 1) -> Hardware:
    """Decide once for a job. GPUs work without XLA, since it has never been measured on one.

    Args:
        accelerator: as in a config.
        precision: as in a config.
        work: how much there is to do.
        n_devices: how many devices.

    Raises:
        ConfigError: see :func:`choose_devices`.
    """
    devices = choose_devices(accelerator, n_devices)
    reduced, on_cpu = _low_precision(precision, devices[0]), not _is_gpu(devices[0])
    return Hardware(
        devices=devices,
        low_precision=reduced,
        compile_sweeps=on_cpu and work.pixels * work.sweeps >= XLA_PAYS_FOR_SWEEPS,
        compile_network=on_cpu
        and reduced is None
        and not _onednn_is_on()
        and work.pixels * work.channels >= XLA_PAYS_FOR_NETWORK,
    )
