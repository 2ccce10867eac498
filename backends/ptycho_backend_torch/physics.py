"""The PyTorch twin of ``ptycho_core.physics``: same names and argument order, differentiable, in the input's precision.

Every function accepts leading batch axes where the oracle has none, so that several groups can be treated at once.
Formulas and identifiers are those of specs/20-forward-model.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ptycho_core.physics.likelihood import RATE_FLOOR
from ptycho_core.physics.sweep import DAMPING, GAIN_LIMIT, RELAXATION, SIZE_FLOOR

__all__ = [
    "LOSSES",
    "RELAXATION",
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
    "rate_of_waves",
    "relative_weight",
    "shift_ramp",
    "solver_update",
    "swept",
    "weighted_mean",
    "weighted_size",
]


def _squared(wave: Tensor) -> Tensor:
    """|wave|², without the root that abs takes and without the sum over a last axis of two, which is slow."""
    return wave.real.square() + wave.imag.square()


def shift_ramp(shift_px: Tensor, N: int) -> Tensor:
    """e^{−2πi(f_y δ_y + f_x δ_x)}: (..., 2) real → (..., N, N) complex, zero frequency at index 0."""
    frequency = torch.fft.fftfreq(N, device=shift_px.device, dtype=shift_px.dtype)
    angle = -2 * math.pi * shift_px[..., None] * frequency
    ramp = torch.polar(torch.ones_like(angle), angle)
    return ramp[..., 0, :, None] * ramp[..., 1, None, :]


def fourier_shift(wave: Tensor, shift_px: Tensor) -> Tensor:
    """(S(δ)P)(r) = P(r − δ): (..., N, N) complex and (..., 2) real, leading axes broadcast (FM-2)."""
    return torch.fft.ifft2(torch.fft.fft2(wave) * shift_ramp(shift_px, wave.shape[-1]))


def far_field(exit_wave: Tensor) -> Tensor:
    """F ψ, unitary, zero frequency at (N/2, N/2): (..., N, N) complex (FM-4)."""
    return torch.fft.fftshift(torch.fft.fft2(exit_wave, norm="ortho"), dim=(-2, -1))


def far_field_adjoint(wave: Tensor) -> Tensor:
    """F† = F⁻¹: (..., N, N) complex."""
    return torch.fft.ifft2(torch.fft.ifftshift(wave, dim=(-2, -1)), norm="ortho")


def exit_waves(patches: Tensor, probe: Tensor, subpixel_px: Tensor) -> Tensor:
    """ψ_jp = S(δ_j) P_p · Q_j: (..., N, N), (P, N, N) and (..., 2) → (..., P, N, N) complex (FM-3)."""
    return fourier_shift(probe, subpixel_px[..., None, :]) * patches[..., None, :, :]


def expected_counts(
    patches: Tensor, probe: Tensor, subpixel_px: Tensor, scale: Tensor | float = 1.0, background: Tensor | None = None
) -> Tensor:
    """λ_j = s Σ_p |F ψ_jp|² + b: → (..., N, N) real (FM-5)."""
    return rate_of_waves(exit_waves(patches, probe, subpixel_px), scale, background)


def rate_of_waves(waves: Tensor, scale: Tensor | float, background: Tensor | None) -> Tensor:
    """λ from exit waves ψ (..., P, N, N): the second half of :func:`expected_counts`."""
    # shifting the real rate instead of the complex waves moves a quarter of the memory for one mode, less for more
    far = torch.view_as_real(torch.fft.fft2(waves, norm="ortho"))
    rate = scale * torch.fft.fftshift(far.square().sum(dim=(-4, -1)), dim=(-2, -1))
    return rate if background is None else rate + background


def mode_intensity(shifted_probe: Tensor) -> Tensor:
    """w_j = Σ_p |S(δ_j) P_p|²: (..., P, N, N) complex → (..., N, N) real (FM-7)."""
    return _squared(shifted_probe).sum(dim=-3)


def patch_index(corners_px: Tensor, N: int, shape: tuple[int, int]) -> Tensor:
    """Index of every pixel of every patch in canvases (B, H, W) laid end to end: (B, C, 2) int → (B·C·N·N,)."""
    height, width = shape
    offset = torch.arange(N, device=corners_px.device)
    rows = corners_px[..., 0, None] + offset
    columns = corners_px[..., 1, None] + offset
    canvas = torch.arange(corners_px.shape[0], device=corners_px.device)[:, None, None] * height
    return ((canvas + rows)[..., :, None] * width + columns[..., None, :]).reshape(-1)


def extract(obj: Tensor, corners_px: Tensor, N: int) -> Tensor:
    """Q_bj[m] = O_b[n_bj + m]: objects (B, H, W) and corners (B, C, 2) int → (B, C, N, N) (FM-1).

    Corners must be inside the object; containers guarantee that.
    """
    index = patch_index(corners_px, N, (obj.shape[1], obj.shape[2]))
    return obj.reshape(-1).index_select(0, index).reshape(*corners_px.shape[:2], N, N)


def accumulate(patches: Tensor, corners_px: Tensor, shape: tuple[int, int]) -> Tensor:
    """O_b[n_bj + m] += Q_bj[m], the adjoint of :func:`extract`: (B, C, N, N) → (B, H, W)."""
    B, N = patches.shape[0], patches.shape[-1]
    canvas = torch.zeros(B * shape[0] * shape[1], dtype=patches.dtype, device=patches.device)
    return canvas.index_add(0, patch_index(corners_px, N, shape), patches.reshape(-1)).reshape(B, *shape)


def weighted_mean(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Σ w Q / Σ w, and 0 where no weight falls: the second half of :func:`merge`."""
    lit = denominator > 0
    return torch.where(lit, numerator / torch.where(lit, denominator, 1.0), 0.0)


def merge(patches: Tensor, weights: Tensor, corners_px: Tensor, shape: tuple[int, int]) -> Tensor:
    """O = Σ w_j Q_j / Σ w_j on the canvas of each group, 0 where no weight falls (FM-7).

    Args:
        patches: (B, C, N, N) complex.
        weights: (B, C, N, N) real ≥ 0.
        corners_px: (B, C, 2) integer.
        shape: (H, W) of every canvas.
    """
    return weighted_mean(accumulate(patches * weights, corners_px, shape), accumulate(weights, corners_px, shape))


def _good(values: Tensor, mask: Tensor | None) -> Tensor:
    return values if mask is None else torch.where(mask, values, 0.0)


def poisson_loss(rate: Tensor, counts: Tensor, mask: Tensor | None, divisor: float) -> Tensor:
    """Σ_good (λ − k ln λ) / divisor, λ clamped to ≥ 1e-8 (FM-8)."""
    lam = rate.clamp_min(RATE_FLOOR)
    return _good(lam - counts * lam.log(), mask).sum() / divisor


def amplitude_loss(rate: Tensor, counts: Tensor, mask: Tensor | None, divisor: float) -> Tensor:
    """Σ_good (√λ − √k)² / divisor, λ clamped to ≥ 1e-8 (FM-9)."""
    lam = rate.clamp_min(RATE_FLOOR)
    return _good((lam.sqrt() - counts.sqrt()).square(), mask).sum() / divisor


LOSSES = {"poisson": poisson_loss, "amplitude": amplitude_loss}


def solver_update(
    patches: Tensor,
    shifted_probe: Tensor,
    counts: Tensor,
    mask: Tensor | None = None,
    background: Tensor | None = None,
    scale: Tensor | float = 1.0,
) -> Tensor:
    """Change of each patch that brings its frame to the measured amplitude: → (..., N, N) complex (FM-16)."""
    return SolverPlan(shifted_probe, counts, mask, background, scale).update(patches)


def swept(patches: Tensor, update: Tensor) -> Tensor:
    """Q + ρ u, a patch's part of a parallel sweep (FM-16)."""
    return patches + RELAXATION * update


def relative_weight(shifted_probe: Tensor) -> Tensor:
    """w_j / max w_j: (..., P, N, N) complex → (..., N, N) real (FM-20)."""
    intensity = mode_intensity(shifted_probe)
    return intensity / intensity.amax(dim=(-2, -1), keepdim=True)


def weighted_size(values: Tensor, weights: Tensor) -> Tensor:
    """√(Σ w |v|² / Σ w) of each frame: (..., N, N) complex and real → (..., 1, 1) real, at least 1e-6 (FM-20)."""
    total = weights.sum(dim=(-2, -1), keepdim=True)
    return ((weights * _squared(values)).sum(dim=(-2, -1), keepdim=True) / total).clamp_min(SIZE_FLOOR**2).sqrt()


class SolverPlan:
    """Everything of :func:`solver_update` that stays the same from sweep to sweep; arguments as there.

    Detector arrays are kept with their zero frequency at index 0, so that no wave is shifted in a sweep.
    """

    def __init__(
        self,
        shifted_probe: Tensor,
        counts: Tensor,
        mask: Tensor | None = None,
        background: Tensor | None = None,
        scale: Tensor | float = 1.0,
    ) -> None:
        self.probe, self.scale = shifted_probe, scale
        self.root = torch.fft.ifftshift(counts.sqrt(), dim=(-2, -1))
        self.mask = None if mask is None else torch.fft.ifftshift(mask, dim=(-2, -1))
        self.background = None if background is None else torch.fft.ifftshift(background, dim=(-2, -1))
        intensity = mode_intensity(shifted_probe)
        peak = intensity.amax(dim=(-2, -1), keepdim=True)
        damped = (1 - DAMPING) * intensity + DAMPING * peak
        self.back = shifted_probe.conj() / damped[..., None, :, :]

    def update(self, patches: Tensor) -> Tensor:
        """Change (..., N, N) complex of an estimate (..., N, N) complex."""
        waves = torch.fft.fft2(self.probe * patches[..., None, :, :], norm="ortho")
        rate = self.scale * _squared(waves).sum(dim=-3)
        rate = (rate if self.background is None else rate + self.background).clamp_min(RATE_FLOOR)
        change = (self.root * rate.rsqrt()).clamp_max(GAIN_LIMIT) - 1
        if self.mask is not None:
            change = torch.where(self.mask, change, 0.0)
        difference = torch.fft.ifft2(waves * change[..., None, :, :], norm="ortho")
        return (self.back * difference).sum(dim=-3)

    def sweep(self, patches: Tensor) -> Tensor:
        """Patches after their part of a parallel sweep, before the merge."""
        return swept(patches, self.update(patches))
