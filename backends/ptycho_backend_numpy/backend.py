"""The engine: steps in plain NumPy, in single or double precision; core descends with them and looks after the rest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptycho_core.config import InferenceConfig, TrainingConfig
from ptycho_core.data.container import PtychoDataContainer, integer_corners
from ptycho_core.data.raw import RawData
from ptycho_core.data.results import Image
from ptycho_core.enginekit.engine_threads import EngineThreads
from ptycho_core.enginekit.solver_model import SolverModel, load_solver, reconstruct_solved, save_solver
from ptycho_core.enginekit.solving import solve
from ptycho_core.enginekit.stitching import corners_on
from ptycho_core.enginekit.threads import SLEEPING
from ptycho_core.errors import ConfigError
from ptycho_core.physics.patches import check_inside, extract
from ptycho_core.protocol import Progress, no_progress
from ptycho_core.runtime import DEFAULT_RUNTIME, Runtime

from .gradient import LOSSES, NumpyGradient
from .physics import exit_waves, rate_of_waves
from .plugin import CAPABILITIES
from .stepper import NumpyStepper

__all__ = ["NumpyBackend"]

_PACKAGES = ("numpy", "scipy")


class NumpyBackend:
    """A solver without a framework, and the reference of the others'."""

    name = "numpy"
    capabilities = CAPABILITIES

    def __init__(self) -> None:
        self._threads = EngineThreads()

    def threads_chosen(self) -> str:
        """How many threads the last job computed with; see ``SupportsThreadChoice``."""
        return self._threads.told()

    def train(
        self,
        scans: Sequence[PtychoDataContainer],
        config: TrainingConfig,
        runtime: Runtime = DEFAULT_RUNTIME,
        *,
        progress: Progress = no_progress,
    ) -> SolverModel:
        """Solve the one scan there is from the flat object; see ``enginekit.solving.solve``."""
        return solve(self, scans[0], config, runtime, progress)

    def reconstruct(
        self,
        model: SolverModel,
        scan: PtychoDataContainer,
        config: InferenceConfig,
        runtime: Runtime = DEFAULT_RUNTIME,
        *,
        progress: Progress = no_progress,
    ) -> Image:
        """Cut what the training frames of a scan cover out of the object; see ``solver_model.reconstruct_solved``."""
        return reconstruct_solved(model, scan, config, progress)

    def stepper(self, image: Image, scan: PtychoDataContainer, loss: str, runtime: Runtime) -> NumpyStepper:
        """Steps from an image; see ``SupportsStepping``."""
        return NumpyStepper(image, scan, loss, runtime, self._threads.of(runtime.threads, SLEEPING))

    def expected_counts(
        self, image: Image, scan: PtychoDataContainer, frames: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """λ (n, N, N) of some frames (n,) in single precision, background included.

        Raises:
            DataError: a frame leaves the image.
        """
        raw = scan.raw
        corners, rest = corners_on(image, frames)
        waves = exit_waves(extract(image.object, corners, image.probe.shape[-1]), image.probe, rest)
        if image.mode_weights is not None:
            waves *= np.sqrt(image.mode_weights[frames])[:, :, None, None]
        return np.asarray(rate_of_waves(waves, image.scale, raw.background, raw.propagation), np.float32)

    def loss_and_gradient(
        self, obj: NDArray[np.complex64], probe: NDArray[np.complex64], raw: RawData, loss: str
    ) -> tuple[float, NDArray[np.complex64], NDArray[np.complex64]]:
        """Loss of all frames at scale 1 and its gradients, as training takes them; see ``SupportsPhysicsGradient``."""
        if loss not in LOSSES:
            raise ConfigError(f"loss = {loss!r}; allowed: {', '.join(LOSSES)}.")
        corners, rest = integer_corners(raw.positions_px, raw.side)
        check_inside(corners, raw.side, (obj.shape[0], obj.shape[1]))
        ask, divisor = NumpyGradient(raw, loss, self._threads.of(None, SLEEPING)), float(raw.frame_totals.sum())
        state = (obj.astype(np.complex64), probe.astype(np.complex64))
        got = ask(np.arange(raw.n_frames), corners, rest, *state, ("object", "probe"))
        assert got.object is not None
        assert got.probe is not None
        return got.loss / divisor, got.object / np.float32(divisor), got.probe / np.float32(divisor)

    def save(self, model: SolverModel, path: Path) -> None:
        """Write a bundle that says it is a solver's."""
        save_solver(model, path, _PACKAGES)

    def load(self, path: Path) -> SolverModel:
        """Read a bundle of this engine."""
        return load_solver(path, self.name)
