"""Architectures: the names, shapes and first values of every weight, once for all engines (specs/50-model-bundle).

A network is code in each engine, but its weights are named, laid out and initialised here, so that one weight file
serves every engine and one seed gives every engine the same start. Convolution kernels are (out, in, 3, 3) and are
applied as cross-correlations with zero padding.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from ..config import ModelConfig, TrainingConfig
from ..errors import ConfigError, suggest

__all__ = [
    "GENERATORS",
    "check_group_size",
    "cnn_filters",
    "full_channels",
    "generator_shapes",
    "initial_weights",
    "probe_unet_widths",
]

PROBE_UNET_FEATURES = 4
"""Re, Im of Q − 1 and of u."""

UNROLLED_FEATURES = 6
"""Those of ``probe_unet``, and |P| and the weight of the merge, both relative to their largest value."""


def _conv(name: str, n_in: int, n_out: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (n_out, n_in, 3, 3), f"{name}.bias": (n_out,)}


def _block(name: str, n_in: int, n_out: int) -> dict[str, tuple[int, ...]]:
    return _conv(f"{name}.conv0", n_in, n_out) | _conv(f"{name}.conv1", n_out, n_out)


def probe_unet_widths(model: ModelConfig) -> list[int]:
    """Channels of each level of the U-net, finest first; each level has twice those of the one above."""
    return [model.width * 2**level for level in range(model.depth + 1)]


def _u_net(model: ModelConfig, N: int, n_features: int) -> dict[str, tuple[int, ...]]:
    if N % 2**model.depth:
        raise ConfigError(
            f"model.depth = {model.depth} halves the side {model.depth} times, but N = {N} is not a multiple of "
            f"{2**model.depth}; choose a smaller depth."
        )
    widths = probe_unet_widths(model)
    shapes: dict[str, tuple[int, ...]] = {}
    for level, width in enumerate(widths):
        shapes |= _block(f"encoder{level}", n_features if level == 0 else widths[level - 1], width)
    for level in reversed(range(model.depth)):
        shapes |= _block(f"decoder{level}", widths[level + 1] + widths[level], widths[level])
    return shapes | _conv("head", widths[0], 2)


def _probe_unet(model: ModelConfig, N: int, group_size: int) -> dict[str, tuple[int, ...]]:
    return _u_net(model, N, PROBE_UNET_FEATURES)


def _unrolled(model: ModelConfig, N: int, group_size: int) -> dict[str, tuple[int, ...]]:
    return _u_net(model, N, UNROLLED_FEATURES)


def cnn_filters(model: ModelConfig, N: int) -> tuple[list[int], list[int]]:
    """Filters of the encoder and of each decoder of the skip-free network, coarse to fine for the decoder.

    Raises:
        ConfigError: a side other than 64, 128 or 256.
    """
    tables = {
        64: ([32, 64, 128], [64, 32]),
        128: ([16, 32, 64, 128], [128, 64, 32]),
        256: ([8, 16, 32, 64, 128], [256, 128, 64, 32]),
    }
    if N not in tables:
        raise ConfigError(f"generator 'cnn' supports N = 64, 128 or 256; frames are {N}×{N}. Choose 'probe_unet'.")
    encoder, decoder = tables[N]
    last = 2048 // N
    return (
        [max(1, f * model.width // 16) for f in encoder],
        [max(1, f * model.width // 16) for f in [*decoder, last]],
    )


def full_channels(model: ModelConfig, N: int) -> int:
    """Channels at full resolution for frames of side N, which decide memory and work.

    Raises:
        ConfigError: see :func:`cnn_filters`.
    """
    return max(cnn_filters(model, N)[1]) if model.generator == "cnn" else model.width


def check_group_size(trained: int, given: int) -> None:
    """Refuse groups that a ``cnn``, whose channels are the frames of a group, was not made for.

    Raises:
        ConfigError: another group size.
    """
    if given != trained:
        raise ConfigError(
            f"generator 'cnn' was trained with group_size = {trained} and was given groups of "
            f"{given} frames; use that size, or 'probe_unet', which takes any."
        )


def _cnn(model: ModelConfig, N: int, group_size: int) -> dict[str, tuple[int, ...]]:
    encoder, decoder = cnn_filters(model, N)
    shapes: dict[str, tuple[int, ...]] = {}
    for level, width in enumerate(encoder):
        shapes |= _block(f"encoder{level}", group_size if level == 0 else encoder[level - 1], width)
    for arm in ("amplitude", "phase"):
        for level, width in enumerate(decoder):
            shapes |= _block(f"{arm}{level}", encoder[-1] if level == 0 else decoder[level - 1], width)
        shapes |= _conv(f"{arm}_head", decoder[-1], group_size)
    return shapes


GENERATORS: Mapping[str, Callable[[ModelConfig, int, int], dict[str, tuple[int, ...]]]] = {
    "probe_unet": _probe_unet,
    "unrolled": _unrolled,
    "cnn": _cnn,
}
"""Name of each generator → the function that lists its weights."""


def generator_shapes(config: TrainingConfig, N: int) -> dict[str, tuple[int, ...]]:
    """Name → shape of every weight of the generator of a config, for frames of side N.

    Raises:
        ConfigError: unknown generator, or sizes that do not fit N.
    """
    name = config.network.generator
    if name not in GENERATORS:
        raise ConfigError(f"model.generator = {name!r}; allowed: {', '.join(GENERATORS)}.{suggest(name, GENERATORS)}")
    return GENERATORS[name](config.network, N, config.group_size)


def initial_weights(config: TrainingConfig, N: int) -> dict[str, NDArray[np.float32]]:
    """First value of every weight, decided by ``config.seed`` alone.

    Kernels are He-normal (standard deviation √(2 / fan-in)), biases zero. The heads of ``probe_unet`` and
    ``unrolled`` are zero, so that their first prediction is the solver's; the heads of ``cnn`` are scaled down by
    ten, so that it starts near O = 1.
    Each weight has its own random stream, named by its name, so that adding a layer leaves the others as they were.

    Raises:
        ConfigError: see :func:`generator_shapes`.
    """
    weights: dict[str, NDArray[np.float32]] = {}
    for name, shape in generator_shapes(config, N).items():
        if name.endswith(".bias") or name == "head.weight":
            weights[name] = np.zeros(shape, np.float32)
            continue
        rng = np.random.default_rng([config.seed, zlib.crc32(name.encode())])
        spread = math.sqrt(2.0 / math.prod(shape[1:])) * (0.1 if "_head" in name else 1.0)
        weights[name] = (spread * rng.standard_normal(shape)).astype(np.float32)
    return weights
