"""The trained parameters and their loss: parameters and calls to ``physics``, and no formula of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ptycho_core.config import TrainingConfig
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.enginekit.passes import learned_passes
from ptycho_core.enginekit.weights import initial_weights, network_of

from . import physics
from .generators import build, load_weights
from .sweeps import group_agreed, group_estimate

__all__ = ["PtychoNetwork", "complex_parameter"]


def complex_parameter(values: NDArray[np.complex64], trainable: bool) -> nn.Parameter:
    """A complex array as a real parameter (..., 2), which every optimiser and collective understands."""
    return nn.Parameter(torch.view_as_real(torch.from_numpy(values.copy())).clone(), requires_grad=trainable)


class ScanConstants(nn.Module):
    """What a scan brings to the forward model and training leaves alone.

    Attributes:
        mask: (N, N) bool, True = good, or None.
        background: (N, N) float32 expected counts, or None.
        propagation: from the object to the detector.
        mean_counts: the divisor of its loss.
    """

    mask: Tensor | None
    background: Tensor | None

    def __init__(self, scan: PtychoDataContainer) -> None:
        super().__init__()
        for name, array in (("mask", scan.raw.mask), ("background", scan.raw.background)):
            self.register_buffer(name, None if array is None else torch.from_numpy(array.copy()), persistent=False)
        self.propagation, self.mean_counts = scan.raw.propagation, scan.statistics.mean_counts


class PtychoNetwork(nn.Module):
    """A generator, and the probe and intensity scale of each scan, trained through the forward model.

    Probes and scales are parameters of their own, so that a step with one scan moves nothing of another: to an
    optimiser with momentum, a gradient of zero is not the same as none.

    Args:
        config: the training config.
        scans: those that are trained on, then those that only add to the held-out loss; these are of the experiment
            of the first and use its probe and scale.
        n_trained: how many are trained on.
        low_precision: of the generator's body; None is float32.

    Attributes:
        probes: (P, N, N, 2) of each scan that is trained on.
        log_scales: () of each scan that is trained on.
    """

    def __init__(
        self,
        config: TrainingConfig,
        scans: Sequence[PtychoDataContainer],
        n_trained: int,
        low_precision: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.config, self.network, self.low_precision = config, network_of(config.network), low_precision
        N, trained = scans[0].raw.side, scans[:n_trained]
        self.generator = build(config, N).to(memory_format=torch.channels_last)
        load_weights(self.generator, initial_weights(config, N))
        self.probes = nn.ParameterList([complex_parameter(scan.probe, config.probe_trainable) for scan in trained])
        scales = [torch.tensor(math.log(scan.statistics.scale), dtype=torch.float32) for scan in trained]
        self.log_scales = nn.ParameterList([nn.Parameter(s, requires_grad=config.scale_trainable) for s in scales])
        self.constants = nn.ModuleList([ScanConstants(scan) for scan in scans])

    def probe_and_scale(self, scan: int) -> tuple[Tensor, Tensor]:
        """Probe (P, N, N) complex64 and scale () of a scan as they are now."""
        own = scan if scan < len(self.probes) else 0
        return torch.view_as_complex(self.probes[own]), self.log_scales[own].exp()

    def forward(self, batch: dict[str, Tensor], *, counted: bool = False) -> tuple[Tensor, Tensor]:
        """Loss of a batch through the merged object of each group.

        Args:
            batch: groups.
            counted: leave out frames that only fill a group up, and divide by the others.

        Returns:
            the loss () and the patches (B, C, N, N) complex that the groups agree on.
        """
        scan = int(batch["scan"])
        probe, scale = self.probe_and_scale(scan)
        constants: ScanConstants = self.constants[scan]
        height, width = (int(n) for n in batch["canvas_shape"])
        corners = batch["corners_px"]
        shifted = physics.fourier_shift(probe, batch["subpixel_px"][..., None, :])
        fixed = shifted.detach()
        weights = physics.mode_intensity(fixed)
        known = (scale.detach(), constants.mask, constants.background, constants.propagation)
        with torch.no_grad():
            estimate = group_estimate(
                batch["counts"], fixed, weights, corners, (height, width), *known, self.network.sweeps
            )

        def one(estimate: Tensor) -> Tensor:
            patches: Tensor = self.generator(estimate, batch["counts"], fixed, *known, self.low_precision)
            return patches

        def agree(patches: Tensor) -> Tensor:
            return group_agreed(patches, weights, corners, (height, width))

        agreed = agree(learned_passes(one, agree, estimate, self.network.passes))
        waves = shifted * agreed[..., None, :, :]
        rate = physics.rate_of_waves(waves, scale, constants.background, constants.propagation)
        mask, n_frames = constants.mask, rate.shape[0] * rate.shape[1]
        if counted:
            good, n_frames = batch["counted"][..., None, None], int(batch["counted"].sum())
            mask = good if mask is None else mask & good
        divisor = n_frames * constants.mean_counts
        return physics.LOSSES[self.config.loss](rate, batch["counts"], mask, divisor), agreed

    def variation(self, patches: Tensor, scan: int) -> Tensor:
        """How much the object varies where the probe lights it, relative to its size."""
        weight = physics.mode_intensity(self.probe_and_scale(scan)[0].detach())
        return physics.relative_variation(patches.detach(), weight)

    def groups(self) -> list[dict[str, Any]]:
        """Network, each probe and the scales with a learning rate; only the network is decayed."""
        config = self.config
        groups: list[dict[str, Any]] = [
            {
                "params": list(self.generator.parameters()),
                "lr": config.learning_rate,
                "weight_decay": config.weight_decay,
            }
        ]
        if config.probe_trainable:
            for probe in self.probes:
                size = float(probe.detach().square().sum(-1).mean().sqrt())
                groups.append({"params": [probe], "lr": config.probe_learning_rate * size, "weight_decay": 0.0})
        if config.scale_trainable:
            groups.append({"params": [*self.log_scales], "lr": config.scale_learning_rate, "weight_decay": 0.0})
        return groups
