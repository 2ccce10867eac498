"""The engine: it takes containers and configs from core, and gives NumPy arrays and frozen results back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ptycho_core.config import InferenceConfig, TrainingConfig
from ptycho_core.data.container import PtychoDataContainer, integer_corners
from ptycho_core.data.raw import RawData
from ptycho_core.data.results import Reconstruction
from ptycho_core.errors import ConfigError
from ptycho_core.networks.inference import laid_out_for, stitch_predictions
from ptycho_core.networks.model import NetworkModel, load_network, save_network
from ptycho_core.networks.training import check_trainable, steps_an_epoch
from ptycho_core.physics.patches import check_inside
from ptycho_core.protocol import Capabilities, Progress, no_progress
from ptycho_core.refinement.image import refine_image

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
        train: PtychoDataContainer,
        test: PtychoDataContainer | None,
        config: TrainingConfig,
        *,
        progress: Progress = no_progress,
    ) -> NetworkModel:
        """Train a generator through the forward model; see ``ReconstructionBackend.train``."""
        check_trainable(train, test, config)
        data = GroupDataModule(train, test, config)
        steps = config.epochs * steps_an_epoch(train.n_groups, config)
        raw = train.raw
        module = PtychoModule(config, train.probe, train.statistics, raw.mask, raw.background, steps)
        module.low_precision = low_precision(config.precision, choose_device(config.accelerator))
        checkpoint_path = fit(module, data, config, progress)
        module = module.cpu()
        return NetworkModel(
            backend=self.name,
            config=config,
            weights={name: value.detach().numpy().copy() for name, value in module.generator.state_dict().items()},
            statistics=train.statistics,
            scale=float(module.log_scale.detach().exp()),
            probe=module.complex_probe().detach().numpy().copy(),
            history=module.history,
            checkpoint_path=checkpoint_path,
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
        with torch.inference_mode():
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
        device = choose_device(config.accelerator)
        return refine_image(initial, data, config, lambda raw, loss: TorchGradient(raw, loss, device), progress)

    def predict_patches(self, model: NetworkModel, container: PtychoDataContainer) -> NDArray[np.complex64]:
        """Patches (B, C, N, N) complex64, each group by itself, before the last merge."""
        model.check_side(container)
        with torch.inference_mode():
            predictor = ScanPredictor(model, container, model.scale_for(container), model.config.inference)
            return np.concatenate([patches for _, patches, _ in predictor.predict(None)])

    def simulate(
        self, obj: NDArray[np.complex64], probe: NDArray[np.complex64], positions_px: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        """Noiseless λ (M, N, N) float32; see ``ReconstructionBackend.simulate``."""
        corners, subpixel = integer_corners(positions_px, probe.shape[-1])
        check_inside(corners, probe.shape[-1], (obj.shape[0], obj.shape[1]))
        with torch.inference_mode():
            patches = physics.extract(
                torch.from_numpy(np.array(obj, np.complex64))[None], torch.from_numpy(corners)[None], probe.shape[-1]
            )
            rate = physics.expected_counts(
                patches, torch.from_numpy(np.array(probe, np.complex64)), torch.from_numpy(subpixel)[None]
            )
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
