"""Processors that this machine need not have: a test says which one it is about, so that none asks what it runs on."""

from __future__ import annotations

import pytest

from ptycho_backend_tensorflow import hardware

__all__ = ["AMX", "AVX2", "AVX512", "SWITCHES", "processor"]

AVX2 = frozenset({"avx", "avx2", "fma"})
AVX512 = AVX2 | {"avx512f", "avx512_vnni", "avx512_bf16"}
AMX = AVX512 | {"amx_tile", "amx_int8", "amx_bf16"}

SWITCHES = ("TF_ENABLE_ONEDNN_OPTS", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
"""What TensorFlow and oneDNN read from the environment to use less, or more, than they would on a processor."""


def processor(monkeypatch: pytest.MonkeyPatch, features: frozenset[str], **switches: str) -> None:
    """Let the engine choose as on a processor with these features, with the frameworks' switches set to these only."""
    monkeypatch.setattr(hardware, "_cpu_has", lambda *wanted: not features.isdisjoint(wanted))
    for name in SWITCHES:
        monkeypatch.delenv(name, raising=False)
    for name, value in switches.items():
        monkeypatch.setenv(name, value)
