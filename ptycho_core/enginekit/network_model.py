"""A trained network as plain arrays: the model that every engine with a network returns, saves and loads."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..bundle import read_bundle
from ..config import InferenceConfig, ModelConfig, TrainingConfig
from ..data.container import PtychoDataContainer, Statistics
from ..data.shown import line
from ..errors import ArchiveError, ConfigError
from ..generators import Generator
from .architectures import GENERATORS
from .model_file import common_of, write_model
from .weights import Network, generator_shapes, network_of

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
        generators: records of the engine's generators, its own among them.
    """

    backend: str
    config: TrainingConfig
    weights: Mapping[str, NDArray[np.float32]]
    statistics: Statistics
    scale: float
    probe: NDArray[np.complex64]
    history: Mapping[str, list[float]]
    checkpoint_path: Path | None = None
    generators: Sequence[Generator] = GENERATORS

    def __repr__(self) -> str:
        """One line: what it is and how large, never an array."""
        epochs, values = len(self.history.get("train_loss", ())), sum(int(w.size) for w in self.weights.values())
        return line(
            "NetworkModel", self.backend, self.config.network.generator, f"{values} weights", f"{epochs} epochs"
        )

    @property
    def network(self) -> Network:
        """Its generator and sizes."""
        return network_of(self.config.network, self.generators)

    def scale_for(self, scan: PtychoDataContainer) -> float:
        """The intensity scale for a scan: its own, times what training changed of the scale it started from (BE-4)."""
        return scan.statistics.scale * self.scale / self.statistics.scale

    def passes_for(self, config: InferenceConfig) -> int:
        """Learned passes over the canvas: as many as `config` says, or else as in training.

        Raises:
            ConfigError: passes are asked for, and the generator makes one only.
        """
        network = self.network
        return network.record.passes_for(network.sizes, config.passes)

    def check_groups(self, scan: PtychoDataContainer, group_size: int) -> None:
        """Refuse frames of a side, or groups of a size, that the network cannot take.

        Raises:
            ConfigError: sides or groups that it has no weights for, or a side that cannot be halved often enough.
        """
        side, asked = self.probe.shape[-1], scan.raw.side
        network, trained = self.network, self.config.group_size
        if network.record.fixed_group and group_size != trained:
            raise ConfigError(
                f"generator {network.record.name!r} was trained with group_size = {trained} and was given groups of "
                f"{group_size} frames; use that size, or a generator that takes any."
            )
        told = f"the model was trained on frames of {side}×{side}; this scan has {asked}"
        own = network.record.shapes(network.sizes, side, trained)
        try:
            needed = network.record.shapes(network.sizes, asked, trained)
        except ConfigError as error:
            raise ConfigError(f"{told}: {error}") from error
        if needed != own:
            raise ConfigError(f"{told}, for which its generator has other weights.")


def save_network(model: NetworkModel, path: Path, packages: Collection[str]) -> None:
    """Write a model as a bundle; arguments and errors as ``model_file.write_model``."""
    write_model(model, path, packages, generator=model.config.network.generator, weights=model.weights)


def load_network(
    path: Path, backend: str, generators: Collection[str] | None = None, records: Sequence[Generator] = GENERATORS
) -> NetworkModel:
    """Read a bundle of any engine, if its generator is known here.

    Args:
        path: the bundle.
        backend: name of the engine that reads it.
        generators: names of those among `records` that this engine has; None is all.
        records: of its generators.

    Raises:
        ArchiveError: damaged, unsafe, or of a generator or an engine that this one cannot follow; both are named.
    """
    bundle = read_bundle(path)
    own = tuple(record for record in records if generators is None or record.name in generators)
    names = [record.name for record in own]
    if bundle.generator is None or bundle.generator not in names:
        raise ArchiveError(
            f"{path}: made by engine {bundle.backend!r} with generator {bundle.generator!r}, which engine "
            f"{backend!r} does not have (it has {', '.join(names)}); load it with the engine that made it."
        )
    model = bundle.config.network
    try:
        sizes = network_of(model, own).sizes
    except ConfigError as error:
        raise ArchiveError(
            f"{path}: its sizes are not those of the generator in engine {backend!r}: {error}"
        ) from error
    bundle = read_bundle(path, expected_weights=lambda config, N: generator_shapes(config, N, own), engine=backend)
    typed = replace(bundle.config, model=ModelConfig(generator=model.generator, sizes=sizes))
    return NetworkModel(**common_of(bundle, backend) | {"config": typed}, weights=bundle.weights, generators=own)
