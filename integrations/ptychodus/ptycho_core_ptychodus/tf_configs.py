"""The three configs that the client's TensorFlow plugin builds, in its parent process and by keyword.

They are values to be pickled: constructing one checks nothing (N is 0 until the child knows it, and the child assigns
it), and every default is the one that ptychodus 1.7.0 sends. What they come to is for ``settings``.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["InferenceConfig", "ModelConfig", "TrainingConfig", "update_legacy_dict"]


@dataclass
class ModelConfig:
    """The network, in the client's words."""

    N: int = 64
    gridsize: int = 1
    n_filters_scale: int = 2
    model_type: str = "pinn"
    amp_activation: str = "sigmoid"
    object_big: bool = True
    probe_big: bool = True
    probe_mask: bool = False
    pad_object: bool = True
    probe_scale: float = 4.0
    gaussian_smoothing_sigma: float = 0.0


@dataclass
class TrainingConfig:
    """A training, in the client's words."""

    model: ModelConfig = field(default_factory=ModelConfig)
    train_data_file: Path = Path()
    test_data_file: Path | None = None
    batch_size: int = 16
    nepochs: int = 50
    mae_weight: float = 0.0
    nll_weight: float = 1.0
    realspace_mae_weight: float = 0.0
    realspace_weight: float = 0.0
    nphotons: float = 1e6
    positions_provided: bool = True
    probe_trainable: bool = False
    intensity_scale_trainable: bool = True
    output_dir: Path = Path()


@dataclass
class InferenceConfig:
    """An inference, in the client's words."""

    model: ModelConfig = field(default_factory=ModelConfig)
    model_path: Path = Path()
    test_data_file: Path = Path()
    debug: bool = False
    output_dir: Path = Path()


def update_legacy_dict(cfg: MutableMapping[str, Any], config: TrainingConfig | InferenceConfig) -> None:
    """Write a config into the client's flat dict: the fields of the network, then its own, paths left out."""
    for part in (config.model, config):
        for name, value in vars(part).items():
            if name != "model" and not isinstance(value, Path):
                cfg[name] = value
