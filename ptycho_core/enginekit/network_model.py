"""A trained network as plain arrays: the model that every engine with a network returns, saves and loads."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle, read_bundle, write_bundle
from ..config import InferenceConfig, TrainingConfig, passes_of
from ..data.container import PtychoDataContainer, Statistics
from ..errors import ArchiveError, ConfigError
from ..provenance import machine, package_versions
from .architectures import generator_shapes

__all__ = ["NetworkModel", "load_network", "save_network"]


@dataclass(frozen=True, kw_only=True, eq=False)
class NetworkModel:
    """A trained generator with the probe and scale it was trained to, in arrays that any engine can use.

    Attributes:
        backend: name of the engine that made or loaded it.
        config: the config it was trained with.
        weights: canonical name → float32 array (see ``enginekit.architectures``).
        statistics: constants of the training split.
        scale: s at the end of training.
        probe: (P, N, N) complex64 at the end of training.
        history: name → one float an epoch.
        checkpoint_path: where training can be resumed from, or None.
    """

    backend: str
    config: TrainingConfig
    weights: Mapping[str, NDArray[np.float32]]
    statistics: Statistics
    scale: float
    probe: NDArray[np.complex64]
    history: Mapping[str, list[float]]
    checkpoint_path: Path | None = None

    def scale_for(self, data: PtychoDataContainer) -> float:
        """The intensity scale for a scan: its own, times what training changed of the scale it started from (BE-4)."""
        return data.statistics.scale * self.scale / self.statistics.scale

    def passes_for(self, config: InferenceConfig) -> int:
        """Learned passes over the canvas: as many as `config` says, or else as in training.

        Raises:
            ConfigError: passes are asked for, and the generator makes one only.
        """
        return passes_of(self.config.network, config)

    def check_side(self, data: PtychoDataContainer) -> None:
        """Refuse frames of a side that the network cannot take.

        Raises:
            ConfigError: the side is not the one it is tied to, or cannot be halved often enough.
        """
        side = self.probe.shape[-1]
        if self.config.network.generator == "cnn" and data.raw.side != side:
            raise ConfigError(f"the model was trained on frames of {side}×{side}; this scan has {data.raw.side}.")
        generator_shapes(self.config, data.raw.side)


def save_network(model: NetworkModel, path: Path, packages: Collection[str]) -> None:
    """Write a model as a bundle (specs/50-model-bundle).

    Args:
        model: what to write.
        path: file, by convention named ``model.ptycho``.
        packages: distributions whose versions are kept with it.

    Raises:
        ArchiveError, OutputError: see ``bundle.write_bundle``.
    """
    bundle = Bundle(
        backend=model.backend,
        generator=model.config.network.generator,
        side=model.probe.shape[-1],
        config=model.config,
        statistics=model.statistics,
        scale=model.scale,
        weights=model.weights,
        probe=model.probe,
        history={name: list(values) for name, values in model.history.items()},
        provenance={
            "versions": package_versions(tuple(packages)),
            "machine": machine(),
            "seed": model.config.seed,
        },
    )
    write_bundle(path, bundle)


def load_network(path: Path, backend: str, generators: Collection[str]) -> NetworkModel:
    """Read a bundle of any engine, if its generator is known here.

    Args:
        path: the bundle.
        backend: name of the engine that reads it.
        generators: names that this engine knows.

    Raises:
        ArchiveError: damaged, unsafe, or of a generator or an engine that this one cannot follow; both are named.
    """
    bundle = read_bundle(path)
    if bundle.generator is None or bundle.generator not in generators:
        raise ArchiveError(
            f"{path}: made by engine {bundle.backend!r} with generator {bundle.generator!r}, which engine "
            f"{backend!r} does not have (it has {', '.join(generators)}); load it with the engine that made it."
        )
    bundle = read_bundle(path, expected_weights=generator_shapes, engine=backend)
    return NetworkModel(
        backend=backend,
        config=bundle.config,
        weights=bundle.weights,
        statistics=bundle.statistics,
        scale=bundle.scale,
        probe=bundle.probe,
        history=bundle.history,
    )
