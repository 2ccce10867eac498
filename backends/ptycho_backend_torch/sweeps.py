"""Parallel solver sweeps before the network, and merges: each group on its own canvas."""

from __future__ import annotations

import torch
from torch import Tensor

from ptycho_core.data.propagation import Propagation

from . import physics

__all__ = ["group_agreed", "group_estimate"]


def group_estimate(
    counts: Tensor,
    shifted_probe: Tensor,
    weights: Tensor,
    corners_px: Tensor,
    shape: tuple[int, int],
    scale: Tensor | float,
    mask: Tensor | None,
    background: Tensor | None,
    propagation: Propagation,
    sweeps: int,
) -> Tensor:
    """Estimate of each patch after some sweeps from the flat object, each group on its own canvas.

    Args:
        counts: (B, C, N, N).
        shifted_probe: (B, C, P, N, N) complex.
        weights: (B, C, N, N) of the merge.
        corners_px: (B, C, 2) integer.
        shape: (H, W) of every canvas.
        scale: s.
        mask: (N, N) True = good, or None.
        background: (N, N) or None.
        propagation: of the scan.
        sweeps: how many.

    Returns:
        (B, C, N, N) complex.
    """
    patches = torch.ones_like(shifted_probe[..., 0, :, :])
    if sweeps == 0:
        return patches
    plan = physics.SolverPlan(shifted_probe, counts, mask, background, scale, propagation)
    index = physics.patch_index(corners_px, counts.shape[-1], shape)
    total = physics.accumulate(weights, corners_px, shape)
    empty = torch.zeros(total.numel(), dtype=patches.dtype, device=patches.device)
    for _ in range(sweeps):
        moved = plan.sweep(patches) * weights
        canvas = physics.weighted_mean(empty.index_add(0, index, moved.reshape(-1)), total.reshape(-1))
        patches = canvas.index_select(0, index).reshape(patches.shape)
    return patches


def group_agreed(patches: Tensor, weights: Tensor, corners_px: Tensor, shape: tuple[int, int]) -> Tensor:
    """Patches (B, C, N, N) that the merge of some gives, each group on its own canvas; arguments as above."""
    canvas = physics.merge(patches, weights, corners_px, shape)
    return physics.extract(canvas, corners_px, weights.shape[-1])
