"""Settings that the TensorFlow engine alone has; imports no framework."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ptycho_core.config import EngineOptions, TrainingConfig
from ptycho_core.errors import ConfigError, suggest

__all__ = ["JIT", "TensorflowOptions", "options_of"]

JIT = ("auto", "on", "off")


@dataclass(frozen=True, kw_only=True)
class TensorflowOptions(EngineOptions):
    """How TensorFlow computes; the image is the same up to rounding.

    Attributes:
        jit: compile networks with XLA. ``auto`` compiles where the job is long enough to pay for it; ``on`` compiles on
            any device; ``off`` never does (docs/decisions/0025).
    """

    engine: ClassVar[str] = "tensorflow"

    jit: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.jit not in JIT:
            raise ConfigError(
                f"TensorflowOptions.jit = {self.jit!r}; allowed: {', '.join(JIT)}.{suggest(self.jit, JIT)}"
            )


def options_of(config: TrainingConfig) -> TensorflowOptions:
    """The engine's own settings in a config, or its defaults where there are none."""
    options = config.options_for(TensorflowOptions.engine)
    return options if isinstance(options, TensorflowOptions) else TensorflowOptions()
