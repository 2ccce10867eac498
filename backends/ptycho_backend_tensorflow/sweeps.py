"""Parallel solver sweeps before the network, and its passes: each group on its own canvas."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from ptycho_core.data.propagation import Propagation

from . import physics

__all__ = ["group_estimate", "group_passes"]


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


def group_passes(
    one: Callable[[tf.Tensor], tf.Tensor],
    estimate: tf.Tensor,
    weights: tf.Tensor,
    corners_px: tf.Tensor,
    shape: tuple[int, int],
    passes: int,
) -> tf.Tensor:
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
