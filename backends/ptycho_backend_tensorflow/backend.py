"""The engine: it takes containers and configs from core, and gives NumPy arrays and frozen results back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ptycho_core.config import InferenceConfig, TrainingConfig
from ptycho_core.data.container import PtychoDataContainer, integer_corners
from ptycho_core.data.raw import RawData
from ptycho_core.data.results import Reconstruction
from ptycho_core.errors import ConfigError
from ptycho_core.networks.architectures import full_channels
from ptycho_core.networks.inference import laid_out_for, stitch_predictions
from ptycho_core.networks.model import NetworkModel, load_network, save_network
from ptycho_core.networks.training import check_trackers, check_trainable
from ptycho_core.physics.patches import check_inside
from ptycho_core.protocol import Capabilities, Progress, no_progress
from ptycho_core.refinement.image import refine_image

from . import physics
from .data import GroupData
from .generators import GENERATORS
from .hardware import Work, choose_devices, choose_hardware
from .inference import ScanPredictor
from .network import PtychoNetwork, constant
from .refinement import TensorflowGradient
from .training import BACKEND, Training

__all__ = ["TensorFlowBackend"]


class TensorFlowBackend:
    """Physics-informed networks in TensorFlow."""

    name = BACKEND
    capabilities = Capabilities(
        generators=tuple(GENERATORS),
        losses=tuple(physics.LOSSES),
        mask=True,
        background=True,
        probe_trainable=True,
        scale_trainable=True,
        refine=True,
        refine_positions=True,
        resume=True,
        precisions=("auto", "32", "bf16"),
        accelerators=("auto", "cpu", "cuda"),
        schedules=("one_cycle", "cosine", "exponential", "constant"),
        loggers=("tensorboard", "mlflow"),
        max_devices=None,
        ignored_fields=("strategy",),
    )

    def train(
        self,
        train: PtychoDataContainer,
        test: PtychoDataContainer | None,
        config: TrainingConfig,
        *,
        progress: Progress = no_progress,
    ) -> NetworkModel:
        """Train a generator through the forward model; see ``ReconstructionBackend.train``."""
        check_trainable(train, test, config)
        check_trackers(config)
        raw = train.raw
        frames = config.epochs * train.n_groups * train.group_size
        work = Work(frames * raw.side**2, full_channels(config.model, raw.side), config.model.sweeps)
        hardware = choose_hardware(config.accelerator, config.precision, work, config.devices)
        with tf.device(hardware.devices[0]):
            network = PtychoNetwork(config, train.probe, train.statistics, raw.mask, raw.background, hardware)
            held_out = None if test is None else GroupData(test)
            training = Training(network, GroupData(train), held_out, config, hardware.devices, progress)
        training.run()
        values = training.final_values()
        return NetworkModel(
            backend=self.name,
            config=config,
            weights=network.generator_weights(values),
            statistics=train.statistics,
            scale=float(np.exp(values["log_scale"])),
            probe=np.ascontiguousarray(values["probe"]).view(np.complex64)[..., 0],
            history=training.state.history,
            checkpoint_path=training.checkpoint_path,
        )

    def reconstruct(
        self,
        model: NetworkModel,
        data: PtychoDataContainer,
        config: InferenceConfig,
        *,
        progress: Progress = no_progress,
    ) -> Reconstruction:
        """Predict, merge and score a scan; see ``ReconstructionBackend.reconstruct``."""
        model.check_side(data)
        scale = model.scale_for(data)
        data = laid_out_for(model, data)
        return stitch_predictions(ScanPredictor(model, data, scale, config), data, scale, config, progress)

    def refine(
        self,
        initial: Reconstruction,
        data: PtychoDataContainer,
        config: TrainingConfig,
        *,
        progress: Progress = no_progress,
    ) -> Reconstruction:
        """Go on from an image through the engine's own physics, in float32; see ``SupportsRefinement``."""
        device = choose_devices(config.accelerator)[0]
        return refine_image(initial, data, config, lambda raw, loss: TensorflowGradient(raw, loss, device), progress)

    def predict_patches(self, model: NetworkModel, container: PtychoDataContainer) -> NDArray[np.complex64]:
        """Patches (B, C, N, N) complex64, each group by itself, before the last merge."""
        model.check_side(container)
        predictor = ScanPredictor(model, container, model.scale_for(container), model.config.inference)
        return np.concatenate([patches for _, patches, _ in predictor.predict(None)])

    def simulate(
        self, obj: NDArray[np.complex64], probe: NDArray[np.complex64], positions_px: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        """Noiseless λ (M, N, N) float32; see ``ReconstructionBackend.simulate``."""
        corners, subpixel = integer_corners(positions_px, probe.shape[-1])
        check_inside(corners, probe.shape[-1], (obj.shape[0], obj.shape[1]))
        with tf.device(_host()):
            patches = physics.extract(tf.constant(obj, tf.complex64)[None], tf.constant(corners)[None], probe.shape[-1])
            rate = physics.expected_counts(patches, tf.constant(probe, tf.complex64), tf.constant(subpixel)[None])
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
                    rate = physics.expected_counts(patches, leaves[1], rest, background=level)
                    value = physics.LOSSES[loss](rate, tf.constant(counts)[None], mask, divisor)
                total += float(value)
                for part, gradient in zip(sums, tape.gradient(value, leaves), strict=True):
                    part += tf.convert_to_tensor(gradient).numpy()
        return total, sums[0], sums[1]

    def save(self, model: NetworkModel, path: Path) -> None:
        """Write the model as a bundle; see specs/50-model-bundle."""
        save_network(model, path, ("tensorflow",))

    def load(self, path: Path) -> NetworkModel:
        """Read a bundle of any engine whose generator is known here."""
        return load_network(path, self.name, tuple(GENERATORS))


def _host() -> str:
    """Name of the CPU, where questions to the physics are answered, as in every engine."""
    (device,) = choose_devices("cpu")
    return device
