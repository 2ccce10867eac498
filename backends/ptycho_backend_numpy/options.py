"""Settings that the NumPy engine alone has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ptycho_core.config import EngineOptions
from ptycho_core.errors import ConfigError, suggest

__all__ = ["ALGORITHMS", "NumpyOptions"]

ALGORITHMS = ("rpie", "lsq")


@dataclass(frozen=True, kw_only=True)
class NumpyOptions(EngineOptions):
    """How the NumPy engine sweeps.

    Attributes:
        algorithm: ``rpie``: damped steps over the light that a pixel got (Maiden et al., Optica 4, 736 (2017));
            ``lsq``: the same direction, as far as the curvature has its minimum along it (Odstrčil et al., Opt.
            Express 26, 3108 (2018)).
        batch_frames: frames in one step; None takes a number that suits the scan.
        threads: threads of the Fourier transforms; None takes all processors.
    """

    engine: ClassVar[str] = "numpy"

    algorithm: str = "rpie"
    batch_frames: int | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.algorithm not in ALGORITHMS:
            raise ConfigError(
                f"NumpyOptions.algorithm = {self.algorithm!r}; allowed: {', '.join(ALGORITHMS)}."
                f"{suggest(self.algorithm, ALGORITHMS)}"
            )
        for name, value in (("batch_frames", self.batch_frames), ("threads", self.threads)):
            if value is not None and value < 1:
                raise ConfigError(f"NumpyOptions.{name} = {value}; it must be at least 1.")
