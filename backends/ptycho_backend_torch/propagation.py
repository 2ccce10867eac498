"""The PyTorch twin of ``ptycho_core.physics.propagation``: same names and argument order, differentiable (FM-4, FM-23).

The transfer function of a near field is the oracle's: its phase is reckoned in double precision and rounded once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ptycho_core.data.propagation import FAR_FIELD, Propagation
from ptycho_core.physics.propagation import transfer_function

__all__ = ["Propagator", "far_field", "far_field_adjoint", "propagate", "propagate_adjoint"]

_AXES = (-2, -1)


class Propagator:
    """F and F† without moving arrays about: in the far field, zero frequency of detector arrays is at index 0.

    What is measured is brought into that layout once, by :meth:`detector_layout`, and everything between the two
    transforms (rates, slopes) goes by pixel and does not care.

    Args:
        propagation: of the scan.
        N: side, pixels.
        dtype: ``torch.complex64`` or ``torch.complex128``, of the waves.
        device: of the waves.
    """

    def __init__(
        self,
        propagation: Propagation,
        N: int,
        dtype: torch.dtype = torch.complex64,
        device: torch.device | str | None = None,
    ) -> None:
        self.transfer: Tensor | None = None
        if propagation.is_near:
            # a copy: the oracle's array is read-only; rounded before it moves, since not every device has doubles
            self.transfer = torch.from_numpy(transfer_function(propagation, N).copy()).to(dtype).to(device)

    def to_detector(self, waves: Tensor) -> Tensor:
        """F ψ: (..., N, N) complex."""
        if self.transfer is None:
            return torch.fft.fft2(waves, norm="ortho")
        return torch.fft.ifft2(torch.fft.fft2(waves) * self.transfer)

    def from_detector(self, waves: Tensor) -> Tensor:
        """F† A: (..., N, N) complex."""
        if self.transfer is None:
            return torch.fft.ifft2(waves, norm="ortho")
        return torch.fft.ifft2(torch.fft.fft2(waves) * self.transfer.conj())

    def detector_layout(self, array: Tensor) -> Tensor:
        """Counts, mask or background (..., N, N) as they are stored, in the layout of :meth:`to_detector`."""
        return torch.fft.ifftshift(array, dim=_AXES) if self.transfer is None else array

    def stored_layout(self, array: Tensor) -> Tensor:
        """The other way: from the layout of :meth:`to_detector` to the stored one."""
        return torch.fft.fftshift(array, dim=_AXES) if self.transfer is None else array


def far_field(exit_wave: Tensor) -> Tensor:
    """F ψ, unitary, zero frequency at (N/2, N/2): (..., N, N) complex (FM-4)."""
    return torch.fft.fftshift(torch.fft.fft2(exit_wave, norm="ortho"), dim=_AXES)


def far_field_adjoint(wave: Tensor) -> Tensor:
    """F† = F⁻¹: (..., N, N) complex."""
    return torch.fft.ifft2(torch.fft.ifftshift(wave, dim=_AXES), norm="ortho")


def propagate(exit_wave: Tensor, propagation: Propagation = FAR_FIELD) -> Tensor:
    """F ψ of a scan: (..., N, N) complex (FM-4, FM-23)."""
    there = Propagator(propagation, exit_wave.shape[-1], exit_wave.dtype, exit_wave.device)
    return there.stored_layout(there.to_detector(exit_wave))


def propagate_adjoint(wave: Tensor, propagation: Propagation = FAR_FIELD) -> Tensor:
    """F† A of a scan: (..., N, N) complex."""
    back = Propagator(propagation, wave.shape[-1], wave.dtype, wave.device)
    return back.from_detector(back.detector_layout(wave))
