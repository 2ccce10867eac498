"""Processors that this machine need not have: a test says which one it is about, so that none asks what it runs on."""

from __future__ import annotations

import functools
from typing import NamedTuple

import pytest

from ptycho_backend_tensorflow import hardware

__all__ = ["AMX", "AVX2", "AVX512", "Processor", "processor"]


class Processor(NamedTuple):
    """What TensorFlow makes of a processor.

    Attributes:
        onednn: whether it convolves with oneDNN, as on processors made for neural networks.
        speed: of convolutions in bfloat16, beside those in float32.
    """

    onednn: bool
    speed: float


AVX2, AVX512, AMX = Processor(False, 0.9), Processor(True, 0.5), Processor(True, 1.7)
"""Without oneDNN; with it, where bfloat16 is made of other instructions; and where the processor multiplies it."""


def processor(monkeypatch: pytest.MonkeyPatch, has: Processor) -> None:
    """Let the engine choose as on this processor."""
    afresh = functools.cache(hardware._cpu_multiplies_bf16.__wrapped__)
    monkeypatch.setattr(hardware, "_cpu_multiplies_bf16", afresh)
    monkeypatch.setattr(hardware, "_onednn_is_on", lambda: has.onednn)
    monkeypatch.setattr(hardware, "_least_seconds", lambda *_: [1.0, 1.0 / has.speed])
