"""The engines' tiny scans and configs, with the PyTorch engine in place."""

from __future__ import annotations

from typing import Any

from engines import engine_scans
from engines.engine_scans import (
    CONFIG,
    EXACT,
    Settings,
    assert_same_model,
    differ,
    make_object,
    make_scan,
    vary,
    weights_of,
)

from ptycho_backend_torch.backend import TorchBackend
from ptycho_core.data.raw import RawData
from ptycho_core.enginekit.network_model import NetworkModel

__all__ = [
    "CONFIG",
    "ENGINE",
    "EXACT",
    "assert_same_model",
    "differ",
    "make_object",
    "make_scan",
    "train",
    "vary",
    "weights_of",
]

ENGINE = TorchBackend()


def train(raw: RawData, settings: Settings, test: RawData | None = None, **more: Any) -> NetworkModel:
    """Train the PyTorch engine on a scan."""
    return engine_scans.train(ENGINE, raw, settings, test, **more)
