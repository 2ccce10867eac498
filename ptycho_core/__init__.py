"""Ptychography with any reconstruction engine behind one interface.

From a scan to an image and a verdict on it: ``run(read_scan(path), TrainingConfig())``. The public names
below are imported when first used, so that ``import ptycho_core`` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import errors
    from .api.apply import reconstruct
    from .api.centre import find_centre
    from .api.compare import compare, compare_images
    from .api.facade import run_cdi_example, train_cdi_model
    from .api.find_probe import find_probe
    from .api.judge import judge
    from .api.models import load_model, save_model
    from .api.observe import Observer
    from .api.orient import find_orientation
    from .api.prepare import ensure_container
    from .api.refine import refine
    from .api.run import run
    from .api.saved import load_run
    from .api.score import score
    from .api.train import train
    from .api.try_out import try_out
    from .config import EngineOptions, InferenceConfig, ModelConfig, RefinementConfig, TrainingConfig
    from .config_mapping import config_from_mapping, config_to_mapping
    from .data.container import PtychoDataContainer, Role, Statistics
    from .data.probe_guess import ProbeGuess
    from .data.propagation import Propagation
    from .data.raw import Geometry, ObjectGuess, RawData, Source
    from .data.results import CdiResult, CdiResults, Image, Refined, Scored
    from .data.run import Run, Stage
    from .data.verdict import Reason, Verdict
    from .io import read_scan, write_scan
    from .notebook.bar import ProgressBar
    from .physics.merit import Figures
    from .plugins.registry import BackendStatus, available_backends, backend_spec, load_backend
    from .presets import preset
    from .protocol import (
        PROTOCOL_VERSION,
        BackendSpec,
        Capabilities,
        ProgressEvent,
        ReconstructionBackend,
        TrainedModel,
    )
    from .runtime import Runtime
    from .simulation.scan import SimulationConfig
    from .simulation.scan import simulate_scan as simulate

_HOMES: dict[str, tuple[str, ...]] = {
    "api.apply": ("reconstruct",),
    "api.centre": ("find_centre",),
    "api.compare": ("compare", "compare_images"),
    "api.facade": ("run_cdi_example", "train_cdi_model"),
    "api.find_probe": ("find_probe",),
    "api.judge": ("judge",),
    "api.models": ("load_model", "save_model"),
    "api.observe": ("Observer",),
    "api.orient": ("find_orientation",),
    "api.prepare": ("ensure_container",),
    "api.refine": ("refine",),
    "api.run": ("run",),
    "api.saved": ("load_run",),
    "api.score": ("score",),
    "api.train": ("train",),
    "api.try_out": ("try_out",),
    "config": ("EngineOptions", "InferenceConfig", "ModelConfig", "RefinementConfig", "TrainingConfig"),
    "config_mapping": ("config_from_mapping", "config_to_mapping"),
    "data.container": ("PtychoDataContainer", "Role", "Statistics"),
    "data.probe_guess": ("ProbeGuess",),
    "data.propagation": ("Propagation",),
    "data.raw": ("Geometry", "ObjectGuess", "RawData", "Source"),
    "data.results": ("CdiResult", "CdiResults", "Image", "Refined", "Scored"),
    "data.run": ("Run", "Stage"),
    "data.verdict": ("Reason", "Verdict"),
    "io": ("read_scan", "write_scan"),
    "notebook.bar": ("ProgressBar",),
    "physics.merit": ("Figures",),
    "plugins.registry": ("BackendStatus", "available_backends", "backend_spec", "load_backend"),
    "protocol": (
        "PROTOCOL_VERSION",
        "BackendSpec",
        "Capabilities",
        "ProgressEvent",
        "ReconstructionBackend",
        "TrainedModel",
    ),
    "presets": ("preset",),
    "runtime": ("Runtime",),
    "simulation.scan": ("SimulationConfig",),
}
"""Module → public names that it holds."""

_RENAMED = {"simulate": ("simulation.scan", "simulate_scan")}
"""Public name → the module that holds it, and what it is called there."""

__all__ = [
    "PROTOCOL_VERSION",
    "BackendSpec",
    "BackendStatus",
    "Capabilities",
    "CdiResult",
    "CdiResults",
    "EngineOptions",
    "Figures",
    "Geometry",
    "Image",
    "InferenceConfig",
    "ModelConfig",
    "ObjectGuess",
    "Observer",
    "ProbeGuess",
    "ProgressBar",
    "ProgressEvent",
    "Propagation",
    "PtychoDataContainer",
    "RawData",
    "Reason",
    "ReconstructionBackend",
    "Refined",
    "RefinementConfig",
    "Role",
    "Run",
    "Runtime",
    "Scored",
    "SimulationConfig",
    "Source",
    "Stage",
    "Statistics",
    "TrainedModel",
    "TrainingConfig",
    "Verdict",
    "available_backends",
    "backend_spec",
    "compare",
    "compare_images",
    "config_from_mapping",
    "config_to_mapping",
    "ensure_container",
    "errors",
    "find_centre",
    "find_orientation",
    "find_probe",
    "judge",
    "load_backend",
    "load_model",
    "load_run",
    "preset",
    "read_scan",
    "reconstruct",
    "refine",
    "run",
    "run_cdi_example",
    "save_model",
    "score",
    "simulate",
    "train",
    "train_cdi_model",
    "try_out",
    "write_scan",
]


def __getattr__(name: str) -> Any:
    """Import the module that holds a public name."""
    if name == "errors":
        return importlib.import_module(".errors", __name__)
    if name == "__version__":
        from importlib.metadata import version

        return version("ptycho-core")
    if name in _RENAMED:
        module, own_name = _RENAMED[name]
        return getattr(importlib.import_module(f".{module}", __name__), own_name)
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
