"""The TensorFlow twin of ``ptycho_core.physics.propagation``: same names and argument order, differentiable.

The transfer function of a near field is the oracle's: its phase is reckoned in double precision and rounded once
(FM-4, FM-23).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import tensorflow as tf

from ptycho_core.data.propagation import FAR_FIELD, Propagation
from ptycho_core.physics.propagation import transfer_function

__all__ = ["Propagator", "far_field", "far_field_adjoint", "fft2", "ifft2", "propagate", "propagate_adjoint", "times"]

_AXES = (-2, -1)

Tensor = tf.Tensor


def times(wave: Tensor, factor: Tensor | float) -> Tensor:
    """A complex array times a real one; TensorFlow multiplies only like types."""
    return tf.complex(tf.math.real(wave) * factor, tf.math.imag(wave) * factor)


def fft2(wave: Tensor) -> Tensor:
    """The unitary transform of the last two axes, zero frequency at index 0."""
    return times(tf.signal.fft2d(wave), 1.0 / math.sqrt(wave.shape[-1] * wave.shape[-2]))


def ifft2(wave: Tensor) -> Tensor:
    """The inverse of :func:`fft2`."""
    return times(tf.signal.ifft2d(wave), math.sqrt(wave.shape[-1] * wave.shape[-2]))


class Propagator(NamedTuple):
    """F and F† without moving arrays about: in the far field, zero frequency of detector arrays is at index 0.

    What is measured is brought into that layout once, by :meth:`detector_layout`, and everything between the two
    transforms (rates, slopes) goes by pixel and does not care. It is a tuple of tensors, so that a compiled function
    takes it as an argument without being compiled again for each.

    Attributes:
        transfer: (N, N) complex transfer function of a near field, or None.
    """

    transfer: Tensor | None

    @classmethod
    def of(cls, propagation: Propagation, N: int, dtype: tf.DType = tf.complex64) -> Propagator:
        """Make one for waves of side N, ``tf.complex64`` or ``tf.complex128``."""
        if not propagation.is_near:
            return cls(None)
        return cls(tf.constant(transfer_function(propagation, N).astype(dtype.as_numpy_dtype)))

    def to_detector(self, waves: Tensor) -> Tensor:
        """F ψ: (..., N, N) complex."""
        if self.transfer is None:
            return fft2(waves)
        return tf.signal.ifft2d(tf.signal.fft2d(waves) * self.transfer)

    def from_detector(self, waves: Tensor) -> Tensor:
        """F† A: (..., N, N) complex."""
        if self.transfer is None:
            return ifft2(waves)
        return tf.signal.ifft2d(tf.signal.fft2d(waves) * tf.math.conj(self.transfer))

    def detector_layout(self, array: Tensor) -> Tensor:
        """Counts, mask or background (..., N, N) as they are stored, in the layout of :meth:`to_detector`."""
        return tf.signal.ifftshift(array, axes=_AXES) if self.transfer is None else array

    def stored_layout(self, array: Tensor) -> Tensor:
        """The other way: from the layout of :meth:`to_detector` to the stored one."""
        return tf.signal.fftshift(array, axes=_AXES) if self.transfer is None else array


def far_field(exit_wave: Tensor) -> Tensor:
    """F ψ, unitary, zero frequency at (N/2, N/2): (..., N, N) complex (FM-4)."""
    return tf.signal.fftshift(fft2(exit_wave), axes=_AXES)


def far_field_adjoint(wave: Tensor) -> Tensor:
    """F† = F⁻¹: (..., N, N) complex."""
    return ifft2(tf.signal.ifftshift(wave, axes=_AXES))


def propagate(exit_wave: Tensor, propagation: Propagation = FAR_FIELD) -> Tensor:
    """F ψ of a scan: (..., N, N) complex (FM-4, FM-23)."""
    there = Propagator.of(propagation, exit_wave.shape[-1], exit_wave.dtype)
    return there.stored_layout(there.to_detector(exit_wave))


def propagate_adjoint(wave: Tensor, propagation: Propagation = FAR_FIELD) -> Tensor:
    """F† A of a scan: (..., N, N) complex."""
    back = Propagator.of(propagation, wave.shape[-1], wave.dtype)
    return back.from_detector(back.detector_layout(wave))
