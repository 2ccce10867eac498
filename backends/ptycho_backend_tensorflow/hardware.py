"""What this machine can do: which devices, which precision, and where XLA is used."""

from __future__ import annotations

import functools
import os
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tensorflow as tf
from tensorflow.python.util import _pywrap_util_port  # where Intel's guide to TensorFlow asks whether oneDNN is on

from ptycho_core.enginekit.hardware import choose_accelerator
from ptycho_core.enginekit.processors import affinity, available_cpus
from ptycho_core.errors import ConfigError

from .tracing import traced

__all__ = ["Hardware", "Work", "choose_devices", "choose_hardware", "device_words", "settle_threads"]

XLA_PAYS_FOR_NETWORK = 3e7
"""Pixels × channels of a training from which compiling its step, about ten seconds, costs less than it saves."""

XLA_PAYS_FOR_SWEEPS = 5e7
"""Pixels × sweeps of a job from which compiling its solver sweeps, about one second, costs less than it saves."""

_BF16_CAPABILITY = (8, 0)
"""First CUDA compute capability that multiplies bfloat16 in hardware."""

_BF16_GAIN, _MEASURED_CALLS = 1.3, 8
"""How much faster a CPU that multiplies bfloat16 is at least: 1.8 times or more where it does, 0.4 to 1 elsewhere."""


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


def _threads() -> int:
    """Threads that an operation takes, or will: TensorFlow says 0 where it has not been told."""
    told: int = tf.config.threading.get_intra_op_parallelism_threads()
    variable = os.environ.get("TF_NUM_INTRAOP_THREADS", "")  # TensorFlow's own, which it reads when it starts
    return told or (int(variable) if variable.isdecimal() and int(variable) else len(affinity()))


def settle_threads(given: int | None) -> int:
    """See that operations take as many threads as asked for, and no more than this process may use.

    TensorFlow makes its threads when it is first used and keeps them, so nothing is measured. They sleep while they
    wait: all of them cost up to 1.4 times the time of one beside other work, and not the many times of those that spin.

    Args:
        given: ``Runtime.threads``; None takes what there is, or what other code has told TensorFlow.

    Returns:
        How many there are.

    Raises:
        ConfigError: TensorFlow is running in this process with another number.
    """
    present = _threads()
    wanted = min(present, available_cpus()) if given is None else given
    if wanted == present and given is None:
        return present
    try:
        # both: operations that need not wait for each other run at the same time, each with its threads
        tf.config.threading.set_inter_op_parallelism_threads(wanted)
        tf.config.threading.set_intra_op_parallelism_threads(wanted)
    except RuntimeError as error:  # it has been used, here or by other code
        if given is None or wanted == present:
            return present
        raise ConfigError(
            f"threads = {given}, but TensorFlow is running in this process with {present} already, and keeps them; "
            f"leave threads out, set it to {present}, or start a new process."
        ) from error
    return wanted


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


def device_words(accelerator: str) -> str:
    """The first GPU of :func:`choose_devices` in words; empty for the CPU."""
    device = choose_devices(accelerator)[0]
    if not _is_gpu(device):
        return ""
    number = int(device.rpartition(":")[2])
    details = tf.config.experimental.get_device_details(tf.config.get_visible_devices("GPU")[number])
    return f"cuda:{number} ({details.get('device_name', 'GPU')})"


def _is_gpu(device: str) -> bool:
    return tf.DeviceSpec.from_string(device).device_type == "GPU"


def _onednn_is_on() -> bool:
    """Whether convolutions on a CPU are oneDNN's, which TensorFlow decides by the processor and a switch of its own."""
    return bool(_pywrap_util_port.IsMklEnabled())


def _least_seconds(function: Callable[..., tf.Tensor], dtypes: Sequence[tf.DType]) -> list[float]:
    """Least processor seconds of a function of an image and a kernel in each type, of several calls taken in turns."""
    given = [(tf.ones((16, 16, 16, 64), dtype), tf.ones((3, 3, 64, 64), dtype)) for dtype in dtypes]
    seconds: list[list[float]] = [[] for _ in dtypes]
    for _ in range(_MEASURED_CALLS + 1):
        for arrays, found in zip(given, seconds, strict=True):
            start = time.process_time()
            function(*arrays)
            found.append(time.process_time() - start)
    return [min(found[1:]) for found in seconds]  # the first call makes the kernel


@functools.cache
def _cpu_multiplies_bf16() -> bool:
    """Whether convolutions in bfloat16 are fast here: measured, in a tenth of a second, once in a process.

    TensorFlow does not tell what its oneDNN may use of a processor. The system's list of features does not either: a
    sandbox or an older kernel leaves out what the processor has, and then a training took more than twice as long.
    """
    if not _onednn_is_on():
        return False
    convolve = traced(lambda image, kernel: tf.nn.conv2d(image, kernel, 1, "SAME"))
    try:
        single, reduced = _least_seconds(convolve, (tf.float32, tf.bfloat16))
    except tf.errors.OpError:  # oneDNN is held to fewer instructions than bfloat16 takes
        return False
    return single > _BF16_GAIN * reduced


def _gpu_multiplies_bf16() -> bool:
    details = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.get_visible_devices("GPU")]
    return all(tuple(detail.get("compute_capability", (0, 0))) >= _BF16_CAPABILITY for detail in details)


def _low_precision(precision: str, device: str) -> tf.DType | None:
    """bfloat16 where it was asked for, or where ``auto`` finds hardware that computes it faster; None is float32."""
    if precision == "32":
        return None
    if precision == "bf16":
        return tf.bfloat16
    if _is_gpu(device):
        return tf.bfloat16 if _gpu_multiplies_bf16() else None
    with tf.device(device):
        return tf.bfloat16 if _cpu_multiplies_bf16() else None


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
        compile_sweeps: whether XLA compiles solver sweeps; left to choose, on a CPU, where it fuses their many small
            operations.
        compile_network: whether XLA compiles the training step of a network; left to choose, on a CPU without oneDNN,
            where it wins with the gradients of convolutions. With oneDNN the plain step is the faster one.
    """

    devices: tuple[str, ...]
    low_precision: tf.DType | None
    compile_sweeps: bool
    compile_network: bool


def choose_hardware(accelerator: str, precision: str, work: Work, n_devices: int = 1, *, jit: str = "auto") -> Hardware:
    """Decide once for a job. GPUs work without XLA unless told otherwise, since it has never been measured on one.

    Args:
        accelerator: as in a runtime.
        precision: as in a runtime.
        work: how much there is to do.
        n_devices: how many devices.
        jit: as in ``TensorflowOptions``.

    Raises:
        ConfigError: see :func:`choose_devices`.
    """
    devices = choose_devices(accelerator, n_devices)
    reduced = _low_precision(precision, devices[0])
    if jit != "auto":
        return Hardware(devices, reduced, compile_sweeps=jit == "on", compile_network=jit == "on")
    on_cpu = not _is_gpu(devices[0])
    return Hardware(
        devices=devices,
        low_precision=reduced,
        compile_sweeps=on_cpu and work.pixels * work.sweeps >= XLA_PAYS_FOR_SWEEPS,
        compile_network=on_cpu
        and reduced is None
        and not _onednn_is_on()
        and work.pixels * work.channels >= XLA_PAYS_FOR_NETWORK,
    )
