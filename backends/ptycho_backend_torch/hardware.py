"""What this machine can do: which accelerator, which precision."""

from __future__ import annotations

import os

import torch

from ptycho_core.enginekit.hardware import choose_accelerator, onednn_may_use_bf16

__all__ = ["choose_device", "device_words", "low_precision"]


def choose_device(accelerator: str) -> torch.device:
    """The device of an accelerator's name; ``auto`` takes the best there is.

    Raises:
        ConfigError: the accelerator asked for is not there. Nothing falls back to the CPU silently.
    """
    present = {"cpu": True, "mps": torch.backends.mps.is_available(), "cuda": torch.cuda.is_available()}
    return torch.device(choose_accelerator(accelerator, present, "PyTorch"))


def device_words(device: torch.device) -> str:
    """A GPU in words, with its memory; empty for the CPU."""
    if device.type != "cuda":
        return "" if device.type == "cpu" else device.type
    number = torch.cuda.current_device() if device.index is None else device.index
    found = torch.cuda.get_device_properties(number)
    return f"cuda:{number} ({found.name}), {found.total_memory / 1e9:.0f} GB"


def _cpu_multiplies_bf16() -> bool:
    """Whether convolutions in bfloat16 are fast: by oneDNN, with instructions that the processor has and it may use.

    ``ATEN_CPU_CAPABILITY`` changes nothing here: it holds PyTorch's own kernels to fewer instructions, and not oneDNN.
    """
    there = torch.cpu.get_capabilities()
    has = any(there.get(name, False) for name in ("amx_bf16", "avx512_bf16"))
    onednn = torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled
    return has and onednn and onednn_may_use_bf16(os.environ)


def low_precision(precision: str, device: torch.device) -> torch.dtype | None:
    """bfloat16 where it was asked for, or where ``auto`` finds hardware that computes it faster; None is float32."""
    if precision == "32":
        return None
    if precision == "bf16":
        return torch.bfloat16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else None
    if device.type == "cpu":
        return torch.bfloat16 if _cpu_multiplies_bf16() else None
    return None
