"""The engine: it takes containers and configs from core, and gives NumPy arrays and frozen results back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ptycho_core.config import InferenceConfig, TrainingConfig
from ptycho_core.data.container import PtychoDataContainer, integer_corners
from ptycho_core.data.raw import RawData
from ptycho_core.data.results import Image
from ptycho_core.enginekit.groups import Groups
from ptycho_core.enginekit.network_inference import laid_out_for, stitch_predictions
from ptycho_core.enginekit.network_model import NetworkModel, load_network, save_network
from ptycho_core.enginekit.network_training import check_trainable
from ptycho_core.enginekit.refining import refine_image
from ptycho_core.enginekit.stitching import corners_on
from ptycho_core.errors import ConfigError
from ptycho_core.physics.patches import check_inside
from ptycho_core.protocol import Capabilities, Progress, no_progress
from ptycho_core.runtime import DEFAULT_RUNTIME, Runtime

from . import physics
from .data import GroupDataModule
from .generators import GENERATORS
from .hardware import choose_device, low_precision
from .inference import ScanPredictor
from .lightning_module import PtychoModule
from .refinement import TorchGradient
from .training import fit

__all__ = ["TorchBackend"]


class TorchBackend:
    """Physics-informed networks in PyTorch, trained with Lightning."""

    name = "pytorch"
    capabilities = Capabilities(
        generators=tuple(GENERATORS),
        losses=tuple(physics.LOSSES),
        max_scans=None,
        mask=True,
        background=True,
        probe_trainable=True,
        scale_trainable=True,
        refine=True,
        refine_positions=True,
        resume=True,
        precisions=("auto", "32", "bf16"),
        accelerators=("auto", "cpu", "cuda", "mps"),
        schedules=("one_cycle", "cosine", "exponential", "constant"),
        loggers=("tensorboard", "mlflow"),
        max_devices=None,
    )

    def train(
        self,
        scans: Sequence[PtychoDataContainer],
        config: TrainingConfig,
        runtime: Runtime = DEFAULT_RUNTIME,
        *,
        progress: Progress = no_progress,
    ) -> NetworkModel:
        """Train one generator on all scans through the forward model; see ``ReconstructionBackend.train``.

        Probe, scale and statistics of the model are those of the first scan.
        """
        check_trainable(scans, config)
        data = GroupDataModule(scans, config, runtime)
        steps = config.epochs * data.train_set.draw.steps_an_epoch(runtime.devices)
        module = PtychoModule(config, data.scans, data.n_trained, steps)
        module.low_precision = low_precision(runtime.precision, choose_device(runtime.accelerator))
        checkpoint_path = fit(module, data, progress)
        module = module.cpu()
        probe, scale = (value.detach() for value in module.probe_and_scale(0))
        return NetworkModel(
            backend=self.name,
            config=config,
            weights={name: value.detach().numpy().copy() for name, value in module.generator.state_dict().items()},
            statistics=data.scans[0].statistics,
            scale=float(scale),
            probe=probe.numpy().copy(),
            history=module.history,
            checkpoint_path=checkpoint_path,
        )

    def reconstruct(
        self,
        model: NetworkModel,
        scan: PtychoDataContainer,
        config: InferenceConfig,
        runtime: Runtime = DEFAULT_RUNTIME,
        *,
        progress: Progress = no_progress,
    ) -> Image:
        """Predict and merge the training frames of a scan; see ``ReconstructionBackend.reconstruct``."""
        model.check_side(scan)
        scale, groups = model.scale_for(scan), laid_out_for(model, scan)
        with torch.inference_mode():
            return stitch_predictions(
                ScanPredictor(model, groups, scale, config, runtime), groups, scale, config, progress
            )

    def refine(
        self,
        image: Image,
        scan: PtychoDataContainer,
        config: TrainingConfig,
        runtime: Runtime = DEFAULT_RUNTIME,
        *,
        progress: Progress = no_progress,
    ) -> Image:
        """Go on from an image through the engine's own physics, in float32; see ``SupportsRefinement``."""
        device = choose_device(runtime.accelerator)
        return refine_image(image, scan, config, lambda raw, loss: TorchGradient(raw, loss, device), progress)

    def predict_patches(self, model: NetworkModel, groups: Groups) -> NDArray[np.complex64]:
        """Patches (B, C, N, N) complex64, each group by itself, before the last merge."""
        model.check_side(groups.scan)
        with torch.inference_mode():
            predictor = ScanPredictor(model, groups, model.scale_for(groups.scan), model.config.inference, Runtime())
            return np.concatenate([patches for _, patches, _ in predictor.predict(None)])

    def expected_counts(
        self, image: Image, scan: PtychoDataContainer, frames: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """λ (n, N, N) float32 of some frames (n,), on the CPU; see ``SupportsExpectedCounts``.

        Raises:
            DataError: a frame leaves the image.
        """
        N, level = scan.raw.side, scan.raw.background
        corners, subpixel = corners_on(image, frames)
        with torch.inference_mode():
            obj, probe = (torch.from_numpy(np.array(part, np.complex64)) for part in (image.object, image.probe))
            patches = physics.extract(obj[None], torch.from_numpy(corners)[None], N)
            background = None if level is None else torch.from_numpy(level.copy())
            rate = physics.expected_counts(patches, probe, torch.from_numpy(subpixel)[None], image.scale, background)
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
                patches, probe_leaf, torch.from_numpy(subpixel[indices])[None], background=level
            )
            value = physics.LOSSES[loss](rate, torch.from_numpy(counts)[None], mask, divisor)
            torch.autograd.backward(value)
            total += float(value.detach())
        assert object_leaf.grad is not None
        assert probe_leaf.grad is not None
        return total, object_leaf.grad.numpy().copy(), probe_leaf.grad.numpy().copy()

    def save(self, model: NetworkModel, path: Path) -> None:
        """Write the model as a bundle; see specs/50-model-bundle."""
        save_network(model, path, ("torch", "lightning"))

    def load(self, path: Path) -> NetworkModel:
        """Read a bundle of any engine whose generator is known here."""
        return load_network(path, self.name, tuple(GENERATORS))
