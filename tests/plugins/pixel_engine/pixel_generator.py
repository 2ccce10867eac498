"""The generator of the pixel engine and its plugin: sizes, shapes, and no framework."""

from dataclasses import dataclass

from ptycho_core.config_checks import check_range
from ptycho_core.generators import Generator, GeneratorSizes
from ptycho_core.plugins.hookspecs import hookimpl
from ptycho_core.protocol import BackendSpec


@dataclass(frozen=True, kw_only=True)
class PixelSizes(GeneratorSizes):
    """Sizes of ``pixel_mlp``.

    Attributes:
        hidden: units that look at each pixel.
        warm_up: solver sweeps before it.
    """

    hidden: int = 3
    warm_up: int = 4

    def __post_init__(self):
        super().__post_init__()
        check_range("PixelSizes", "hidden", self.hidden, 1, 64)
        check_range("PixelSizes", "warm_up", self.warm_up, 0, 1000)


def shapes(sizes, N, group_size):
    """Four numbers of a pixel to the hidden units, and those to two."""
    return {"in.weight": (sizes.hidden, 4), "in.bias": (sizes.hidden,), "out.weight": (2, sizes.hidden)}


GENERATORS = (
    Generator(
        name="pixel_mlp", sizes=PixelSizes, shapes=shapes, channels=lambda sizes, N: sizes.hidden,
        sweeps=lambda sizes: sizes.warm_up, gains={"out.weight": 0.0},
    ),
)  # fmt: skip


@hookimpl
def ptycho_backend():
    """Describe the engine; nothing more happens before it is chosen."""
    return BackendSpec(
        name="pixel", factory="pixel_engine:PixelEngine", requires=("numpy",), extra="pixel-engine",
        generators="pixel_generator:GENERATORS", protocol_version=2,
    )  # fmt: skip
