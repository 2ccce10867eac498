"""Steps that lower a loss: gradients over what the curvature of the loss is about, for object, probe and positions.

Near a good fit the amplitude loss of one frame is 2 · ½‖ΔA‖² and the Poisson loss 4 · ½‖ΔA‖² along the measured
modulus, so a gradient divided by c times the light that a pixel got is a Gauss–Newton step with the coupling between
pixels left out. The damping α keeps pixels that got little light from taking most of the noise (rPIE, Maiden et al.,
Optica 4, 736 (2017)); steps of many frames at once follow Odstrčil et al., Opt. Express 26, 3108 (2018).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.propagation import FAR_FIELD, Propagation
from .forward import exit_waves, shift_ramp
from .likelihood import wave_gradient
from .patches import accumulate, extract
from .relative import lit

__all__ = [
    "CURVATURE",
    "DARK_COUNTS",
    "STEP_DAMPING",
    "expected_total",
    "illumination",
    "least_squares_length",
    "lit_level",
    "object_step",
    "patch_light",
    "position_gradient",
    "position_step",
    "probe_step",
    "shift_slope",
]

CURVATURE = {"amplitude": 2.0, "poisson": 4.0}
"""c of each loss: its second derivative along the modulus of a detector wave, near a good fit."""

STEP_DAMPING = 0.1
"""α: share of the brightest pixel's light in the denominator of a step."""

DARK_COUNTS = 0.1
"""Expected counts added to every pixel while steps are taken. Where next to nothing is expected and a photon came, the
slope of a loss is without bound and one pixel would decide a step; a tenth of a photon bounds it. With fewer in faint
scans images were worse. It takes from a faint image what it adds, so the level of the image is set afterwards."""


def shift_slope(probe: NDArray[Any], subpixel_px: NDArray[Any]) -> NDArray[np.complex128]:
    """∂/∂δ of S(δ_j) P_p for both axes: the spectrum times −2πi f (FM-19).

    Args:
        probe: (P, N, N) complex modes.
        subpixel_px: (J, 2) sub-pixel rest (y, x).

    Returns:
        (J, 2, P, N, N) complex128, axis 1 is (y, x).
    """
    N = probe.shape[-1]
    slope = -2j * np.pi * np.fft.fftfreq(N)
    spectrum = np.fft.fft2(probe) * shift_ramp(subpixel_px, N)[:, None]
    return np.fft.ifft2(np.stack([spectrum * slope[:, None], spectrum * slope], axis=1))


def position_gradient(
    obj: NDArray[Any],
    probe: NDArray[Any],
    corners_px: NDArray[np.int64],
    subpixel_px: NDArray[Any],
    counts: NDArray[Any],
    loss: str = "poisson",
    mask: NDArray[np.bool_] | None = None,
    background: NDArray[Any] | None = None,
    scale: float = 1.0,
    divisor: float = 1.0,
    propagation: Propagation = FAR_FIELD,
) -> NDArray[np.float64]:
    """∂L/∂δ_j = Σ_p Re⟨χ_jp, Q_j · ∂(S_j P_p)⟩, the slope of the loss in each frame's position (FM-19).

    Arguments as :func:`~ptycho_core.physics.likelihood.loss_and_gradient`.

    Returns:
        (J, 2) float64 (y, x), loss per object pixel.
    """
    patches = extract(obj, corners_px, probe.shape[-1])
    waves = exit_waves(patches, probe, subpixel_px)
    _, chi, _ = wave_gradient(waves, counts, loss, mask, background, scale, divisor, propagation)
    moved = shift_slope(probe, subpixel_px) * patches[:, None, None]
    return np.asarray(np.sum((np.conj(chi)[:, None] * moved).real, axis=(2, 3, 4)))


def illumination(
    probe: NDArray[Any],
    corners_px: NDArray[np.int64],
    shape: tuple[int, int],
    intensities: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """W = Σ_j w_j Σ_p |P_p|² at n_j: the light that each pixel of the object got; sub-pixel rests are left out (FM-21).

    Args:
        probe: (P, N, N) complex modes.
        corners_px: (J, 2) integer corners (y, x).
        shape: (H, W) of the object.
        intensities: (J,) intensity w_j of each frame (FM-27), or None where all are 1.

    Returns:
        (H, W) real, in the probe's precision.
    """
    intensity = np.sum(probe.real**2 + probe.imag**2, axis=0)
    of_frames = np.broadcast_to(intensity, (len(corners_px), *intensity.shape))
    if intensities is not None:
        of_frames = of_frames * intensities[:, None, None].astype(intensity.dtype)
    return accumulate(of_frames, corners_px, shape)


def expected_total(obj: NDArray[Any], light: NDArray[Any]) -> float:
    """Σ W |O|²: counts expected in all pixels of all frames together, by Parseval, scale 1 (FM-21).

    Args:
        obj: (H, W) complex.
        light: (H, W) real W of :func:`illumination`.
    """
    return float(np.sum(light * (obj.real**2 + obj.imag**2), dtype=np.float64))


def patch_light(patches: NDArray[Any], intensities: NDArray[Any] | None = None) -> NDArray[Any]:
    """V = Σ_j w_j |Q_j|²: what the object lets the probe show (FM-21).

    Args:
        patches: (J, N, N) complex Q_j.
        intensities: (J,) intensity w_j of each frame (FM-27), or None where all are 1.

    Returns:
        (N, N) real, in the precision of the patches.
    """
    light = patches.real**2 + patches.imag**2
    if intensities is not None:
        light *= intensities[:, None, None].astype(light.dtype)
    return np.asarray(np.sum(light, axis=0))


def lit_level(obj: NDArray[Any], light: NDArray[Any]) -> float:
    """⟨|O|²⟩ over the pixels that are lit (FM-29), (H, W) each (FM-21)."""
    return float(np.mean(np.abs(obj[lit(light)]) ** 2))


def _damped(light: NDArray[Any]) -> NDArray[Any]:
    return np.asarray((1 - STEP_DAMPING) * light + STEP_DAMPING * max(float(light.max()), np.finfo(light.dtype).tiny))


def object_step(gradient: NDArray[Any], light: NDArray[Any], loss: str) -> NDArray[Any]:
    """ΔO = −∂L/∂O / (c ((1−α) W + α max W)), for s = 1 and divisor 1 (FM-21).

    Args:
        gradient: (H, W) complex ∂L/∂O over some frames.
        light: (H, W) real W of :func:`illumination` over the same frames.
        loss: ``poisson`` or ``amplitude``.
    """
    return np.asarray(-gradient / (CURVATURE[loss] * _damped(light)))


def probe_step(gradient: NDArray[Any], patch_light: NDArray[Any], loss: str) -> NDArray[Any]:
    """ΔP_p = −∂L/∂P_p / (c ((1−α) V + α max V)), V = Σ_j |Q_j|² (FM-21).

    Args:
        gradient: (P, N, N) complex ∂L/∂P over some frames.
        patch_light: (N, N) real V over the same frames.
        loss: ``poisson`` or ``amplitude``.
    """
    return np.asarray(-gradient / (CURVATURE[loss] * _damped(patch_light)))


def position_step(gradient: NDArray[Any], probe: NDArray[Any], level: float, loss: str) -> NDArray[np.float64]:
    """Δδ_j = −2 ∂L/∂δ_j / (c ⟨|O|²⟩ Σ_p Σ |∂P_p|²) for each axis (FM-21).

    The 2: of the change of a wave that is moved about half is along its modulus, and only that is measured.

    Args:
        gradient: (J, 2) ∂L/∂δ.
        probe: (P, N, N) complex modes.
        level: ⟨|O|²⟩, mean square modulus of the lit object.
        loss: ``poisson`` or ``amplitude``.

    Returns:
        (J, 2) float64 change (y, x), object pixels.
    """
    slope = shift_slope(probe, np.zeros((1, 2)))[0]
    curvature = CURVATURE[loss] * level * np.sum(np.abs(slope) ** 2, axis=(1, 2, 3))
    return np.asarray(-2 * gradient / np.maximum(curvature, np.finfo(np.float64).tiny))


def least_squares_length(step: NDArray[Any], gradient: NDArray[Any], light: NDArray[Any], loss: str) -> float:
    """γ = −Re⟨ΔO, ∂L/∂O⟩ / (c Σ W |ΔO|²): how far along a step the curvature has its minimum (FM-21).

    Args:
        step: (H, W) complex ΔO.
        gradient: (H, W) complex ∂L/∂O.
        light: (H, W) real W of :func:`illumination`.
        loss: ``poisson`` or ``amplitude``.

    Returns:
        γ ≥ 1 for a damped step; 1 for a step of nothing.
    """
    curvature = CURVATURE[loss] * float(np.sum(light * (step.real**2 + step.imag**2), dtype=np.float64))
    slope = -float(np.sum(step.real * gradient.real + step.imag * gradient.imag, dtype=np.float64))
    return slope / curvature if curvature > 0 else 1.0
