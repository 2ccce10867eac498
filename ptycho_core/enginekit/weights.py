"""Weights of a generator: which there are, and their first values, the same in every engine for one seed."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..config import ModelConfig, TrainingConfig
from ..errors import ConfigError, suggest
from ..generators import Generator, GeneratorSizes
from .architectures import GENERATORS

__all__ = ["MOST_WEIGHTS", "Network", "generator_shapes", "initial_weights", "network_of"]

MOST_WEIGHTS = 2**29
"""Weights of a network; in training each takes 16 bytes."""


@dataclass(frozen=True)
class Network:
    """A generator of some sizes.

    Attributes:
        record: the generator.
        sizes: in the class of the generator.
    """

    record: Generator
    sizes: GeneratorSizes

    @property
    def sweeps(self) -> int:
        """Solver sweeps that make the estimate it is given."""
        return self.record.sweeps(self.sizes)

    @property
    def passes(self) -> int:
        """How often it is asked in training."""
        return self.record.passes(self.sizes)

    def channels(self, N: int) -> int:
        """Images that it holds for a frame of side N at full resolution."""
        return self.record.channels(self.sizes, N)


def network_of(model: ModelConfig, generators: Sequence[Generator] = GENERATORS) -> Network:
    """The network of a config, of one of the generators that an engine has.

    Raises:
        ConfigError: none of them, a size that it does not have, or one of the wrong type or out of range.
    """
    names = [record.name for record in generators]
    if model.generator not in names:
        raise ConfigError(
            f"model.generator = {model.generator!r}; allowed: {', '.join(names)}.{suggest(model.generator, names)}"
        )
    record = generators[names.index(model.generator)]
    typed = type(model.sizes) is record.sizes
    return Network(record, model.sizes if typed else record.read(model.sizes.plain()))


def generator_shapes(
    config: TrainingConfig, N: int, generators: Sequence[Generator] = GENERATORS
) -> dict[str, tuple[int, ...]]:
    """Name → shape of every weight of the generator of a config, for frames of side N.

    Raises:
        ConfigError: unknown generator, sizes that do not fit N, or more weights than ``MOST_WEIGHTS``.
    """
    network = network_of(config.network, generators)
    shapes = dict(network.record.shapes(network.sizes, N, config.group_size))
    n_weights = sum(map(math.prod, shapes.values()))
    if n_weights > MOST_WEIGHTS:
        sizes = ", ".join(f"{name} = {value}" for name, value in network.sizes.plain().items())
        raise ConfigError(
            f"generator {network.record.name!r} of {sizes} and group_size = {config.group_size} has {n_weights:.3g} "
            f"weights; allowed: {MOST_WEIGHTS:.3g}. Choose smaller sizes (model.width, model.depth)."
        )
    return shapes


def initial_weights(
    config: TrainingConfig, N: int, generators: Sequence[Generator] = GENERATORS
) -> dict[str, NDArray[np.float32]]:
    """First value of every weight, decided by ``config.seed`` alone.

    Weights are normal with He's standard deviation, √(2 / fan-in), times the ``gains`` of the generator; what is called
    ``….bias`` is zero. Each weight has its own random stream, named by its name, so that adding a layer leaves the
    others as they were.

    Raises:
        ConfigError: see :func:`generator_shapes`.
    """
    gains = network_of(config.network, generators).record.gains
    weights: dict[str, NDArray[np.float32]] = {}
    for name, shape in generator_shapes(config, N, generators).items():
        gain = 0.0 if name.endswith(".bias") else gains.get(name, 1.0)
        if gain == 0:
            weights[name] = np.zeros(shape, np.float32)
            continue
        rng = np.random.default_rng([config.seed, zlib.crc32(name.encode())])
        spread = gain * math.sqrt(2.0 / math.prod(shape[1:]))
        weights[name] = (spread * rng.standard_normal(shape)).astype(np.float32)
    return weights
