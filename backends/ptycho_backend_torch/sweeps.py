"""Parallel solver sweeps before the network, and its passes: each group on its own canvas."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

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
        sweeps: how many.

    Returns:
        (B, C, N, N) complex.
    """
    patches = torch.ones_like(shifted_probe[..., 0, :, :])
    if sweeps == 0:
        return patches
    plan = physics.SolverPlan(shifted_probe, counts, mask, background, scale)
    index = physics.patch_index(corners_px, counts.shape[-1], shape)
    total = physics.accumulate(weights, corners_px, shape)
    empty = torch.zeros(total.numel(), dtype=patches.dtype, device=patches.device)
    for _ in range(sweeps):
        moved = plan.sweep(patches) * weights
        canvas = physics.weighted_mean(empty.index_add(0, index, moved.reshape(-1)), total.reshape(-1))
        patches = canvas.index_select(0, index).reshape(patches.shape)
    return patches


def group_passes(
    generator: nn.Module,
    estimate: Tensor,
    counts: Tensor,
    shifted_probe: Tensor,
    weights: Tensor,
    corners_px: Tensor,
    shape: tuple[int, int],
    scale: Tensor | float,
    mask: Tensor | None,
    background: Tensor | None,
    low_precision: torch.dtype | None,
    passes: int,
    recompute: bool = False,
) -> Tensor:
    """What a generator says of each patch in the last of some passes, each group on its own canvas (FM-20).

    Args:
        generator: asked once in every pass, for what the merge of its last answers gives.
        estimate: (B, C, N, N) complex, to start from.
        counts: (B, C, N, N).
        shifted_probe: (B, C, P, N, N) complex.
        weights: (B, C, N, N) of the merge.
        corners_px: (B, C, 2) integer.
        shape: (H, W) of every canvas.
        scale: s.
        mask: (N, N) True = good, or None.
        background: (N, N) or None.
        low_precision: of the network's body.
        passes: how many.
        recompute: whether the backward pass computes what is inside a pass again instead of keeping it.

    Returns:
        (B, C, N, N) complex patches before the last merge.
    """
    known = (counts, shifted_probe, scale, mask, background, low_precision)

    def one(estimate: Tensor) -> Tensor:
        patches: Tensor = generator(estimate, *known)
        return patches

    for number in range(passes):
        if number > 0:
            estimate = physics.extract(
                physics.merge(patches, weights, corners_px, shape), corners_px, counts.shape[-1]
            )
        patches = checkpoint(one, estimate, use_reentrant=False) if recompute else one(estimate)
    return patches
