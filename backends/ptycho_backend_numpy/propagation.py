"""The oracle's propagation in the caller's precision: same names, same argument order, same numbers (FM-4, FM-23).

Transforms are those of scipy.fft, which keeps single precision. The transfer function of a near field is the oracle's:
its phase is reckoned in double precision and rounded once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import DTypeLike, NDArray

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
        dtype: complex64 or complex128, of the waves.
        threads: of the Fourier transforms; -1 takes all processors.
    """

    def __init__(
        self, propagation: Propagation, N: int, dtype: DTypeLike = np.complex64, threads: int | None = None
    ) -> None:
        self.threads = threads
        self.transfer: NDArray[Any] | None = None
        if propagation.is_near:
            self.transfer = transfer_function(propagation, N).astype(dtype)

    def to_detector(self, waves: NDArray[Any], *, overwrite: bool = False) -> NDArray[Any]:
        """F ψ, (..., N, N); with `overwrite` the memory of `waves` may be used up."""
        if self.transfer is None:
            return np.asarray(scipy.fft.fft2(waves, norm="ortho", overwrite_x=overwrite, workers=self.threads))
        spectrum = scipy.fft.fft2(waves, overwrite_x=overwrite, workers=self.threads)
        spectrum *= self.transfer
        return np.asarray(scipy.fft.ifft2(spectrum, overwrite_x=True, workers=self.threads))

    def from_detector(self, waves: NDArray[Any], *, overwrite: bool = False) -> NDArray[Any]:
        """F† A, (..., N, N); with `overwrite` the memory of `waves` may be used up."""
        if self.transfer is None:
            return np.asarray(scipy.fft.ifft2(waves, norm="ortho", overwrite_x=overwrite, workers=self.threads))
        spectrum = scipy.fft.fft2(waves, overwrite_x=overwrite, workers=self.threads)
        spectrum *= self.transfer.conj()
        return np.asarray(scipy.fft.ifft2(spectrum, overwrite_x=True, workers=self.threads))

    def detector_layout(self, array: NDArray[Any]) -> NDArray[Any]:
        """Counts, mask or background (..., N, N) as they are stored, in the layout of :meth:`to_detector`."""
        return np.fft.ifftshift(array, axes=_AXES) if self.transfer is None else array

    def stored_layout(self, array: NDArray[Any]) -> NDArray[Any]:
        """The other way: from the layout of :meth:`to_detector` to the stored one."""
        return np.fft.fftshift(array, axes=_AXES) if self.transfer is None else array


def far_field(exit_wave: NDArray[Any]) -> NDArray[Any]:
    """F ψ = fftshift FFT2 ψ, unitary (FM-4)."""
    return np.fft.fftshift(scipy.fft.fft2(exit_wave, norm="ortho"), axes=_AXES)


def far_field_adjoint(wave: NDArray[Any]) -> NDArray[Any]:
    """F† = F⁻¹ (FM-4)."""
    return np.asarray(scipy.fft.ifft2(np.fft.ifftshift(wave, axes=_AXES), norm="ortho"))


def propagate(exit_wave: NDArray[Any], propagation: Propagation = FAR_FIELD) -> NDArray[Any]:
    """F ψ of a scan, (..., N, N) in the wave's precision (FM-4, FM-23)."""
    there = Propagator(propagation, exit_wave.shape[-1], exit_wave.dtype)
    return there.stored_layout(there.to_detector(exit_wave))


def propagate_adjoint(wave: NDArray[Any], propagation: Propagation = FAR_FIELD) -> NDArray[Any]:
    """F† A of a scan, (..., N, N) in the wave's precision."""
    back = Propagator(propagation, wave.shape[-1], wave.dtype)
    return back.from_detector(back.detector_layout(wave))
