"""The engine: it takes containers and configs from core, and gives NumPy arrays and frozen results back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ptycho_core.config import InferenceConfig, TrainingConfig
from ptycho_core.data.container import PtychoDataContainer, integer_corners
from ptycho_core.data.raw import RawData
from ptycho_core.data.results import Image
from ptycho_core.enginekit.engine_threads import EngineThreads
from ptycho_core.enginekit.groups import Groups
from ptycho_core.enginekit.models import load_model, save_model
from ptycho_core.enginekit.network_inference import predict_groups, reconstruct_network
from ptycho_core.enginekit.network_model import NetworkModel
from ptycho_core.enginekit.network_result import NetworkResult
from ptycho_core.enginekit.network_training import check_trainable, run_facts
from ptycho_core.enginekit.solver_model import SolverModel, reconstruct_solved
from ptycho_core.enginekit.solving import solve
from ptycho_core.enginekit.stitching import corners_on
from ptycho_core.enginekit.threads import SLEEPING, SPINNING
from ptycho_core.enginekit.training_groups import TrainingGroups
from ptycho_core.errors import ConfigError
from ptycho_core.physics.patches import check_inside
from ptycho_core.protocol import Progress, no_progress
from ptycho_core.runtime import DEFAULT_RUNTIME, Runtime

from . import physics
from .generators import GENERATORS
from .gradient import computing_threads
from .hardware import choose_device, device_words
from .inference import TorchScan
from .plugin import CAPABILITIES
from .stepper import TorchStepper
from .training import fit

__all__ = ["TorchBackend"]


class TorchBackend:
    """A solver, and physics-informed networks trained with Lightning, in PyTorch."""

    name = "pytorch"
    capabilities = CAPABILITIES

    def __init__(self) -> None:
        self._threads = EngineThreads(torch.get_num_threads)

    def threads_chosen(self) -> str:
        """How many threads the last job computed with; see ``SupportsThreadChoice``."""
        return self._threads.told()

    def device_words(self, runtime: Runtime) -> str:
        """The GPU that a job would work on; empty for the CPU. See ``SupportsDeviceWords``."""
        return device_words(choose_device(runtime.accelerator))

    def train(
        self,
        scans: Sequence[PtychoDataContainer],
        config: TrainingConfig,
        runtime: Runtime = DEFAULT_RUNTIME,
        *,
        progress: Progress = no_progress,
    ) -> NetworkModel | SolverModel:
        """Solve a scan, or train one generator on all scans through the forward model; see ``ReconstructionBackend``.

        Probe, scale and statistics of the model are those of the first scan.
        """
        if config.method == "solver":
            return solve(self, scans[0], config, runtime, progress)
        check_trainable(scans, config)
        data = TrainingGroups(scans, config)
        threads = self._threads.of(runtime.threads, SPINNING)
        result = NetworkResult(self, scans, config, runtime)
        return result.model(fit(data, result, run_facts(config, scans, runtime), progress, threads))

    def reconstruct(
        self,
        model: NetworkModel | SolverModel,
        scan: PtychoDataContainer,
        config: InferenceConfig,
        runtime: Runtime = DEFAULT_RUNTIME,
        *,
        progress: Progress = no_progress,
    ) -> Image:
        """Cut out, or predict and merge, the training frames of a scan; see ``ReconstructionBackend.reconstruct``."""
        if isinstance(model, SolverModel):
            return reconstruct_solved(model, scan, config, progress)
        with torch.inference_mode():
            return reconstruct_network(model, scan, config, runtime, self._bind(runtime), progress)

    def stepper(self, image: Image, scan: PtychoDataContainer, loss: str, runtime: Runtime) -> TorchStepper:
        """Steps from an image; in double precision where ``runtime.precision`` is 64. See ``SupportsStepping``."""
        return TorchStepper(image, scan, loss, runtime, self._threads.of(runtime.threads, SLEEPING))

    def predict_patches(
        self, model: NetworkModel, groups: Groups, runtime: Runtime = DEFAULT_RUNTIME
    ) -> NDArray[np.complex64]:
        """Patches (B, C, N, N) complex64, each group by itself, before the last merge."""
        with torch.inference_mode():
            return predict_groups(model, groups, runtime, self._bind(runtime))

    def _bind(self, runtime: Runtime) -> Callable[..., TorchScan]:
        """What binds a generator to a scan, with the threads that its operations take."""
        return partial(TorchScan, threads=self._threads.of(runtime.threads, SPINNING))

    def expected_counts(
        self, image: Image, scan: PtychoDataContainer, frames: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """λ (n, N, N) float32 of some frames (n,), on the CPU; see ``SupportsExpectedCounts``.

        Raises:
            DataError: a frame leaves the image.
        """
        raw, host = scan.raw, torch.device("cpu")
        corners, subpixel = corners_on(image, frames)
        threads = self._threads.again(SPINNING)
        with (
            torch.inference_mode(),
            threads.step("expected", len(frames)) as n_threads,
            computing_threads(host, n_threads),
        ):
            obj, probe = (torch.from_numpy(np.array(part, np.complex64)) for part in (image.object, image.probe))
            patches = physics.extract(obj[None], torch.from_numpy(corners)[None], raw.side)
            waves = physics.exit_waves(patches, probe, torch.from_numpy(subpixel)[None])
            if image.mode_weights is not None:
                waves *= torch.from_numpy(image.mode_weights[frames]).sqrt()[:, :, None, None]
            level = None if raw.background is None else torch.from_numpy(raw.background.copy())
            rate = physics.rate_of_waves(waves, image.scale, level, raw.propagation)
        return rate[0].numpy().copy()

    def loss_and_gradient(
        self, obj: NDArray[np.complex64], probe: NDArray[np.complex64], raw: RawData, loss: str
    ) -> tuple[float, NDArray[np.complex64], NDArray[np.complex64]]:
        """Loss of all frames at scale 1 and its gradients; see ``SupportsPhysicsGradient``.

        The divisor is frames × mean counts a frame, as in training.
        """
        if loss not in physics.LOSSES:
            raise ConfigError(f"loss = {loss!r}; allowed: {', '.join(physics.LOSSES)}.")
        corners, subpixel = integer_corners(raw.positions_px, raw.side)
        check_inside(corners, raw.side, (obj.shape[0], obj.shape[1]))
        object_leaf = torch.from_numpy(np.array(obj, np.complex64)).requires_grad_()
        probe_leaf = torch.from_numpy(np.array(probe, np.complex64)).requires_grad_()
        mask = None if raw.mask is None else torch.from_numpy(raw.mask.copy())
        level = None if raw.background is None else torch.from_numpy(raw.background.copy())
        divisor = float(raw.frame_totals.sum())
        total = 0.0
        for indices, counts in raw.chunks():
            patches = physics.extract(object_leaf[None], torch.from_numpy(corners[indices])[None], raw.side)
            rate = physics.expected_counts(
                patches, probe_leaf, torch.from_numpy(subpixel[indices])[None], 1.0, level, raw.propagation
            )
            value = physics.LOSSES[loss](rate, torch.from_numpy(counts)[None], mask, divisor)
            torch.autograd.backward(value)
            total += float(value.detach())
        assert object_leaf.grad is not None
        assert probe_leaf.grad is not None
        return total, object_leaf.grad.numpy().copy(), probe_leaf.grad.numpy().copy()

    def save(self, model: NetworkModel | SolverModel, path: Path) -> None:
        """Write the model as a bundle; see specs/50-model-bundle."""
        save_model(model, path, ("torch", "lightning"))

    def load(self, path: Path) -> NetworkModel | SolverModel:
        """Read what this engine solved, or a bundle of any engine whose generator is known here."""
        return load_model(path, self.name, tuple(GENERATORS))
