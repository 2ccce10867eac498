"""Which accelerator a name means, and what a processor may be used for, once for all engines."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import ConfigError

__all__ = ["choose_accelerator", "onednn_may_use_bf16"]

_WITHOUT_BF16 = frozenset({"sse41", "avx", "avx2", "avx2_vnni", "avx2_vnni_2", "avx512_core", "avx512_core_vnni"})
"""What oneDNN's switch can hold its library to that does not multiply bfloat16 in hardware."""


def choose_accelerator(accelerator: str, present: Mapping[str, bool], framework: str) -> str:
    """The accelerator to use; ``auto`` takes the best there is.

    Args:
        accelerator: as in a config.
        present: accelerators that the framework knows, best last, and whether each is here.
        framework: its name, for the message.

    Raises:
        ConfigError: the accelerator asked for is not there. Nothing falls back to the CPU silently.
    """
    there = [name for name, here in present.items() if here]
    if accelerator == "auto":
        return there[-1]
    if accelerator not in there:
        raise ConfigError(
            f"accelerator = {accelerator!r} is not available to {framework} here; available: {', '.join(there)}."
        )
    return accelerator


def onednn_may_use_bf16(environment: Mapping[str, str]) -> bool:
    """Whether oneDNN, which convolves on a CPU for PyTorch and TensorFlow, may use a processor's bfloat16.

    The library can be held to fewer instructions than the processor has by a switch of its own, ``ONEDNN_MAX_CPU_ISA``
    (``DNNL_MAX_CPU_ISA`` in its older versions), and neither framework tells what came of it.

    Args:
        environment: variables of the process.
    """
    switch = environment.get("ONEDNN_MAX_CPU_ISA") or environment.get("DNNL_MAX_CPU_ISA", "")
    return switch.lower() not in _WITHOUT_BF16
