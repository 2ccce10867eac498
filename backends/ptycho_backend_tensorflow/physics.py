"""The TensorFlow twin of ``ptycho_core.physics``: same names and argument order, in the precision of its input.

Every function accepts leading batch axes where the oracle has none, so that several groups can be treated at once,
and is differentiable.
Formulas and identifiers are those of specs/20-forward-model. TensorFlow's gradient of a real loss with respect to a
complex tensor is ∂L/∂Re + i ∂L/∂Im, as everywhere here.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from ptycho_core.data.propagation import FAR_FIELD, Propagation
from ptycho_core.physics.likelihood import RATE_FLOOR
from ptycho_core.physics.sweep import DAMPING, GAIN_LIMIT, RELAXATION, SIZE_FLOOR

from .propagation import Propagator, far_field, far_field_adjoint, propagate, propagate_adjoint, times

__all__ = [
    "LOSSES",
    "RELAXATION",
    "Propagator",
    "SolverPlan",
    "accumulate",
    "amplitude_loss",
    "exit_waves",
    "expected_counts",
    "extract",
    "far_field",
    "far_field_adjoint",
    "fourier_shift",
    "merge",
    "mode_intensity",
    "patch_index",
    "poisson_loss",
    "propagate",
    "propagate_adjoint",
    "rate_of_waves",
    "relative_amplitude",
    "relative_variation",
    "relative_weight",
    "shift_ramp",
    "solver_update",
    "swept",
    "times",
    "weighted_mean",
    "weighted_size",
]

Tensor = tf.Tensor


def _squared(wave: Tensor) -> Tensor:
    return tf.square(tf.math.real(wave)) + tf.square(tf.math.imag(wave))


def shift_ramp(shift_px: Tensor, N: int) -> Tensor:
    """e^{−2πi(f_y δ_y + f_x δ_x)}: (..., 2) real → (..., N, N) complex, zero frequency at index 0."""
    frequency = tf.constant(np.fft.fftfreq(N), shift_px.dtype)
    angle = -2 * math.pi * shift_px[..., None] * frequency
    ramp = tf.complex(tf.cos(angle), tf.sin(angle))
    return ramp[..., 0, :, None] * ramp[..., 1, None, :]


def fourier_shift(wave: Tensor, shift_px: Tensor) -> Tensor:
    """(S(δ)P)(r) = P(r − δ): (..., N, N) complex and (..., 2) real, leading axes broadcast (FM-2)."""
    return tf.signal.ifft2d(tf.signal.fft2d(wave) * shift_ramp(shift_px, wave.shape[-1]))


def exit_waves(patches: Tensor, probe: Tensor, subpixel_px: Tensor) -> Tensor:
    """ψ_jp = S(δ_j) P_p · Q_j: (..., N, N), (P, N, N) and (..., 2) → (..., P, N, N) complex (FM-3)."""
    return fourier_shift(probe, subpixel_px[..., None, :]) * patches[..., None, :, :]


def expected_counts(
    patches: Tensor,
    probe: Tensor,
    subpixel_px: Tensor,
    scale: Tensor | float = 1.0,
    background: Tensor | None = None,
    propagation: Propagation = FAR_FIELD,
) -> Tensor:
    """λ_j = s Σ_p |F ψ_jp|² + b: → (..., N, N) real (FM-5)."""
    return rate_of_waves(exit_waves(patches, probe, subpixel_px), scale, background, propagation)


def rate_of_waves(
    waves: Tensor, scale: Tensor | float, background: Tensor | None, propagation: Propagation = FAR_FIELD
) -> Tensor:
    """λ from exit waves ψ (..., P, N, N): the second half of :func:`expected_counts`."""
    there = Propagator.of(propagation, waves.shape[-1], waves.dtype)
    rate = scale * there.stored_layout(tf.reduce_sum(_squared(there.to_detector(waves)), axis=-3))
    return rate if background is None else rate + background


def mode_intensity(shifted_probe: Tensor) -> Tensor:
    """w_j = Σ_p |S(δ_j) P_p|²: (..., P, N, N) complex → (..., N, N) real (FM-7)."""
    return tf.reduce_sum(_squared(shifted_probe), axis=-3)


def patch_index(corners_px: Tensor, N: int, shape: tuple[int, int]) -> Tensor:
    """Index of every pixel of every patch in canvases (B, H, W) laid end to end: (B, C, 2) int → (B·C·N·N,)."""
    height, width = shape
    small = int(corners_px.shape[0]) * height * width < 2**31
    corners = tf.cast(corners_px, tf.int32 if small else tf.int64)
    offset = tf.range(N, dtype=corners.dtype)
    rows = corners[..., 0, None] + offset
    columns = corners[..., 1, None] + offset
    canvas = tf.range(int(corners_px.shape[0]), dtype=corners.dtype)[:, None, None] * height
    return tf.reshape((canvas + rows)[..., :, None] * width + columns[..., None, :], [-1])


def extract(obj: Tensor, corners_px: Tensor, N: int) -> Tensor:
    """Q_bj[m] = O_b[n_bj + m]: objects (B, H, W) and corners (B, C, 2) int → (B, C, N, N) (FM-1).

    Corners must be inside the object; containers guarantee that.
    """
    index = patch_index(corners_px, N, (int(obj.shape[1]), int(obj.shape[2])))
    return tf.reshape(tf.gather(tf.reshape(obj, [-1]), index), [*corners_px.shape[:2], N, N])


def accumulate(patches: Tensor, corners_px: Tensor, shape: tuple[int, int]) -> Tensor:
    """O_b[n_bj + m] += Q_bj[m], the adjoint of :func:`extract`: (B, C, N, N) → (B, H, W)."""
    B, N = int(patches.shape[0]), int(patches.shape[-1])
    index = patch_index(corners_px, N, shape)
    canvas = tf.math.unsorted_segment_sum(tf.reshape(patches, [-1]), index, B * shape[0] * shape[1])
    return tf.reshape(canvas, [B, *shape])


def weighted_mean(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Σ w Q / Σ w, and 0 where no weight falls: the second half of :func:`merge`."""
    return times(numerator, tf.math.divide_no_nan(tf.ones_like(denominator), denominator))


def merge(patches: Tensor, weights: Tensor, corners_px: Tensor, shape: tuple[int, int]) -> Tensor:
    """O = Σ w_j Q_j / Σ w_j on the canvas of each group, 0 where no weight falls (FM-7).

    Args:
        patches: (B, C, N, N) complex.
        weights: (B, C, N, N) real ≥ 0.
        corners_px: (B, C, 2) integer.
        shape: (H, W) of every canvas.
    """
    return weighted_mean(accumulate(times(patches, weights), corners_px, shape), accumulate(weights, corners_px, shape))


def _good(values: Tensor, mask: Tensor | None) -> Tensor:
    return values if mask is None else tf.where(mask, values, tf.zeros_like(values))


def poisson_loss(rate: Tensor, counts: Tensor, mask: Tensor | None, divisor: Tensor | float) -> Tensor:
    """Σ_good (λ − k ln λ) / divisor, λ clamped to ≥ 1e-8 (FM-8)."""
    lam = tf.maximum(rate, RATE_FLOOR)
    return tf.reduce_sum(_good(lam - counts * tf.math.log(lam), mask)) / divisor


def amplitude_loss(rate: Tensor, counts: Tensor, mask: Tensor | None, divisor: Tensor | float) -> Tensor:
    """Σ_good (√λ − √k)² / divisor, λ clamped to ≥ 1e-8 (FM-9)."""
    lam = tf.maximum(rate, RATE_FLOOR)
    return tf.reduce_sum(_good(tf.square(tf.sqrt(lam) - tf.sqrt(counts)), mask)) / divisor


LOSSES = {"poisson": poisson_loss, "amplitude": amplitude_loss}


def solver_update(
    patches: Tensor,
    shifted_probe: Tensor,
    counts: Tensor,
    mask: Tensor | None = None,
    background: Tensor | None = None,
    scale: Tensor | float = 1.0,
    propagation: Propagation = FAR_FIELD,
) -> Tensor:
    """Change of each patch that brings its frame to the measured amplitude: → (..., N, N) complex (FM-16)."""
    return SolverPlan.of(shifted_probe, counts, mask, background, scale, propagation).update(patches)


def swept(patches: Tensor, update: Tensor) -> Tensor:
    """Q + ρ u, a patch's part of a parallel sweep (FM-16)."""
    return patches + times(update, RELAXATION)


def relative_weight(shifted_probe: Tensor) -> Tensor:
    """w_j / max w_j: (..., P, N, N) complex → (..., N, N) real (FM-20)."""
    intensity = mode_intensity(shifted_probe)
    return intensity / tf.reduce_max(intensity, axis=(-2, -1), keepdims=True)


def weighted_size(values: Tensor, weights: Tensor) -> Tensor:
    """√(Σ w |v|² / Σ w) of each frame: (..., N, N) complex and real → (..., 1, 1) real, at least 1e-6 (FM-20)."""
    total = tf.reduce_sum(weights, axis=(-2, -1), keepdims=True)
    mean = tf.reduce_sum(weights * _squared(values), axis=(-2, -1), keepdims=True) / total
    return tf.sqrt(tf.maximum(mean, SIZE_FLOOR**2))


def relative_amplitude(
    counts: Tensor,
    shifted_probe: Tensor,
    scale: Tensor | float,
    mask: Tensor | None = None,
    background: Tensor | None = None,
) -> Tensor:
    """√(max(k − b, 0) / (s Σ_p Σ |S_j P_p|²)) · N/2, 0 in bad pixels: → (..., N, N) real (FM-31)."""
    signal = tf.maximum(counts if background is None else counts - background, 0.0)
    signal = signal if mask is None else tf.where(mask, signal, tf.zeros_like(signal))
    expected = scale * tf.reduce_sum(mode_intensity(shifted_probe), axis=(-2, -1), keepdims=True)
    return tf.sqrt(signal / expected) * (counts.shape[-1] / 2)


def relative_variation(image: Tensor, weight: Tensor) -> Tensor:
    """√(⟨|O − ⟨O⟩|²⟩ / ⟨|O|²⟩): (..., H, W) complex and (H, W) real → (), 0 for an empty image (FM-30)."""
    total = tf.reduce_sum(weight) * tf.cast(tf.size(image) // tf.size(weight), weight.dtype)
    mean = tf.reduce_sum(times(image, weight)) / tf.cast(total, image.dtype)
    power = tf.reduce_sum(weight * _squared(image)) / total
    spread = tf.reduce_sum(weight * _squared(image - mean)) / total
    return tf.sqrt(tf.math.divide_no_nan(spread, power))


class SolverPlan(NamedTuple):
    """Everything of :func:`solver_update` that stays the same from sweep to sweep.

    Detector arrays are kept in the layout of :class:`Propagator`, so that no wave is moved in a sweep.

    Attributes:
        probe: (..., P, N, N) complex, shifted to each frame.
        back: (..., P, N, N) complex: what a wave's difference is multiplied with to be a patch's.
        root: (..., N, N) measured amplitude.
        scale: s.
        mask: (N, N) or None.
        background: (N, N) or None.
        there: to the detector and back.
    """

    probe: Tensor
    back: Tensor
    root: Tensor
    scale: Tensor | float
    mask: Tensor | None
    background: Tensor | None
    there: Propagator

    @classmethod
    def of(
        cls,
        shifted_probe: Tensor,
        counts: Tensor,
        mask: Tensor | None = None,
        background: Tensor | None = None,
        scale: Tensor | float = 1.0,
        propagation: Propagation = FAR_FIELD,
    ) -> SolverPlan:
        """Make a plan; arguments as in :func:`solver_update`."""
        there = Propagator.of(propagation, shifted_probe.shape[-1], shifted_probe.dtype)

        def laid(array: Tensor | None) -> Tensor | None:
            return None if array is None else there.detector_layout(array)

        intensity = mode_intensity(shifted_probe)
        peak = tf.reduce_max(intensity, axis=(-2, -1), keepdims=True)
        damped = (1 - DAMPING) * intensity + DAMPING * peak
        back = times(tf.math.conj(shifted_probe), 1.0 / damped[..., None, :, :])
        return cls(shifted_probe, back, laid(tf.sqrt(counts)), scale, laid(mask), laid(background), there)

    def update(self, patches: Tensor) -> Tensor:
        """Change (..., N, N) complex of an estimate (..., N, N) complex."""
        waves = self.there.to_detector(self.probe * patches[..., None, :, :])
        rate = self.scale * tf.reduce_sum(_squared(waves), axis=-3)
        rate = tf.maximum(rate if self.background is None else rate + self.background, RATE_FLOOR)
        change = tf.minimum(self.root * tf.math.rsqrt(rate), GAIN_LIMIT) - 1
        if self.mask is not None:
            change = tf.where(self.mask, change, tf.zeros_like(change))
        difference = self.there.from_detector(times(waves, change[..., None, :, :]))
        return tf.reduce_sum(self.back * difference, axis=-3)

    def sweep(self, patches: Tensor) -> Tensor:
        """Patches after their part of a parallel sweep, before the merge."""
        return swept(patches, self.update(patches))
