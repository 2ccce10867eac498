"""The toy engine's own physics: a twin of ``ptycho_core.physics`` with the same names and order of arguments.

Written out in NumPy here; an engine in a framework writes the same functions with its framework's tensors. Everything
else in the engine calls these and holds no formula of its own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptycho_core.data.container import integer_corners
from ptycho_core.data.raw import RawData
from ptycho_core.errors import ConfigError
from ptycho_core.physics.patches import check_inside

__all__ = [
    "accumulate",
    "exit_waves",
    "expected_counts",
    "extract",
    "far_field",
    "far_field_adjoint",
    "fourier_shift",
    "loss_and_gradient",
]

RATE_FLOOR = 1e-8


def fourier_shift(wave: NDArray, shift_px: NDArray) -> NDArray[np.complex128]:
    """Move a wave (..., N, N) by +δ (..., 2), rows of (y, x) (FM-2)."""
    frequency = np.fft.fftfreq(wave.shape[-1])
    shift = np.asarray(shift_px, dtype=np.float64)[..., None, None]
    ramp = np.exp(-2j * np.pi * (shift[..., 0, :, :] * frequency[:, None] + shift[..., 1, :, :] * frequency))
    return np.fft.ifft2(np.fft.fft2(wave) * ramp)


def far_field(exit_wave: NDArray) -> NDArray[np.complex128]:
    """F ψ of waves (..., N, N), unitary, zero frequency at (N/2, N/2) (FM-4)."""
    return np.fft.fftshift(np.fft.fft2(exit_wave, norm="ortho"), axes=(-2, -1))


def far_field_adjoint(wave: NDArray) -> NDArray[np.complex128]:
    """F† of waves (..., N, N)."""
    return np.fft.ifft2(np.fft.ifftshift(wave, axes=(-2, -1)), norm="ortho")


def extract(obj: NDArray, corners_px: NDArray[np.int64], N: int) -> NDArray:
    """Patches (J, N, N) of an object (H, W) at integer corners (J, 2); one that leaves it is a DataError (FM-1)."""
    check_inside(corners_px, N, obj.shape)
    return np.stack([obj[y : y + N, x : x + N] for y, x in corners_px])


def accumulate(patches: NDArray, corners_px: NDArray[np.int64], shape: tuple[int, int]) -> NDArray:
    """Add patches (J, N, N) up on an object (H, W), the adjoint of :func:`extract` (FM-1)."""
    N, out = patches.shape[-1], np.zeros(shape, dtype=patches.dtype)
    for patch, (y, x) in zip(patches, corners_px, strict=True):
        out[y : y + N, x : x + N] += patch
    return out


def exit_waves(patches: NDArray, probe: NDArray, subpixel_px: NDArray) -> NDArray[np.complex128]:
    """ψ_jp = S(δ_j) P_p · Q_j, (J, P, N, N) (FM-3)."""
    return fourier_shift(probe[None], np.asarray(subpixel_px)[:, None]) * patches[:, None]


def expected_counts(
    patches: NDArray, probe: NDArray, subpixel_px: NDArray, scale: float = 1.0, background: NDArray | None = None
) -> NDArray[np.float64]:
    """λ_j = s Σ_p |F ψ_jp|² + b, (J, N, N) (FM-5)."""
    waves = far_field(exit_waves(patches, probe, subpixel_px))
    rate = scale * np.sum(np.abs(waves) ** 2, axis=1)
    return rate if background is None else rate + background


def loss_and_gradient(
    obj: NDArray, probe: NDArray, raw: RawData, loss: str
) -> tuple[float, NDArray[np.complex64], NDArray[np.complex64]]:
    """Loss of all frames at scale 1, d_obj (H, W) and d_probe (P, N, N) (FM-8 to FM-10).

    Raises:
        ConfigError: a loss that this engine does not have.
    """
    if loss != "amplitude":
        raise ConfigError(f"loss = {loss!r}; allowed: amplitude.")
    corners, rest = integer_corners(raw.positions_px, raw.side)
    good = np.ones((raw.side, raw.side), dtype=bool) if raw.mask is None else raw.mask
    divisor = raw.n_frames * np.mean(raw.frame_totals)
    total, d_obj, d_probe = 0.0, np.zeros(obj.shape, complex), np.zeros(probe.shape, complex)
    for indices, counts in raw.chunks():
        patches = extract(obj, corners[indices], raw.side)
        shifted = fourier_shift(probe[None], rest[indices][:, None])
        waves = far_field(exit_waves(patches, probe, rest[indices]))
        rate = np.sum(np.abs(waves) ** 2, axis=1) + (0.0 if raw.background is None else raw.background)
        rate = np.maximum(rate, RATE_FLOOR)
        total += np.sum((np.sqrt(rate) - np.sqrt(counts)) ** 2, where=good) / divisor
        slope = np.where(good & (rate > RATE_FLOOR), 1 - np.sqrt(counts / rate), 0.0) / divisor
        chi = 2 * far_field_adjoint(slope[:, None] * waves)
        d_obj += accumulate(np.sum(np.conj(shifted) * chi, axis=1), corners[indices], obj.shape)
        back = fourier_shift(np.conj(patches)[:, None] * chi, -rest[indices][:, None])
        d_probe += np.sum(back, axis=0)
    return float(total), d_obj.astype(np.complex64), d_probe.astype(np.complex64)
