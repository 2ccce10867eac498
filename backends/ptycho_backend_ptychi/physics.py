"""The physics of this engine: pty-chi's own forward model with our conventions, and the losses of the oracle.

pty-chi 2.2.0 puts a position into the object (integer part) and into the probe (the rest), as we do, but it shifts the
*first* incoherent mode only. Our model shifts every mode (FM-3). Its function for all modes pairs the shifts with the
wrong axis, so the two methods are written here with one shift for each mode; they call pty-chi's own shift.

Scale: pty-chi's Fourier transform is not unitary and it has no intensity scale, so it is given √s P / N.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptycho_core.physics.likelihood import RATE_FLOOR

from .extras import Opr, Optics
from .library import (
    AnalyticalIterativePtychographyReconstructor,
    OPRModeWeights,
    PlanarObject,
    PlanarPtychographyForwardModel,
    PlanarPtychographyParameterGroup,
    PositionCorrection,
    Probe,
    ProbePositions,
    api,
    image_proc,
)

__all__ = [
    "EveryModeForward",
    "adjoint_shift",
    "amplitude_loss",
    "expected_counts",
    "forward_at",
    "frames_that_overlap",
    "library_probe",
    "poisson_loss",
    "position_origin",
    "position_step",
    "probe_factor",
    "raar_step",
    "root_mean_square",
    "to_library_positions",
]


def probe_factor(scale: float, N: int) -> float:
    """√s / N: what a probe of ours is multiplied with to be pty-chi's."""
    return math.sqrt(scale) / N


def root_mean_square(probe: NDArray[Any]) -> float:
    """√⟨|P|²⟩ over all pixels and modes of a probe (P, N, N)."""
    return float(np.sqrt(np.mean(np.abs(probe) ** 2)))


def frames_that_overlap(probe: NDArray[Any], positions_px: NDArray[np.float64], overlap: float) -> float:
    """Frames of which, spread over a scan, `overlap` light a pixel on average.

    A frame lights the area (Σ I)² / Σ I² of its probe's intensity I; the scan is the box of its positions, widened by
    the side of that area.

    Args:
        probe: (P, N, N) complex modes.
        positions_px: (J, 2) centres (y, x), object pixels.
        overlap: frames that light a pixel.
    """
    intensity = np.sum(np.abs(probe) ** 2, axis=0, dtype=np.float64)
    lit = intensity.sum() ** 2 / np.sum(intensity**2)
    field = float(np.prod(np.ptp(positions_px, axis=0) + np.sqrt(lit)))
    return float(overlap * field / lit)


def to_library_positions(
    corners_px: NDArray[np.int64], rest_px: NDArray[Any], offset_px: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Positions for pty-chi, which splits them again by rounding: n − offset + δ, and never a half that rounds away.

    Args:
        corners_px: (J, 2) integer corners (y, x) on the object.
        rest_px: (J, 2) sub-pixel rest (y, x) in [−½, ½).
        offset_px: (2,) a whole corner near the middle, so that float32 keeps the rest.

    Returns:
        (J, 2) float32.
    """
    whole = (corners_px - offset_px).astype(np.float32)
    position = (whole + np.asarray(rest_px, dtype=np.float64)).astype(np.float32)
    strayed = np.round(position) != whole
    position[strayed] = np.nextafter(position, whole)[strayed]
    return position


def position_origin(offset_px: NDArray[np.int64], N: int) -> list[float]:
    """Object pixel (y, x) that pty-chi's position 0 means: it counts from the centres of frames, (N−1)/2."""
    origin: list[float] = (offset_px + (N - 1) / 2).tolist()
    return origin


def _shift_modes(residual: Tensor, waves: Tensor, method: str, *, adjoint: bool) -> Tensor:
    """Shift waves (J, P, N, N) by residuals (J, 2), every mode of a frame alike."""
    J, P = waves.shape[:2]
    flat = waves.reshape(J * P, *waves.shape[2:])
    shifts = residual.repeat_interleave(P, dim=0)
    return image_proc.shift_images(flat, shifts, method=method, adjoint=adjoint).reshape(waves.shape)


def library_probe(probe: NDArray[Any], opr: Opr | None, factor: float) -> NDArray[np.complex64]:
    """A probe (P, N, N) times a factor as pty-chi has it: (1 + K, P, N, N), OPR modes beside the first mode only."""
    K = 0 if opr is None else len(opr.modes)
    made = np.zeros((1 + K, *probe.shape), np.complex64)
    made[0] = probe.astype(np.complex128) * factor
    if opr is not None:
        made[1:, 0] = opr.modes.astype(np.complex128) * factor
    return made


class EveryModeForward(PlanarPtychographyForwardModel):
    """pty-chi's forward model, with the sub-pixel rest of a position in every probe mode.

    ``mode_amplitudes``, (J, P) where it is set, is what frame j takes of the amplitude of each mode.
    """

    mode_amplitudes: Tensor | None = None

    def shift_unique_probes(self, indices: Tensor, unique_probes: Tensor, first_mode_only: bool = False) -> Tensor:
        """Shift the probes (J, P, N, N) of frames by the rest of their positions; `first_mode_only` is not heeded."""
        residual = self.get_probe_grid_position_data()[2][indices]
        method = self.object.options.patch_interpolation_method
        if self.mode_amplitudes is not None:
            unique_probes = unique_probes * self.mode_amplitudes[indices][:, :, None, None]
        return _shift_modes(residual, unique_probes, method, adjoint=False)


def adjoint_shift(reconstructor: Any, indices: Tensor, delta_p: Tensor, first_mode_only: bool = False) -> Tensor:
    """The adjoint of :meth:`EveryModeForward.shift_unique_probes`, in place of a reconstructor's own method."""
    residual = reconstructor.forward_model.get_probe_grid_position_data()[2][indices]
    method = reconstructor.parameter_group.object.options.patch_interpolation_method
    return _shift_modes(residual, delta_p, method, adjoint=True)


def raar_step(
    reconstructor: Any,
    patterns: Tensor,
    q_object: Tensor,
    pa_object: Tensor,
    starts: list[int],
    ends: list[int],
    return_exit_wave_update: bool = False,
) -> tuple[Tensor, None]:
    """One RAAR step of all exit waves, z ← 2β P_Q P_a z + (1 − 2β) P_a z + β (z − P_Q z), by pty-chi's projections.

    In place of a reconstructor's own method: pty-chi 2.2.0 has β (P_Q z − z), with which a scan that it had explained
    is lost again after some ten epochs. Luke, Inverse Problems 21 (2005) 37.

    Args:
        reconstructor: pty-chi's, with the exit waves ``psi`` (J, P, N, N).
        patterns: (J, N, N) counts in pty-chi's order of pixels.
        q_object: (H, W) object of P_Q z.
        pa_object: (H, W) object of P_Q P_a z.
        starts: first frame of each chunk.
        ends: first frame after each chunk.
        return_exit_wave_update: for pty-chi's orthogonal probe relaxation, which this engine does not use.

    Returns:
        Σ|change|², and None.
    """
    beta = reconstructor.options.beta
    total = torch.zeros((), device=reconstructor.psi.device)
    for start, end in zip(starts, ends, strict=True):
        waves = reconstructor.psi[start:end]
        q, q_pa = (reconstructor.synthesize_exit_wave_chunk(o, start, end) for o in (q_object, pa_object))
        measured = reconstructor.apply_data_projection(waves, patterns[start:end])
        change = 2 * beta * q_pa + (1 - 2 * beta) * measured - (1 - beta) * waves - beta * q
        total += (change.abs() ** 2).sum()
        reconstructor.psi[start:end] = waves + change
    return total, None


def position_step(model: EveryModeForward, patterns: Tensor, mask: Tensor | None, options: Any) -> Tensor:
    """pty-chi's gradient step of positions, of all frames of a forward model, with object and probe as they are.

    Args:
        model: made by :func:`forward_at`, with a frame for each pattern.
        patterns: (J, N, N) counts in pty-chi's order of pixels.
        mask: (N, N) True = good, in the same order, or None.
        options: pty-chi's options of position correction.

    Returns:
        (J, 2) step (y, x), object pixels.
    """
    model.retain_intermediates = True
    model(torch.arange(len(patterns), device="cpu"))
    seen = model.intermediate_variables
    project = AnalyticalIterativePtychographyReconstructor.replace_propagated_exit_wave_magnitude
    good = torch.ones_like(patterns, dtype=torch.bool) if mask is None else mask.expand_as(patterns)
    measured = project(None, seen.psi_far, patterns, good)
    chi = model.free_space_propagator.propagate_backward(measured) - seen.psi
    correction = PositionCorrection(options=options)
    return correction.get_gradient_update(chi, seen.obj_patches, seen.shifted_unique_probes[0])


def forward_at(
    object_: PlanarObject,
    probe: Probe,
    positions: NDArray[np.float32],
    weights: NDArray[np.float32] | None = None,
    wavelength_m: float | None = None,
) -> EveryModeForward:
    """pty-chi's forward model of a live object and probe at positions of one's own (J, 2), such as held-out frames.

    Args:
        object_: of one slice or more.
        probe: its first axis are OPR modes.
        positions: as :func:`to_library_positions` gives them.
        weights: (J, 1 + K) of OPR modes, or None where there are none.
        wavelength_m: of the waves between slices.
    """
    fixed = api.options.base.ProbePositionOptions(optimizable=False)
    of_weights = api.options.base.OPRModeWeightsOptions(optimizable=False)
    N = probe.get_spatial_shape()
    return EveryModeForward(
        PlanarPtychographyParameterGroup(
            object=object_,
            probe=probe,
            probe_positions=ProbePositions(data=positions, options=fixed),
            opr_mode_weights=OPRModeWeights(
                data=np.ones((len(positions), 1), np.float32) if weights is None else weights, options=of_weights
            ),
        ),
        detector_size=tuple(N),
        wavelength_m=wavelength_m,
    )


def expected_counts(
    obj: NDArray[Any],
    probe: NDArray[Any],
    corners_px: NDArray[np.int64],
    rest_px: NDArray[Any],
    scale: float = 1.0,
    chunk: int = 64,
    optics: Optics | None = None,
    opr: Opr | None = None,
    mode_weights: NDArray[Any] | None = None,
) -> NDArray[np.float32]:
    """λ_j = s Σ_p |F ψ_jp|² by pty-chi's forward model (FM-5); call it inside ``library.inside``.

    Args:
        obj: (H, W) complex object, or (L, H, W) slices.
        probe: (P, N, N) complex modes.
        corners_px: (J, 2) integer corners (y, x) on the object.
        rest_px: (J, 2) sub-pixel rest (y, x).
        scale: s.
        chunk: frames at once.
        optics: of the waves between slices.
        opr: modes by which the probe varies, with a row of weights for each of these frames.
        mode_weights: (J, P) w_jp of the forward model of core, or None where all are 1.

    Returns:
        (J, N, N) float32 expected counts, zero frequency at (N/2, N/2).
    """
    N = probe.shape[-1]
    offset = np.round((corners_px.min(axis=0) + corners_px.max(axis=0)) / 2).astype(np.int64)
    of_object = api.options.base.ObjectOptions(
        optimizable=False,
        determine_position_origin_coords_by="specified",
        position_origin_coords=position_origin(offset, N),
    )
    slices = obj.reshape(-1, *obj.shape[-2:])
    if optics is not None:
        of_object.slice_spacings_m = [optics.spacing_m] * (len(slices) - 1)
        of_object.pixel_size_m = optics.pixel_size_m
    object_ = PlanarObject(data=slices.astype(np.complex64), options=of_object)
    object_.update_pos_origin_coordinates()
    scaled = library_probe(probe, opr, probe_factor(scale, N))
    probe_ = Probe(data=scaled, options=api.options.base.ProbeOptions(optimizable=False))
    model = forward_at(
        object_,
        probe_,
        to_library_positions(corners_px, rest_px, offset),
        None if opr is None else opr.weights,
        None if optics is None else optics.wavelength_m,
    )
    if mode_weights is not None:
        model.mode_amplitudes = torch.as_tensor(np.sqrt(mode_weights), dtype=torch.float32)
    out = np.empty((len(corners_px), N, N), np.float32)
    with torch.no_grad():
        for start in range(0, len(out), chunk):
            indices = torch.arange(start, min(start + chunk, len(out)))
            out[start : start + chunk] = torch.fft.fftshift(model(indices), dim=(-2, -1)).cpu().numpy()
    return out


def _good(values: Tensor, mask: Tensor | None) -> Tensor:
    return values if mask is None else torch.where(mask, values, torch.zeros_like(values))


def poisson_loss(rate: Tensor, counts: Tensor, mask: Tensor | None, divisor: float) -> float:
    """Σ_good (λ − k ln λ) / divisor, λ clamped to ≥ 1e-8 (FM-8); rate and counts (J, N, N), mask (N, N) or None."""
    lam = rate.clamp_min(RATE_FLOOR)
    return float(_good(lam - counts * torch.log(lam), mask).sum(dtype=torch.float64)) / divisor


def amplitude_loss(rate: Tensor, counts: Tensor, mask: Tensor | None, divisor: float) -> float:
    """Σ_good (√λ − √k)² / divisor, λ clamped to ≥ 1e-8 (FM-9); arguments as in :func:`poisson_loss`."""
    lam = rate.clamp_min(RATE_FLOOR)
    return float(_good((torch.sqrt(lam) - torch.sqrt(counts)) ** 2, mask).sum(dtype=torch.float64)) / divisor
