"""Architectures of the three generators that ship: their sizes, and the names and shapes of every weight, once for all.

Their records say so to core and to any engine that has them (specs/50-model-bundle); ``weights`` gives them their first
values. Convolution kernels are (out, in, 3, 3) and are applied as cross-correlations with zero padding.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..config_checks import check_range
from ..errors import ConfigError
from ..generators import Generator, GeneratorSizes

__all__ = [
    "GENERATORS",
    "CnnSizes",
    "ProbeUnetSizes",
    "UnrolledSizes",
    "cnn_filters",
    "probe_unet_widths",
]

PROBE_UNET_FEATURES = 4
"""Re, Im of Q − 1 and of u."""

UNROLLED_FEATURES = 6
"""Those of ``probe_unet``, and |P| and the weight of the merge, both relative to their largest value."""


@dataclass(frozen=True, kw_only=True)
class ProbeUnetSizes(GeneratorSizes):
    """Sizes of ``probe_unet``.

    Attributes:
        width: channels of the first level of the U-net.
        depth: levels of the U-net below the first. Each halves the side, which must be divisible by 2**depth.
        sweeps: sweeps of a solver before the network. With 0 a ``probe_unet`` sees each frame by itself, and an
            ``unrolled`` starts from a flat object.
    """

    width: int = 16
    depth: int = 3
    sweeps: int = 24

    def __post_init__(self) -> None:
        super().__post_init__()
        owner = type(self).__name__
        check_range(owner, "width", self.width, 1, 512)
        check_range(owner, "depth", self.depth, 1, 5)
        check_range(owner, "sweeps", self.sweeps, 0, 1000)


@dataclass(frozen=True, kw_only=True)
class UnrolledSizes(ProbeUnetSizes):
    """Sizes of ``unrolled``: those of ``probe_unet``, and its passes.

    Attributes:
        passes: learned passes over the object in training; inference.passes may ask for others.
    """

    passes: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(type(self).__name__, "passes", self.passes, 1, 100)


@dataclass(frozen=True, kw_only=True)
class CnnSizes(GeneratorSizes):
    """Sizes of ``cnn``.

    Attributes:
        width: channels of all levels.
    """

    width: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(type(self).__name__, "width", self.width, 1, 512)


def _conv(name: str, n_in: int, n_out: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (n_out, n_in, 3, 3), f"{name}.bias": (n_out,)}


def _block(name: str, n_in: int, n_out: int) -> dict[str, tuple[int, ...]]:
    return _conv(f"{name}.conv0", n_in, n_out) | _conv(f"{name}.conv1", n_out, n_out)


def probe_unet_widths(sizes: ProbeUnetSizes) -> list[int]:
    """Channels of each level of the U-net, finest first; each level has twice those of the one above."""
    return [sizes.width * 2**level for level in range(sizes.depth + 1)]


def _u_net(sizes: ProbeUnetSizes, N: int, n_features: int) -> dict[str, tuple[int, ...]]:
    if N % 2**sizes.depth:
        raise ConfigError(
            f"model.depth = {sizes.depth} halves the side {sizes.depth} times, but N = {N} is not a multiple of "
            f"{2**sizes.depth}; choose a smaller depth."
        )
    widths = probe_unet_widths(sizes)
    shapes: dict[str, tuple[int, ...]] = {}
    for level, width in enumerate(widths):
        shapes |= _block(f"encoder{level}", n_features if level == 0 else widths[level - 1], width)
    for level in reversed(range(sizes.depth)):
        shapes |= _block(f"decoder{level}", widths[level + 1] + widths[level], widths[level])
    return shapes | _conv("head", widths[0], 2)


def _probe_unet(sizes: ProbeUnetSizes, N: int, group_size: int) -> dict[str, tuple[int, ...]]:
    return _u_net(sizes, N, PROBE_UNET_FEATURES)


def _unrolled(sizes: UnrolledSizes, N: int, group_size: int) -> dict[str, tuple[int, ...]]:
    return _u_net(sizes, N, UNROLLED_FEATURES)


def cnn_filters(sizes: CnnSizes, N: int) -> tuple[list[int], list[int]]:
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
        [max(1, f * sizes.width // 16) for f in encoder],
        [max(1, f * sizes.width // 16) for f in [*decoder, last]],
    )


def _cnn(sizes: CnnSizes, N: int, group_size: int) -> dict[str, tuple[int, ...]]:
    encoder, decoder = cnn_filters(sizes, N)
    shapes: dict[str, tuple[int, ...]] = {}
    for level, width in enumerate(encoder):
        shapes |= _block(f"encoder{level}", group_size if level == 0 else encoder[level - 1], width)
    for arm in ("amplitude", "phase"):
        for level, width in enumerate(decoder):
            shapes |= _block(f"{arm}{level}", encoder[-1] if level == 0 else decoder[level - 1], width)
        shapes |= _conv(f"{arm}_head", decoder[-1], group_size)
    return shapes


def _width(sizes: ProbeUnetSizes, N: int) -> int:
    return sizes.width


def _cnn_channels(sizes: CnnSizes, N: int) -> int:
    return max(cnn_filters(sizes, N)[1])


def _sweeps(sizes: ProbeUnetSizes) -> int:
    return sizes.sweeps


def _passes(sizes: UnrolledSizes) -> int:
    return sizes.passes


_FROM_THE_SOLVER = {"head.weight": 0.0}
"""With a head of zeros the first prediction is the solver's."""

GENERATORS: tuple[Generator, ...] = (
    Generator(
        name="probe_unet", sizes=ProbeUnetSizes, shapes=_probe_unet, channels=_width, sweeps=_sweeps,
        gains=_FROM_THE_SOLVER, small={"width": 4, "depth": 1, "sweeps": 2},
    ),
    Generator(
        name="unrolled", sizes=UnrolledSizes, shapes=_unrolled, channels=_width, sweeps=_sweeps, passes=_passes,
        repeats=True, gains=_FROM_THE_SOLVER, small={"width": 4, "depth": 1, "sweeps": 2, "passes": 2},
    ),
    Generator(
        name="cnn", sizes=CnnSizes, shapes=_cnn, channels=_cnn_channels, fixed_group=True, small={"width": 4},
        # near O = 1
        gains={"amplitude_head.weight": 0.1, "phase_head.weight": 0.1},
    ),
)  # fmt: skip
"""The generators that ship, known without any engine."""
