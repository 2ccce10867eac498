"""Parallel solver sweeps before the network, and merges: each group on its own canvas."""

from __future__ import annotations

import tensorflow as tf

from ptycho_core.data.propagation import Propagation

from . import physics

__all__ = ["group_agreed", "group_estimate"]


def group_estimate(
    counts: tf.Tensor,
    shifted_probe: tf.Tensor,
    weights: tf.Tensor,
    corners_px: tf.Tensor,
    shape: tuple[int, int],
    scale: tf.Tensor | float,
    mask: tf.Tensor | None,
    background: tf.Tensor | None,
    propagation: Propagation,
    sweeps: int,
) -> tf.Tensor:
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
    patches = tf.ones_like(shifted_probe[..., 0, :, :])
    if sweeps == 0:
        return patches
    plan = physics.SolverPlan.of(shifted_probe, counts, mask, background, scale, propagation)
    index = physics.patch_index(corners_px, counts.shape[-1], shape)
    n_pixels = int(counts.shape[0]) * shape[0] * shape[1]
    total = tf.math.unsorted_segment_sum(tf.reshape(weights, [-1]), index, n_pixels)

    def sweep(estimate: tf.Tensor) -> tuple[tf.Tensor]:
        moved = tf.reshape(physics.times(plan.sweep(estimate), weights), [-1])
        canvas = physics.weighted_mean(tf.math.unsorted_segment_sum(moved, index, n_pixels), total)
        return (tf.reshape(tf.gather(canvas, index), patches.shape),)

    return tf.while_loop(lambda _: True, sweep, (patches,), maximum_iterations=sweeps)[0]


def group_agreed(patches: tf.Tensor, weights: tf.Tensor, corners_px: tf.Tensor, shape: tuple[int, int]) -> tf.Tensor:
    """Patches (B, C, N, N) that the merge of some gives, each group on its own canvas; arguments as above."""
    canvas = physics.merge(patches, weights, corners_px, shape)
    return physics.extract(canvas, corners_px, weights.shape[-1])
