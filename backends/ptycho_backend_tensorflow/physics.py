"""The TensorFlow twin of ``ptycho_core.physics``: same names and argument order, in the precision of its input.

Every function accepts leading batch axes where the oracle has none, so that several groups can be treated at once,
and is differentiable.
Formulas and identifiers are those of specs/20-forward-model. TensorFlow's gradient of a real loss with respect to a
complex tensor is ∂L/∂Re + i ∂L/∂Im, as everywhere here.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from ptycho_core.data.propagation import FAR_FIELD, Propagation
from ptycho_core.physics.likelihood import RATE_FLOOR
from ptycho_core.physics.relative import LIT_FROM
from ptycho_core.physics.steps import CURVATURE, STEP_DAMPING
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
    "expected_total",
    "extract",
    "far_field",
    "far_field_adjoint",
    "fourier_shift",
    "frame_gains",
    "free_slope",
    "illumination",
    "least_squares_length",
    "lit_level",
    "loss_slope",
    "merge",
    "mode_intensity",
    "object_step",
    "orthogonalise",
    "patch_index",
    "patch_light",
    "poisson_loss",
    "position_gradient",
    "position_step",
    "probe_step",
    "propagate",
    "propagate_adjoint",
    "rate_of_waves",
    "relative_amplitude",
    "relative_variation",
    "relative_weight",
    "shift_ramp",
    "shift_slope",
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
    # a product of matrices, since TensorFlow spreads factors along an axis slowly
    return tf.matmul(ramp[..., 0, :, None], ramp[..., 1, None, :])


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
    intensity = _squared(shifted_probe)
    return tf.squeeze(intensity, -3) if intensity.shape[-3] == 1 else tf.reduce_sum(intensity, axis=-3)


def patch_index(corners_px: Tensor, N: int, shape: tuple[Any, Any]) -> Tensor:
    """Index of every pixel of every patch in canvases (B, H, W) laid end to end: (B, C, 2) int → (B·C·N·N,).

    In the type of the corners where the shape is known only when a traced function runs.
    """
    (height, width), corners = shape, corners_px
    if isinstance(height, int):
        small = int(corners_px.shape[0]) * height * width < 2**31
        corners = tf.cast(corners_px, tf.int32 if small else tf.int64)
    canvas = tf.range(int(corners_px.shape[0]), dtype=corners.dtype)[:, None] * height
    first = (canvas + corners[..., 0]) * width + corners[..., 1]
    offset = tf.range(N, dtype=corners.dtype)
    return tf.reshape(first[..., None, None] + (offset[:, None] * width + offset), [-1])


def extract(obj: Tensor, corners_px: Tensor, N: int) -> Tensor:
    """Q_bj[m] = O_b[n_bj + m]: objects (B, H, W) and corners (B, C, 2) int → (B, C, N, N) (FM-1).

    Corners must be inside the object; containers guarantee that.
    """
    B, height, width = obj.shape
    if height is None or width is None:
        height, width = tf.unstack(tf.shape(obj, corners_px.dtype)[1:])
    index = patch_index(corners_px, N, (height, width))
    return tf.reshape(tf.gather(tf.reshape(obj, [-1]), index), [B, -1, N, N])


def accumulate(patches: Tensor, corners_px: Tensor, shape: tuple[Any, Any]) -> Tensor:
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


def free_slope(loss: str, rate: Tensor, counts: Tensor, mask: Tensor | None) -> Tensor:
    """:func:`loss_slope` where no λ is clamped, as dark counts see to: looking for one costs as much as the rest."""
    share = counts / rate
    return _good(1.0 - (share if loss == "poisson" else tf.sqrt(share)), mask)


def loss_slope(loss: str, rate: Tensor, counts: Tensor, mask: Tensor | None) -> Tensor:
    """∂/∂λ of the summed loss; 0 where λ is clamped and in bad pixels (FM-10)."""
    slope = free_slope(loss, tf.maximum(rate, RATE_FLOOR), counts, mask)
    return tf.where(rate < RATE_FLOOR, tf.zeros_like(slope), slope)


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


def shift_slope(probe: Tensor, subpixel_px: Tensor) -> Tensor:
    """∂/∂δ of S(δ_j) P_p for both axes: (P, N, N) and (J, 2) → (J, 2, P, N, N), axis 1 is (y, x) (FM-19)."""
    N = probe.shape[-1]
    slope = tf.constant(-2j * math.pi * np.fft.fftfreq(N), probe.dtype)
    spectrum = tf.signal.fft2d(probe) * shift_ramp(subpixel_px, N)[:, None]
    return tf.signal.ifft2d(tf.stack([spectrum * slope[:, None], spectrum * slope], axis=1))


def position_gradient(
    obj: Tensor,
    probe: Tensor,
    corners_px: Tensor,
    subpixel_px: Tensor,
    counts: Tensor,
    loss: str = "poisson",
    mask: Tensor | None = None,
    background: Tensor | None = None,
    scale: float = 1.0,
    divisor: float = 1.0,
    propagation: Propagation = FAR_FIELD,
) -> Tensor:
    """∂L/∂δ_j = Σ_p Re⟨χ_jp, Q_j · ∂(S_j P_p)⟩: (H, W), (P, N, N), (J, 2) twice and (J, N, N) → (J, 2) (FM-19)."""
    patches = extract(obj[None], corners_px[None], probe.shape[-1])[0]
    waves = exit_waves(patches, probe, subpixel_px)
    slope = loss_slope(loss, rate_of_waves(waves, scale, background, propagation), counts, mask)
    weighted = times(propagate(waves, propagation), slope[:, None] * (2 * scale / divisor))
    chi = propagate_adjoint(weighted, propagation)
    moved = shift_slope(probe, subpixel_px) * patches[:, None, None]
    return tf.reduce_sum(tf.math.real(tf.math.conj(chi)[:, None] * moved), axis=(2, 3, 4))


def frame_gains(rate: Tensor, counts: Tensor, mask: Tensor | None, background: Tensor | None) -> Tensor:
    """g_j = Σ (k_j − b) / Σ (λ_j − b) over good pixels: (J, N, N) → (J,) float64, 1 where that says nothing (FM-27)."""

    def total(values: Tensor) -> Tensor:
        return tf.reduce_sum(tf.cast(tf.reduce_sum(_good(values, mask), axis=-1), tf.float64), axis=-1)

    level = 0.0 if background is None else total(background)
    measured, expected = total(counts) - level, total(rate) - level
    usable = (measured > 0) & (expected > 0)
    one = tf.ones_like(measured)
    return tf.where(usable, measured, one) / tf.where(usable, expected, one)


def illumination(
    probe: Tensor, corners_px: Tensor, shape: tuple[Any, Any], intensities: Tensor | None = None
) -> Tensor:
    """W = Σ_j w_j Σ_p |P_p|² at n_j: (P, N, N) complex, (J, 2) int and (J,) → (H, W) real (FM-21)."""
    intensity, J = mode_intensity(probe), tf.shape(corners_px)[0]
    weights = tf.ones([J], intensity.dtype) if intensities is None else tf.cast(intensities, intensity.dtype)
    return accumulate((weights[:, None, None] * intensity)[None], corners_px[None], shape)[0]


def _total(values: Tensor) -> Tensor:
    """Sum of all in double precision, so that long sums lose nothing."""
    return tf.reduce_sum(tf.cast(tf.reduce_sum(values, axis=-1), tf.float64))


def expected_total(obj: Tensor, light: Tensor) -> Tensor:
    """Σ W |O|²: (H, W) complex and real → () float64 (FM-21)."""
    return _total(light * _squared(obj))


def patch_light(patches: Tensor, intensities: Tensor | None = None) -> Tensor:
    """V = Σ_j w_j |Q_j|²: (J, N, N) complex and (J,) → (N, N) real (FM-21)."""
    light = _squared(patches)
    if intensities is not None:
        light = light * tf.cast(intensities, light.dtype)[:, None, None]
    return tf.reduce_sum(light, axis=0)


def lit_level(obj: Tensor, light: Tensor) -> Tensor:
    """⟨|O|²⟩ over the pixels that are lit (FM-29): (H, W) complex and real → () (FM-21)."""
    lit = (light > 0) & (light >= LIT_FROM * tf.reduce_max(light))
    squares = tf.where(lit, _squared(obj), tf.zeros_like(light))
    return tf.cast(_total(squares) / _total(tf.cast(lit, light.dtype)), light.dtype)


def _over_curvature(gradient: Tensor, light: Tensor, loss: str) -> Tensor:
    """−∂L / (c ((1−α) W + α max W)), and 0 where nothing is lit."""
    damped = (1 - STEP_DAMPING) * light + STEP_DAMPING * tf.reduce_max(light)
    factor = tf.math.divide_no_nan(tf.fill(tf.shape(light), tf.constant(-1.0, light.dtype)), CURVATURE[loss] * damped)
    return gradient * tf.cast(factor, gradient.dtype)


def object_step(gradient: Tensor, light: Tensor, loss: str) -> Tensor:
    """ΔO = −∂L/∂O / (c ((1−α) W + α max W)): (H, W) complex and real → (H, W) complex (FM-21)."""
    return _over_curvature(gradient, light, loss)


def probe_step(gradient: Tensor, patch_light: Tensor, loss: str) -> Tensor:
    """ΔP_p = −∂L/∂P_p / (c ((1−α) V + α max V)): (P, N, N) complex and (N, N) real → (P, N, N) complex (FM-21)."""
    return _over_curvature(gradient, patch_light, loss)


def position_step(gradient: Tensor, probe: Tensor, level: Tensor | float, loss: str) -> Tensor:
    """Δδ_j = −2 ∂L/∂δ_j / (c ⟨|O|²⟩ Σ_p Σ |∂P_p|²): (J, 2), (P, N, N) and () → (J, 2) (FM-21)."""
    slope = shift_slope(probe, tf.zeros([1, 2], gradient.dtype))[0]
    curvature = CURVATURE[loss] * level * tf.reduce_sum(_squared(slope), axis=(1, 2, 3))
    return -2 * gradient / tf.maximum(curvature, np.finfo(gradient.dtype.as_numpy_dtype).tiny)


def least_squares_length(step: Tensor, gradient: Tensor, light: Tensor, loss: str) -> Tensor:
    """γ = −Re⟨ΔO, ∂L/∂O⟩ / (c Σ W |ΔO|²): (H, W) each → () float64, 1 for a step of nothing (FM-21)."""
    curvature = CURVATURE[loss] * expected_total(step, light)
    slope = -_total(tf.math.real(step) * tf.math.real(gradient) + tf.math.imag(step) * tf.math.imag(gradient))
    stretched = curvature > 0
    one = tf.ones_like(curvature)
    return tf.where(stretched, slope, one) / tf.where(stretched, curvature, one)


def orthogonalise(probe: Tensor) -> Tensor:
    """Mix modes unitarily into orthogonal ones, strongest first: (P, N, N) → (P, N, N) complex (FM-14)."""
    flat = tf.cast(tf.reshape(probe, [probe.shape[0], -1]), tf.complex128)
    products = tf.matmul(flat, flat, adjoint_b=True)
    mixing = tf.reverse(tf.linalg.eigh(products)[1], [1])
    main = tf.gather(mixing, tf.argmax(tf.abs(mixing), axis=0), axis=0, batch_dims=0)
    main = tf.linalg.diag_part(main)
    phases = tf.math.conj(main) / tf.cast(tf.abs(main), main.dtype)
    mixed = tf.matmul(mixing * phases, flat, adjoint_a=True)
    return tf.cast(tf.reshape(mixed, probe.shape), probe.dtype)
