"""Applying a trained generator to a whole scan, a bounded number of frames at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from ptycho_core.config import InferenceConfig
from ptycho_core.data.container import PtychoDataContainer
from torch import nn

from . import physics
from .hardware import choose_device, low_precision

__all__ = ["Prediction", "predict_groups"]

_BYTES = 384 * 2**20
_BYTES_PER_PIXEL_AND_CHANNEL = 40

Prediction = tuple[NDArray[np.int64], NDArray[np.complex64], NDArray[np.float32]]


def groups_at_once(data: PtychoDataContainer, config: InferenceConfig, width: int) -> int:
    """Groups in a step: as many as `batch_size` frames fill, fewer where their activations would not fit."""
    C, N, P = data.group_size, data.raw.side, len(data.probe)
    per_frame = N * N * (_BYTES_PER_PIXEL_AND_CHANNEL * width + 80 * P)
    return max(1, min(config.batch_size // C, _BYTES // (per_frame * C)))


def predict_groups(
    generator: nn.Module, data: PtychoDataContainer, scale: float, config: InferenceConfig, width: int
) -> Iterator[Prediction]:
    """Predict the patches of a container.

    Args:
        generator: trained, on any device; it is moved to the one asked for.
        data: groups of frames.
        scale: s.
        config: batch size, accelerator, precision.
        width: channels of the widest full-resolution layer, for the memory estimate.

    Yields:
        group numbers (b,), patches (b, C, N, N) complex64 and weights (b, C, N, N) float32.

    Raises:
        ConfigError: the accelerator is not there.
    """
    device = choose_device(config.accelerator)
    reduced = low_precision(config.precision, device)
    generator = generator.to(device).eval()
    probe = torch.from_numpy(data.probe.copy()).to(device)
    mask = None if data.raw.mask is None else torch.from_numpy(data.raw.mask.copy()).to(device)
    level = None if data.raw.background is None else torch.from_numpy(data.raw.background.copy()).to(device)
    step = groups_at_once(data, config, width)
    for start in range(0, data.n_groups, step):
        groups = np.arange(start, min(start + step, data.n_groups))
        counts = torch.from_numpy(data.read_group_counts(groups)).to(device)
        subpixel = torch.from_numpy(data.subpixel_px[groups]).to(device)
        with torch.inference_mode():
            shifted = physics.fourier_shift(probe, subpixel[..., None, :])
            patches = generator(counts, shifted, scale, mask, level, reduced)
            weights = physics.probe_weights(shifted)
        yield groups, patches.cpu().numpy(), weights.cpu().numpy()
