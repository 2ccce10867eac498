"""Ptychography with any reconstruction engine behind one interface.

The public names below are imported when first used, so that ``import ptycho_core`` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import (
        ensure_container,
        load_model,
        prepare_scan,
        reconstruct,
        run_cdi_example,
        save_model,
        train_cdi_model,
    )
    from .config import EngineOptions, InferenceConfig, ModelConfig, RefinementConfig, TrainingConfig
    from .config_mapping import config_from_mapping, config_to_mapping
    from .data.container import PtychoDataContainer, Statistics
    from .data.raw import Geometry, ObjectGuess, RawData, Source
    from .data.results import CdiResult, CdiResults, Reconstruction, Refined
    from .errors import (
        ArchiveError,
        BackendConflictError,
        BackendError,
        BackendFaultError,
        BackendImportError,
        BackendProtocolError,
        BackendUnavailableError,
        Cancelled,
        CollapseError,
        ConfigError,
        DataError,
        EvaluationError,
        MissingPackageError,
        OutputError,
        PtychoError,
        UnknownBackendError,
    )
    from .io import read_scan, write_scan
    from .plugins.registry import BackendStatus, available_backends, backend_spec, load_backend
    from .protocol import (
        PROTOCOL_VERSION,
        BackendSpec,
        Capabilities,
        ProgressEvent,
        ReconstructionBackend,
        TrainedModel,
    )
    from .refinement.facade import refine
    from .refinement.image import heldout_frames

_HOMES: dict[str, tuple[str, ...]] = {
    "api": (
        "ensure_container",
        "load_model",
        "prepare_scan",
        "reconstruct",
        "run_cdi_example",
        "save_model",
        "train_cdi_model",
    ),
    "config": (
        "EngineOptions",
        "InferenceConfig",
        "ModelConfig",
        "RefinementConfig",
        "TrainingConfig",
    ),
    "config_mapping": ("config_from_mapping", "config_to_mapping"),
    "data.container": ("PtychoDataContainer", "Statistics"),
    "data.raw": ("Geometry", "ObjectGuess", "RawData", "Source"),
    "data.results": ("CdiResult", "CdiResults", "Reconstruction", "Refined"),
    "errors": (
        "ArchiveError",
        "BackendConflictError",
        "BackendError",
        "BackendFaultError",
        "BackendImportError",
        "BackendProtocolError",
        "BackendUnavailableError",
        "Cancelled",
        "CollapseError",
        "ConfigError",
        "DataError",
        "EvaluationError",
        "MissingPackageError",
        "OutputError",
        "PtychoError",
        "UnknownBackendError",
    ),
    "io": ("read_scan", "write_scan"),
    "plugins.registry": ("BackendStatus", "available_backends", "backend_spec", "load_backend"),
    "protocol": (
        "PROTOCOL_VERSION",
        "BackendSpec",
        "Capabilities",
        "ProgressEvent",
        "ReconstructionBackend",
        "TrainedModel",
    ),
    "refinement.facade": ("refine",),
    "refinement.image": ("heldout_frames",),
}

__all__ = [
    "PROTOCOL_VERSION",
    "ArchiveError",
    "BackendConflictError",
    "BackendError",
    "BackendFaultError",
    "BackendImportError",
    "BackendProtocolError",
    "BackendSpec",
    "BackendStatus",
    "BackendUnavailableError",
    "Cancelled",
    "Capabilities",
    "CdiResult",
    "CdiResults",
    "CollapseError",
    "ConfigError",
    "DataError",
    "EngineOptions",
    "EvaluationError",
    "Geometry",
    "InferenceConfig",
    "MissingPackageError",
    "ModelConfig",
    "ObjectGuess",
    "OutputError",
    "ProgressEvent",
    "PtychoDataContainer",
    "PtychoError",
    "RawData",
    "Reconstruction",
    "ReconstructionBackend",
    "Refined",
    "RefinementConfig",
    "Source",
    "Statistics",
    "TrainedModel",
    "TrainingConfig",
    "UnknownBackendError",
    "available_backends",
    "backend_spec",
    "config_from_mapping",
    "config_to_mapping",
    "ensure_container",
    "heldout_frames",
    "load_backend",
    "load_model",
    "prepare_scan",
    "read_scan",
    "reconstruct",
    "refine",
    "run_cdi_example",
    "save_model",
    "train_cdi_model",
    "write_scan",
]


def __getattr__(name: str) -> Any:
    """Import the module that holds a public name."""
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
