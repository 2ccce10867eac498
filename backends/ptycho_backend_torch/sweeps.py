"""Parallel solver sweeps before the network, and its passes: each group on its own canvas."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ptycho_core.data.propagation import Propagation

from . import physics

__all__ = ["group_estimate", "group_passes"]


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


def group_passes(
    one: Callable[[Tensor], Tensor],
    estimate: Tensor,
    weights: Tensor,
    corners_px: Tensor,
    shape: tuple[int, int],
    passes: int,
) -> Tensor:
    """What a generator says of each patch in the last of some passes, each group on its own canvas (FM-20).

    Args:
        one: the generator bound to the groups: (B, C, N, N) complex estimate → patches. It is asked once in every
            pass, for what the merge of its last answers gives.
        estimate: (B, C, N, N) complex, to start from.
        weights: (B, C, N, N) of the merge.
        corners_px: (B, C, 2) integer.
        shape: (H, W) of every canvas.
        passes: how many.

    Returns:
        (B, C, N, N) complex patches before the last merge.
    """
    patches = one(estimate)
    for _ in range(passes - 1):
        canvas = physics.merge(patches, weights, corners_px, shape)
        patches = one(physics.extract(canvas, corners_px, weights.shape[-1]))
    return patches
