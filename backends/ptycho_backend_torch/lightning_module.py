"""The LightningModule: it holds parameters and calls ``physics``; it contains no formula of its own."""

from __future__ import annotations

import math
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ptycho_core.config import TrainingConfig
from ptycho_core.data.container import Statistics
from ptycho_core.networks.architectures import initial_weights
from ptycho_core.networks.schedules import learning_rate_factor

from . import physics
from .generators import GENERATORS, load_weights
from .sweeps import group_estimate, group_passes

__all__ = ["PtychoModule", "complex_parameter"]


def complex_parameter(values: NDArray[np.complex64], trainable: bool) -> nn.Parameter:
    """A complex array as a real parameter (..., 2), which every optimiser and collective understands."""
    return nn.Parameter(torch.view_as_real(torch.from_numpy(values.copy())).clone(), requires_grad=trainable)


class PtychoModule(pl.LightningModule):
    """Generator, probe and intensity scale, trained through the forward model.

    Args:
        config: the training config.
        probe: (P, N, N) complex64 to start from.
        statistics: of the training split.
        mask: (N, N) bool, True = good, or None.
        background: (N, N) float32 expected counts, or None.
        total_steps: optimiser steps of the whole training, which the schedule spans.
    """

    def __init__(
        self,
        config: TrainingConfig,
        probe: NDArray[np.complex64],
        statistics: Statistics,
        mask: NDArray[np.bool_] | None,
        background: NDArray[np.float32] | None,
        total_steps: int,
    ) -> None:
        super().__init__()
        self.config, self.statistics, self.total_steps = config, statistics, total_steps
        N = probe.shape[-1]
        self.generator = GENERATORS[config.model.generator](config, N).to(memory_format=torch.channels_last)
        load_weights(self.generator, initial_weights(config, N))
        self.probe = complex_parameter(probe, config.probe_trainable)
        self.log_scale = nn.Parameter(
            torch.tensor(math.log(statistics.scale), dtype=torch.float32), requires_grad=config.scale_trainable
        )
        self.register_buffer("mask", None if mask is None else torch.from_numpy(mask.copy()), persistent=False)
        self.register_buffer(
            "background", None if background is None else torch.from_numpy(background.copy()), persistent=False
        )
        self.low_precision: torch.dtype | None = None
        self.history: dict[str, list[float]] = {}
        self.variation = math.inf
        self.step_loss = math.nan

    def complex_probe(self) -> Tensor:
        """The probe (P, N, N) complex64."""
        return torch.view_as_complex(self.probe)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Expected counts of a batch through the merged object of each group.

        Returns:
            λ (B, C, N, N) and the patches (B, C, N, N) complex that the groups agree on.
        """
        height, width = (int(n) for n in batch["canvas_shape"])
        corners, N = batch["corners_px"], batch["counts"].shape[-1]
        shifted = physics.fourier_shift(self.complex_probe(), batch["subpixel_px"][..., None, :])
        fixed = shifted.detach()
        scale = self.log_scale.exp()
        weights, known = physics.mode_intensity(fixed), (scale.detach(), self.mask, self.background)
        with torch.no_grad():
            estimate = group_estimate(
                batch["counts"], fixed, weights, corners, (height, width), *known, self.generator.sweeps
            )

        def one(estimate: Tensor) -> Tensor:
            patches: Tensor = self.generator(estimate, batch["counts"], fixed, *known, self.low_precision)
            return patches

        patches = group_passes(one, estimate, weights, corners, (height, width), self.generator.passes)
        canvas = physics.merge(patches, weights, corners, (height, width))
        agreed = physics.extract(canvas, corners, N)
        rate = physics.rate_of_waves(shifted * agreed[..., None, :, :], scale, self.background)
        return rate, agreed

    def _loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        rate, patches = self(batch)
        divisor = rate.shape[0] * rate.shape[1] * self.statistics.mean_counts
        return physics.LOSSES[self.config.loss](rate, batch["counts"], self.mask, divisor), patches

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Loss of a batch; Lightning steps the optimiser."""
        loss, patches = self._loss(batch)
        if batch_idx % 10 == 0:
            self.variation = self._variation(patches.detach())
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Loss of a held-out batch."""
        loss, _ = self._loss(batch)
        self.log("test_loss", loss, on_epoch=True, batch_size=len(batch["counts"]), sync_dist=True)

    def _variation(self, patches: Tensor) -> float:
        """How much the object varies where the probe lights it, relative to its size."""
        weight = physics.mode_intensity(self.complex_probe().detach())
        weight = weight / weight.sum()
        mean = (weight * patches).sum(dim=(-2, -1)).mean()
        spread = (weight * (patches - mean).abs().square()).sum(dim=(-2, -1)).mean()
        return float((spread / mean.abs().square().clamp_min(1e-12)).sqrt())

    def configure_optimizers(self) -> dict[str, Any]:
        """Adam with one group each for network, probe and scale, and a schedule that steps with every batch."""
        config = self.config
        groups: list[dict[str, Any]] = [
            {
                "params": list(self.generator.parameters()),
                "lr": config.learning_rate,
                "weight_decay": config.weight_decay,
            }
        ]
        if config.probe_trainable:
            size = float(self.probe.detach().square().sum(-1).mean().sqrt())
            groups.append({"params": [self.probe], "lr": config.probe_learning_rate * size, "weight_decay": 0.0})
        if config.scale_trainable:
            groups.append({"params": [self.log_scale], "lr": config.scale_learning_rate, "weight_decay": 0.0})
        optimizer = torch.optim.AdamW(groups, fused=True)
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(config.schedule, step, self.total_steps)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the network's gradient; probe and scale have steps of their own size and are left alone."""
        if self.config.gradient_clip_norm is not None:
            nn.utils.clip_grad_norm_(self.generator.parameters(), self.config.gradient_clip_norm)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the history in the checkpoint, as plain values."""
        checkpoint["ptycho_history"] = {name: list(values) for name, values in self.history.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the history up again."""
        self.history = {name: list(values) for name, values in checkpoint.get("ptycho_history", {}).items()}
