"""The PyTorch twin of ``ptycho_core.physics``: same names and argument order, differentiable, in the input's precision.

Every function accepts leading batch axes where the oracle has none, so that several groups can be treated at once.
Formulas and identifiers are those of specs/20-forward-model.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ptycho_core.data.propagation import FAR_FIELD, Propagation
from ptycho_core.physics.likelihood import RATE_FLOOR
from ptycho_core.physics.relative import LIT_FROM
from ptycho_core.physics.steps import CURVATURE, STEP_DAMPING
from ptycho_core.physics.sweep import DAMPING, GAIN_LIMIT, RELAXATION, SIZE_FLOOR

from .propagation import Propagator, far_field, far_field_adjoint, propagate, propagate_adjoint

__all__ = [
    "LOSSES",
    "RELAXATION",
    "Propagator",
    "accumulate",
    "add_patches",
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
    "reached",
    "relative_amplitude",
    "relative_variation",
    "relative_weight",
    "shift_ramp",
    "shift_slope",
    "solver_update",
    "swept",
    "weighted_mean",
    "weighted_size",
]

_INDEXED_PIXELS = 2**24
"""Pixels of patches that are added up at once on an accelerator: their index takes eight bytes each."""


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
    there = Propagator(propagation, waves.shape[-1], waves.dtype, waves.device)
    # moving the real rate instead of the complex waves moves a quarter of the memory for one mode, less for more
    far = torch.view_as_real(there.to_detector(waves))
    rate = scale * there.stored_layout(far.square().sum(dim=(-4, -1)))
    return rate if background is None else rate + background


def mode_intensity(shifted_probe: Tensor) -> Tensor:
    """w_j = Σ_p |S(δ_j) P_p|²: (..., P, N, N) complex → (..., N, N) real (FM-7)."""
    intensity = _squared(shifted_probe)
    return intensity.squeeze(-3) if intensity.shape[-3] == 1 else intensity.sum(dim=-3)  # a sum of one is a slow copy


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
    if obj.device.type == "cpu" and not obj.requires_grad and obj.stride(2) == 1:
        return _extract_rows(obj, corners_px, N)
    index = patch_index(corners_px, N, (obj.shape[1], obj.shape[2]))
    return obj.reshape(-1).index_select(0, index).reshape(*corners_px.shape[:2], N, N)


def _extract_rows(obj: Tensor, corners_px: Tensor, N: int) -> Tensor:
    """:func:`extract` by whole rows, a third of the time that single pixels take a processor."""
    canvas, row, _ = obj.stride()
    last = (obj.shape[0] - 1) * canvas + (obj.shape[1] - 1) * row + obj.shape[2] - N
    lines = corners_px[..., 0, None] + torch.arange(N)
    index = torch.arange(len(obj))[:, None, None] * canvas + lines * row + corners_px[..., 1, None]
    rows = obj.as_strided((last + 1, N), (1, 1)).index_select(0, index.reshape(-1))
    return rows.reshape(*corners_px.shape[:2], N, N)


def accumulate(patches: Tensor, corners_px: Tensor, shape: tuple[int, int]) -> Tensor:
    """O_b[n_bj + m] += Q_bj[m], the adjoint of :func:`extract`: (B, C, N, N) → (B, H, W)."""
    B, N = patches.shape[0], patches.shape[-1]
    canvas = torch.zeros(B * shape[0] * shape[1], dtype=patches.dtype, device=patches.device)
    return canvas.index_add(0, patch_index(corners_px, N, shape), patches.reshape(-1)).reshape(B, *shape)


def add_patches(canvas: Tensor, patches: Tensor, corners_px: Tensor) -> None:
    """O[n_j + m] += Q_j[m] in place, without gradients: (H, W), (J, N, N) and (J, 2) int."""
    N = patches.shape[-1]
    if canvas.device.type == "cpu":  # an index of every pixel costs a processor more than the sums themselves
        (row, column), first = canvas.stride(), canvas.storage_offset()
        places = [
            canvas.as_strided((N, N), (row, column), first + y * row + x * column) for y, x in corners_px.tolist()
        ]
        torch._foreach_add_(places, patches.unbind(0))
        return
    step = max(1, _INDEXED_PIXELS // N**2)
    for start in range(0, len(patches), step):
        part = slice(start, start + step)
        index = patch_index(corners_px[None, part], N, (canvas.shape[0], canvas.shape[1]))
        canvas.view(-1).index_add_(0, index, patches[part].reshape(-1))


def reached(corners_px: Tensor, N: int, shape: tuple[int, int]) -> Tensor:
    """Pixels (H, W) bool that a window at some of (J, 2) reaches: corners in a difference array, and two sums."""
    height, width = shape[0] + 1, shape[1] + 1
    edges = torch.zeros(height * width, dtype=torch.int32, device=corners_px.device)
    for down, right, sign in ((0, 0, 1), (N, 0, -1), (0, N, -1), (N, N, 1)):
        place = (corners_px[:, 0] + down) * width + corners_px[:, 1] + right
        edges.index_add_(0, place, torch.full_like(place, sign, dtype=torch.int32))
    return edges.view(height, width).cumsum(0).cumsum(1)[:-1, :-1] > 0


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


def free_slope(loss: str, rate: Tensor, counts: Tensor, mask: Tensor | None) -> Tensor:
    """:func:`loss_slope` where no λ is clamped, as dark counts see to: looking for one costs as much as the rest."""
    slope = 1.0 - (counts / rate if loss == "poisson" else (counts / rate).sqrt_())
    return slope if mask is None else slope.mul_(mask)


def loss_slope(loss: str, rate: Tensor, counts: Tensor, mask: Tensor | None) -> Tensor:
    """∂/∂λ of the summed loss; 0 where λ is clamped and in bad pixels (FM-10)."""
    slope = free_slope(loss, rate.clamp_min(RATE_FLOOR), counts, mask)
    return torch.where(rate < RATE_FLOOR, torch.zeros_like(slope), slope)


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
    return SolverPlan(shifted_probe, counts, mask, background, scale, propagation).update(patches)


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


def relative_amplitude(
    counts: Tensor,
    shifted_probe: Tensor,
    scale: Tensor | float,
    mask: Tensor | None = None,
    background: Tensor | None = None,
) -> Tensor:
    """√(max(k − b, 0) / (s Σ_p Σ |S_j P_p|²)) · N/2, 0 in bad pixels: → (..., N, N) real (FM-31)."""
    signal = (counts if background is None else counts - background).clamp_min(0.0)
    signal = signal if mask is None else torch.where(mask, signal, 0.0)
    expected = scale * mode_intensity(shifted_probe).sum(dim=(-2, -1), keepdim=True)
    return (signal / expected).sqrt() * (counts.shape[-1] / 2)


def relative_variation(image: Tensor, weight: Tensor) -> Tensor:
    """√(⟨|O − ⟨O⟩|²⟩ / ⟨|O|²⟩): (..., H, W) complex and (H, W) real → (), 0 for an empty image (FM-30)."""
    total = weight.sum() * (image.numel() // weight.numel())
    mean, power = (weight * image).sum() / total, (weight * _squared(image)).sum() / total
    spread = (weight * _squared(image - mean)).sum() / total
    return torch.where(power > 0, spread / torch.where(power > 0, power, 1.0), 0.0).sqrt()


class SolverPlan:
    """Everything of :func:`solver_update` that stays the same from sweep to sweep; arguments as there.

    Detector arrays are kept in the layout of :class:`Propagator`, so that no wave is moved in a sweep.
    """

    def __init__(
        self,
        shifted_probe: Tensor,
        counts: Tensor,
        mask: Tensor | None = None,
        background: Tensor | None = None,
        scale: Tensor | float = 1.0,
        propagation: Propagation = FAR_FIELD,
    ) -> None:
        self.probe, self.scale = shifted_probe, scale
        self.there = Propagator(propagation, shifted_probe.shape[-1], shifted_probe.dtype, shifted_probe.device)
        self.root = self.there.detector_layout(counts.sqrt())
        self.mask = None if mask is None else self.there.detector_layout(mask)
        self.background = None if background is None else self.there.detector_layout(background)
        intensity = mode_intensity(shifted_probe)
        peak = intensity.amax(dim=(-2, -1), keepdim=True)
        damped = (1 - DAMPING) * intensity + DAMPING * peak
        self.back = shifted_probe.conj() / damped[..., None, :, :]

    def update(self, patches: Tensor) -> Tensor:
        """Change (..., N, N) complex of an estimate (..., N, N) complex."""
        waves = self.there.to_detector(self.probe * patches[..., None, :, :])
        rate = self.scale * _squared(waves).sum(dim=-3)
        rate = (rate if self.background is None else rate + self.background).clamp_min(RATE_FLOOR)
        change = (self.root * rate.rsqrt()).clamp_max(GAIN_LIMIT) - 1
        if self.mask is not None:
            change = torch.where(self.mask, change, 0.0)
        difference = self.there.from_detector(waves * change[..., None, :, :])
        return (self.back * difference).sum(dim=-3)

    def sweep(self, patches: Tensor) -> Tensor:
        """Patches after their part of a parallel sweep, before the merge."""
        return swept(patches, self.update(patches))


def shift_slope(probe: Tensor, subpixel_px: Tensor) -> Tensor:
    """∂/∂δ of S(δ_j) P_p for both axes: (P, N, N) and (J, 2) → (J, 2, P, N, N), axis 1 is (y, x) (FM-19)."""
    N = probe.shape[-1]
    slope = -2j * math.pi * torch.fft.fftfreq(N, device=probe.device, dtype=subpixel_px.dtype)
    spectrum = torch.fft.fft2(probe) * shift_ramp(subpixel_px, N)[:, None]
    return torch.fft.ifft2(torch.stack([spectrum * slope[:, None], spectrum * slope], dim=1))


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
    slope = loss_slope(loss, rate_of_waves(waves, scale, background, propagation), counts, mask) / divisor
    chi = 2 * scale * propagate_adjoint(slope[:, None] * propagate(waves, propagation), propagation)
    moved = shift_slope(probe, subpixel_px) * patches[:, None, None]
    return (chi[:, None].conj() * moved).real.sum(dim=(2, 3, 4))


def illumination(
    probe: Tensor, corners_px: Tensor, shape: tuple[int, int], intensities: Tensor | None = None
) -> Tensor:
    """W = Σ_j w_j Σ_p |P_p|² at n_j: (P, N, N) complex, (J, 2) int and (J,) → (H, W) real (FM-21)."""
    out = torch.zeros(shape, dtype=probe.real.dtype, device=probe.device)
    of_frames = mode_intensity(probe).expand(len(corners_px), -1, -1)
    if intensities is not None:
        of_frames = of_frames * intensities.to(out.dtype)[:, None, None]
    add_patches(out, of_frames, corners_px)
    return out


def _double(values: Tensor) -> Tensor:
    """In double precision where the device has it, so that long sums lose nothing."""
    return values if values.device.type == "mps" else values.double()


def expected_total(obj: Tensor, light: Tensor) -> Tensor:
    """Σ W |O|²: (H, W) complex and real → () (FM-21)."""
    return _double(light * _squared(obj)).sum()


def patch_light(patches: Tensor, intensities: Tensor | None = None) -> Tensor:
    """V = Σ_j w_j |Q_j|²: (J, N, N) complex and (J,) → (N, N) real (FM-21)."""
    light = _squared(patches)
    return light.sum(dim=0) if intensities is None else torch.tensordot(intensities.to(light.dtype), light, dims=1)


def lit_level(obj: Tensor, light: Tensor) -> Tensor:
    """⟨|O|²⟩ over the pixels that are lit (FM-29): (H, W) complex and real → () (FM-21)."""
    lit = (light > 0) & (light >= LIT_FROM * light.max())
    return torch.where(lit, _squared(obj), 0.0).sum() / lit.sum()


def _damped(light: Tensor) -> Tensor:
    peak = light.max().clamp_min(torch.finfo(light.dtype).tiny / STEP_DAMPING)  # so that no reciprocal is infinite
    return (1 - STEP_DAMPING) * light + STEP_DAMPING * peak


def object_step(gradient: Tensor, light: Tensor, loss: str) -> Tensor:
    """ΔO = −∂L/∂O / (c ((1−α) W + α max W)): (H, W) complex and real → (H, W) complex (FM-21)."""
    return gradient * (-CURVATURE[loss] * _damped(light)).reciprocal_()


def probe_step(gradient: Tensor, patch_light: Tensor, loss: str) -> Tensor:
    """ΔP_p = −∂L/∂P_p / (c ((1−α) V + α max V)): (P, N, N) complex and (N, N) real → (P, N, N) complex (FM-21)."""
    return gradient * (-CURVATURE[loss] * _damped(patch_light)).reciprocal_()


def position_step(gradient: Tensor, probe: Tensor, level: Tensor | float, loss: str) -> Tensor:
    """Δδ_j = −2 ∂L/∂δ_j / (c ⟨|O|²⟩ Σ_p Σ |∂P_p|²): (J, 2), (P, N, N) and () → (J, 2) (FM-21)."""
    slope = shift_slope(probe, torch.zeros((1, 2), dtype=gradient.dtype, device=gradient.device))[0]
    curvature = CURVATURE[loss] * level * _squared(slope).sum(dim=(1, 2, 3))
    return -2 * gradient / curvature.clamp_min(torch.finfo(gradient.dtype).tiny)


def frame_gains(rate: Tensor, counts: Tensor, mask: Tensor | None, background: Tensor | None) -> Tensor:
    """g_j = Σ (k_j − b) / Σ (λ_j − b) over good pixels: (J, N, N), 1 where there is nothing to divide (FM-27)."""
    good = 1.0 if mask is None else mask
    level = 0.0 if background is None else _double(background * good).sum()
    measured, expected = (_double(values * good).sum(dim=(-2, -1)) - level for values in (counts, rate))
    usable = (measured > 0) & (expected > 0)
    return torch.where(usable, measured / torch.where(usable, expected, 1.0), 1.0)


def least_squares_length(step: Tensor, gradient: Tensor, light: Tensor, loss: str) -> Tensor:
    """γ = −Re⟨ΔO, ∂L/∂O⟩ / (c Σ W |ΔO|²): (H, W) each → (), 1 for a step of nothing (FM-21)."""
    curvature = CURVATURE[loss] * expected_total(step, light)
    slope = -_double(step.real * gradient.real + step.imag * gradient.imag).sum()
    stretched = curvature > 0
    return torch.where(stretched, slope / torch.where(stretched, curvature, 1.0), 1.0)


def orthogonalise(probe: Tensor) -> Tensor:
    """Mix modes unitarily into orthogonal ones, strongest first: (P, N, N) → (P, N, N) complex (FM-14).

    The mixing is that of the oracle, found from the modes' P × P products, which are few enough for the host.
    """
    flat = probe.flatten(1)
    wide = flat if flat.device.type == "mps" else flat.to(torch.complex128)
    products = (wide @ wide.mH).cpu().to(torch.complex128)
    mixing = torch.linalg.eigh(products).eigenvectors.flip(1)
    main = mixing.gather(0, mixing.abs().argmax(dim=0, keepdim=True))
    return ((mixing * (main / main.abs()).conj()).mH.to(wide.device, wide.dtype) @ wide).to(probe.dtype).view_as(probe)
