"""The engine: it takes containers and configs from core, and gives NumPy arrays and frozen results back."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ptycho_core.config import InferenceConfig, TrainingConfig
from ptycho_core.data.container import PtychoDataContainer, integer_corners
from ptycho_core.data.raw import RawData
from ptycho_core.data.results import Image
from ptycho_core.enginekit.groups import Groups
from ptycho_core.enginekit.models import load_model, save_model
from ptycho_core.enginekit.network_inference import predict_groups, reconstruct_network
from ptycho_core.enginekit.network_loop import Training
from ptycho_core.enginekit.network_model import NetworkModel
from ptycho_core.enginekit.network_result import NetworkResult
from ptycho_core.enginekit.network_training import check_trainable, run_facts
from ptycho_core.enginekit.processors import available_cpus
from ptycho_core.enginekit.solver_model import SolverModel, reconstruct_solved
from ptycho_core.enginekit.solving import solve
from ptycho_core.enginekit.stitching import corners_on
from ptycho_core.enginekit.training_groups import TrainingGroups
from ptycho_core.enginekit.weights import network_of
from ptycho_core.errors import ConfigError
from ptycho_core.physics.patches import check_inside
from ptycho_core.protocol import Progress, no_progress
from ptycho_core.runtime import DEFAULT_RUNTIME, Runtime

from . import physics
from .generators import GENERATORS
from .hardware import Work, choose_devices, choose_hardware, device_words, settle_threads
from .inference import TensorflowScan
from .network import PtychoNetwork, constant
from .options import options_of
from .plugin import CAPABILITIES
from .stepper import TensorflowStepper
from .training import TensorflowLearner

__all__ = ["TensorFlowBackend"]

_log = logging.getLogger("ptycho_core.threads")


class TensorFlowBackend:
    """A solver, and physics-informed networks, in TensorFlow."""

    name = "tensorflow"
    capabilities = CAPABILITIES

    def __init__(self) -> None:
        self._told = ""

    def threads_chosen(self) -> str:
        """How many threads the last job computed with; see ``SupportsThreadChoice``."""
        return self._told

    def device_words(self, runtime: Runtime) -> str:
        """The GPU that a job would work on; empty for the CPU. See ``SupportsDeviceWords``."""
        self._settle(runtime)  # before devices are listed, which fixes the threads
        return device_words(runtime.accelerator)

    def _settle(self, runtime: Runtime) -> None:
        """Have TensorFlow take its threads before a job makes it."""
        threads = settle_threads(runtime.threads)
        how = "as given" if runtime.threads is not None else "which sleep while they wait"
        told = f"{threads} of {available_cpus()}, {how}"
        if told != self._told:
            _log.info("threads: %s", told)
        self._told = told

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
        self._settle(runtime)
        if config.method == "solver":
            options = options_of(config)
            if options.jit != "auto":
                raise ConfigError(
                    f"engine 'tensorflow': TensorflowOptions.jit = {options.jit!r} has no effect with method = "
                    "'solver', whose steps XLA does not compile; leave it out, or say method = 'network'."
                )
            return solve(self, scans[0], config, runtime, progress)
        check_trainable(scans, config)
        data, N = TrainingGroups(scans, config), scans[0].raw.side
        frames = config.epochs * sum(data.draw.n_groups) * config.group_size
        asked = network_of(config.network)
        work = Work(frames * N**2, asked.channels(N), asked.sweeps)
        jit = options_of(config).jit
        hardware = choose_hardware(runtime.accelerator, runtime.precision, work, runtime.devices, jit=jit)
        with tf.device(hardware.devices[0]):
            network = PtychoNetwork(config, data.scans, data.n_trained, hardware)
            learner = TensorflowLearner(network, data, hardware.devices, runtime.num_workers)
        facts, result = run_facts(config, scans, runtime), NetworkResult(self, scans, config, runtime)
        return result.model(Training(learner, config, runtime, self.name, facts, progress, result).run())

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
        self._settle(runtime)
        return reconstruct_network(model, scan, config, runtime, TensorflowScan, progress)

    def stepper(self, image: Image, scan: PtychoDataContainer, loss: str, runtime: Runtime) -> TensorflowStepper:
        """Steps from an image, in single precision; see ``SupportsStepping``."""
        self._settle(runtime)
        return TensorflowStepper(image, scan, loss, runtime)

    def predict_patches(
        self, model: NetworkModel, groups: Groups, runtime: Runtime = DEFAULT_RUNTIME
    ) -> NDArray[np.complex64]:
        """Patches (B, C, N, N) complex64, each group by itself, before the last merge."""
        self._settle(runtime)
        return predict_groups(model, groups, runtime, TensorflowScan)

    def expected_counts(
        self, image: Image, scan: PtychoDataContainer, frames: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """λ (n, N, N) float32 of some frames (n,), on the CPU; see ``SupportsExpectedCounts``.

        Raises:
            DataError: a frame leaves the image.
        """
        raw = scan.raw
        corners, subpixel = corners_on(image, frames)
        with tf.device(_host()):
            obj, probe = (tf.constant(part, tf.complex64) for part in (image.object, image.probe))
            patches = physics.extract(obj[None], tf.constant(corners)[None], raw.side)
            waves = physics.exit_waves(patches, probe, tf.constant(subpixel)[None])
            if image.mode_weights is not None:
                waves = physics.times(waves, np.sqrt(image.mode_weights[frames])[:, :, None, None])
            rate = physics.rate_of_waves(waves, image.scale, constant(raw.background), raw.propagation)
        return np.array(rate[0])

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
        divisor, total = float(raw.frame_totals.sum()), 0.0
        sums = [np.zeros(array.shape, np.complex64) for array in (obj, probe)]
        with tf.device(_host()):
            leaves = [tf.constant(obj, tf.complex64), tf.constant(probe, tf.complex64)]
            mask, level = constant(raw.mask), constant(raw.background)
            for indices, counts in raw.chunks():
                with tf.GradientTape() as tape:
                    tape.watch(leaves)
                    patches = physics.extract(leaves[0][None], tf.constant(corners[indices])[None], raw.side)
                    rest = tf.constant(subpixel[indices])[None]
                    rate = physics.expected_counts(patches, leaves[1], rest, 1.0, level, raw.propagation)
                    value = physics.LOSSES[loss](rate, tf.constant(counts)[None], mask, divisor)
                total += float(value)
                for part, gradient in zip(sums, tape.gradient(value, leaves), strict=True):
                    part += tf.convert_to_tensor(gradient).numpy()
        return total, sums[0], sums[1]

    def save(self, model: NetworkModel | SolverModel, path: Path) -> None:
        """Write the model as a bundle; see specs/50-model-bundle."""
        save_model(model, path, ("tensorflow",))

    def load(self, path: Path) -> NetworkModel | SolverModel:
        """Read what this engine solved, or a bundle of any engine whose generator is known here."""
        return load_model(path, self.name, tuple(GENERATORS))


def _host() -> str:
    """Name of the CPU, where questions to the physics are answered, as in every engine."""
    settle_threads(None)
    (device,) = choose_devices("cpu")
    return device
