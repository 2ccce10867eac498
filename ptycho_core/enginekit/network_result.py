"""What comes of a network's training, at its end and on the way: a model, and the image that it makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..config import TrainingConfig
from ..data.container import PtychoDataContainer
from ..data.results import Image
from ..generators import Generator
from ..protocol import ProgressEvent, ReconstructionBackend
from ..runtime import Runtime
from ..stopping import safe_point
from .architectures import GENERATORS
from .network_model import NetworkModel

__all__ = ["Learnt", "NetworkResult"]

_GENERATOR = "generator."


class Learnt(NamedTuple):
    """What a training ends with, or has come to.

    Attributes:
        values: name → parameter.
        history: name → one float an epoch.
        checkpoint_path: where it can be gone on from, or None when nothing is written.
    """

    values: dict[str, NDArray[np.float32]]
    history: dict[str, list[float]]
    checkpoint_path: Path | None


@dataclass(frozen=True)
class NetworkResult:
    """Makes the model of a training, and its image.

    Attributes:
        engine: that trains; asked to ``reconstruct`` where an image is wanted.
        scans: as given to it; the first gives probe, scale and statistics, and the frames of the image.
        config: of the training.
        runtime: what does the work.
        generators: records of the engine's generators.
    """

    engine: ReconstructionBackend
    scans: Sequence[PtychoDataContainer]
    config: TrainingConfig
    runtime: Runtime
    generators: Sequence[Generator] = GENERATORS

    def model(self, learnt: Learnt) -> NetworkModel:
        """The model, with the probe, scale and statistics of the first scan.

        Args:
            learnt: with parameters called ``generator.`` and a canonical name, ``probes.0`` (P, N, N, 2) and
                ``log_scales.0`` ().
        """
        values = learnt.values
        return NetworkModel(
            backend=self.engine.name,
            config=self.config,
            weights={
                name.removeprefix(_GENERATOR): value for name, value in values.items() if name.startswith(_GENERATOR)
            },
            statistics=self.scans[0].statistics,
            scale=float(np.exp(values["log_scales.0"])),
            probe=np.ascontiguousarray(values["probes.0"]).view(np.complex64)[..., 0],
            history=learnt.history,
            checkpoint_path=learnt.checkpoint_path,
            generators=self.generators,
        )

    def image(self, learnt: Learnt) -> Image:
        """The training frames of the first scan, as the network reconstructs them.

        It may take as long as some steps of the training: a wish to stop is met between two of its own.

        Raises:
            Cancelled: there is one.
        """
        model = self.model(learnt)
        scan = self.scans[0].with_probe(model.probe)
        return self.engine.reconstruct(model, scan, self.config.inference, self.runtime, progress=_stoppable)


def _stoppable(event: ProgressEvent) -> None:
    safe_point()
