"""The engine: it takes containers and configs from core, and gives NumPy arrays and frozen results back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ptycho_core.architectures import cnn_filters, generator_shapes
from ptycho_core.bundle import Bundle, read_bundle, write_bundle
from ptycho_core.config import InferenceConfig, TrainingConfig
from ptycho_core.data.container import PtychoDataContainer, Statistics, integer_corners
from ptycho_core.data.raw import RawData
from ptycho_core.data.results import Reconstruction
from ptycho_core.errors import ArchiveError, ConfigError
from ptycho_core.physics.patches import check_inside
from ptycho_core.protocol import Capabilities, Progress, ProgressEvent, no_progress
from ptycho_core.provenance import machine, package_versions
from ptycho_core.stitching import Stitcher, finish_reconstruction

from . import physics
from .data import GroupDataModule
from .generators import GENERATORS
from .hardware import choose_device, low_precision
from .inference import ScanPredictor
from .lightning_module import PtychoModule, load_weights
from .training import fit

__all__ = ["TorchBackend", "TorchModel"]


@dataclass(frozen=True, kw_only=True, eq=False)
class TorchModel:
    """A trained generator with the probe and scale it was trained to.

    Attributes:
        generator: the network, on the CPU, in evaluation mode.
        config: the config it was trained with.
        statistics: constants of the training split.
        scale: s at the end of training.
        probe: (P, N, N) complex64 at the end of training.
        history: name → one float an epoch.
        checkpoint_path: where training can be resumed from.
        backend: engine name.
    """

    generator: nn.Module
    config: TrainingConfig
    statistics: Statistics
    scale: float
    probe: NDArray[np.complex64]
    history: Mapping[str, list[float]]
    checkpoint_path: Path | None = None
    backend: str = "pytorch"


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
    ) -> TorchModel:
        """Train a generator through the forward model; see ``ReconstructionBackend.train``."""
        if config.model.generator == "cnn" and test is not None and test.group_size != train.group_size:
            raise ConfigError(
                f"generator 'cnn' needs test groups of {train.group_size} frames, like its training groups, but there "
                f"are only {test.group_size} test frames; lower group_size or raise test_fraction."
            )
        if config.scale_trainable and train.raw.probe_calibrated:
            raise ConfigError(
                f"scale_trainable = True, but the probe of {train.raw.source.path or 'the scan'} is calibrated: it is "
                "in photons, and its scale is 1 and fixed. Leave scale_trainable out, or give the probe uncalibrated."
            )
        data = GroupDataModule(train, test, config)
        steps = config.epochs * math.ceil(train.n_groups / (config.batch_size * config.devices))
        raw = train.raw
        module = PtychoModule(config, train.probe, train.statistics, raw.mask, raw.background, steps)
        module.low_precision = low_precision(config.precision, choose_device(config.accelerator))
        checkpoint_path = fit(module, data, config, progress)
        module = module.cpu().eval()
        return TorchModel(
            generator=module.generator.requires_grad_(False),
            config=config,
            statistics=train.statistics,
            scale=float(module.log_scale.detach().exp()),
            probe=module.complex_probe().detach().numpy().copy(),
            history=module.history,
            checkpoint_path=checkpoint_path,
        )

    def reconstruct(
        self,
        model: TorchModel,
        data: PtychoDataContainer,
        config: InferenceConfig,
        *,
        progress: Progress = no_progress,
    ) -> Reconstruction:
        """Predict, merge and score a scan; see ``ReconstructionBackend.reconstruct``."""
        _check_side(model, data)
        scale = data.statistics.scale * model.scale / model.statistics.scale
        data = _one_frame_groups(model, data)
        predictor = ScanPredictor(model.generator, data, scale, config, _width(model, data))
        M, passes = data.raw.n_frames, model.generator.sweeps + 1

        def report(done: int) -> None:
            progress(ProgressEvent(stage="reconstruct", done=done, total=M * passes))

        stitcher = Stitcher.for_scan(data.raw, config.central_crop_px)
        done = M * model.generator.sweeps
        with torch.inference_mode():
            canvas = predictor.scan_estimate(lambda sweep: report(M * (sweep + 1)))
            for groups, patches, weights in predictor.predict(canvas):
                counted = data.counted[groups]
                corners = data.corners_px[groups] + data.canvas_origin_px[groups][:, None]
                stitcher.add(patches[counted], weights.cpu().numpy()[counted], corners[counted])
                done += int(counted.sum())
                report(done)
        peak = float(np.sum(np.abs(data.probe) ** 2, axis=0).max())
        obj, coverage = stitcher.finish(peak)
        return finish_reconstruction(
            obj, coverage, stitcher.origin_px, data.probe, scale, data,
            dropped={"non_finite_patches": stitcher.n_non_finite},
        )  # fmt: skip

    def predict_patches(self, model: TorchModel, container: PtychoDataContainer) -> NDArray[np.complex64]:
        """Patches (B, C, N, N) complex64, each group by itself, before the last merge."""
        _check_side(model, container)
        scale = container.statistics.scale * model.scale / model.statistics.scale
        predictor = ScanPredictor(model.generator, container, scale, model.config.inference, _width(model, container))
        with torch.inference_mode():
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

    def save(self, model: TorchModel, path: Path) -> None:
        """Write the model as a bundle; see specs/50-model-bundle."""
        weights = {name: value.detach().cpu().numpy() for name, value in model.generator.state_dict().items()}
        write_bundle(
            path,
            Bundle(
                backend=self.name,
                generator=model.config.model.generator,
                side=model.probe.shape[-1],
                config=model.config,
                statistics=model.statistics,
                scale=model.scale,
                weights=weights,
                probe=model.probe,
                history={name: list(values) for name, values in model.history.items()},
                provenance={
                    "versions": package_versions(("torch", "lightning")),
                    "machine": machine(),
                    "seed": model.config.seed,
                },
            ),
        )

    def load(self, path: Path) -> TorchModel:
        """Read a bundle of any engine whose generator is known here."""
        bundle = read_bundle(path)
        if bundle.generator is None or bundle.generator not in GENERATORS:
            raise ArchiveError(
                f"{path}: made by engine {bundle.backend!r} with generator {bundle.generator!r}, which engine "
                f"{self.name!r} does not have (it has {', '.join(GENERATORS)}); load it with the engine that made it."
            )
        bundle = read_bundle(path, expected_weights=generator_shapes)
        generator = GENERATORS[bundle.config.model.generator](bundle.config, bundle.side)
        load_weights(generator, bundle.weights)
        return TorchModel(
            generator=generator.eval().requires_grad_(False),
            config=bundle.config,
            statistics=bundle.statistics,
            scale=bundle.scale,
            probe=bundle.probe,
            history=bundle.history,
        )


def _check_side(model: TorchModel, data: PtychoDataContainer) -> None:
    side = model.probe.shape[-1]
    if model.config.model.generator == "cnn" and data.raw.side != side:
        raise ConfigError(f"the model was trained on frames of {side}×{side}; this scan has {data.raw.side}.")
    generator_shapes(model.config, data.raw.side)  # refuses a side that the network cannot halve often enough


def _one_frame_groups(model: TorchModel, data: PtychoDataContainer) -> PtychoDataContainer:
    """The frames that count, one by one where the generator takes groups of any size: frames then bound the memory."""
    if model.config.model.generator == "cnn":
        return data
    return PtychoDataContainer.from_groups(data.raw, data.frame_indices[data.counted][:, None], None, data.statistics)


def _width(model: TorchModel, data: PtychoDataContainer) -> int:
    """Channels at full resolution, which decide how much memory a frame needs."""
    config = model.config.model
    return config.width if config.generator == "probe_unet" else max(cnn_filters(config, data.raw.side)[1])
