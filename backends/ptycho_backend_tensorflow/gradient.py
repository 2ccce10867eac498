"""Loss and gradients of some frames by hand (FM-10, FM-19), a bounded number of frames at a time, on a device.

Detector arrays of a far field are kept with zero frequency at index 0, and the factors of unitary transforms go into
the probe's few spectra and into the slope: scaling and shifting every wave costs TensorFlow as much as transforming it.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ptycho_core.data.raw import RawData
from ptycho_core.physics.steps import DARK_COUNTS
from ptycho_core.protocol import Quantity

from . import physics
from .canvas import Canvas
from .tracing import traced

__all__ = ["Batch", "BatchGradient", "ScanPhysics"]

_CHUNK_BYTES = 4 * 2**20
"""Waves of one chunk: several arrays of this size are alive at once, and they should stay near the processor."""

_CHUNK_BYTES_ELSEWHERE = 128 * 2**20
"""The same for an accelerator, which has to be given much to do at once."""

_ORDER: tuple[Quantity, ...] = ("object", "probe", "positions", "frame_scale")

Tensor = tf.Tensor


class Batch(NamedTuple):
    """Some frames (J,) on a window of the canvas.

    Attributes:
        corners_px: (J, 2) int32 integer corners (y, x) on the window.
        subpixel_px: (J, 2) float32 sub-pixel rest (y, x).
        intensities: (J,) float32 intensity w_j of each frame, or None where all are 1.
    """

    corners_px: NDArray[np.int32]
    subpixel_px: NDArray[np.float32]
    intensities: NDArray[np.float32] | None

    def part(self, frames: slice) -> list[NDArray[Any]]:
        """Arrays of some of the frames; intensities only where there are any."""
        return [array[frames] for array in self if array is not None]

    def weights(self) -> NDArray[np.float32]:
        """Intensities (J,), 1 where there are none."""
        return np.ones(len(self.corners_px), np.float32) if self.intensities is None else self.intensities


class BatchGradient(NamedTuple):
    """What some frames (J,) say; what was not asked for is None.

    Attributes:
        loss: () float64, summed over the good pixels of the frames, without the dark counts of a step.
        object: (h, w) complex ∂L/∂O on the window.
        probe: (P, N, N) complex ∂L/∂P.
        patch_light: (N, N) real V of the probe's step.
        positions: (J, 2) real ∂L/∂δ (y, x).
        gains: (J,) float64 of FM-27.
    """

    loss: Tensor
    object: Tensor | None = None
    probe: Tensor | None = None
    patch_light: Tensor | None = None
    positions: Tensor | None = None
    gains: Tensor | None = None

    def together(self, other: BatchGradient) -> BatchGradient:
        """With what other frames say of the same window."""
        sums = [None if a is None or b is None else a + b for a, b in zip(self[:4], other[:4], strict=True)]
        lists = [
            None if a is None or b is None else tf.concat([a, b], axis=0)
            for a, b in zip(self[4:], other[4:], strict=True)
        ]
        return BatchGradient(*sums, *lists)


class ScanPhysics:
    """The physics of one scan on a device; every question to it is traced once, whatever the number of frames.

    Args:
        raw: the scan.
        loss: ``poisson`` or ``amplitude``.
        device: name of the device to compute on.
        canvas: of the object.
    """

    def __init__(self, raw: RawData, loss: str, device: str, canvas: Canvas) -> None:
        self.loss, self.side, self.canvas = loss, raw.side, canvas
        self._on_processor = tf.DeviceSpec.from_string(device).device_type == "CPU"
        with tf.device(device):
            self.propagator = physics.Propagator.of(raw.propagation, raw.side)
            self.mask, self.background = self._plane(raw.mask), self._plane(raw.background)
            self._frequency = tf.constant(np.fft.fftfreq(raw.side), tf.float32)
        self._norm = 1.0 if raw.propagation.is_near else 1.0 / raw.side
        self._functions: dict[tuple[Any, ...], Callable[..., Any]] = {}
        # the functions are kept here, and so must not keep this: it would outlive the stepper
        spec, cut = tf.TensorSpec, weakref.WeakMethod(self._cut)
        self._modulus = traced(
            lambda obj: physics.mode_intensity(obj[None]), signature=[spec([None, None], tf.complex64)]
        )
        self._weighted_sum = traced(
            lambda values, corners, weights: tf.tensordot(weights, cut()(values, corners), axes=1),
            signature=[spec([None, None], tf.float32), spec([None, 2], tf.int32), spec([None], tf.float32)],
        )

    def _plane(self, array: NDArray[np.generic] | None) -> Tensor | None:
        return None if array is None else self.propagator.detector_layout(tf.constant(array))

    def chunk(self, probe: Tensor) -> int:
        """Frames whose waves are worth having on the device at once."""
        size = _CHUNK_BYTES if self._on_processor else _CHUNK_BYTES_ELSEWHERE
        return max(1, size // (8 * math.prod(probe.shape)))

    def gradient(
        self,
        window: Tensor,
        probe: Tensor,
        batch: Batch,
        counts: Tensor,
        wanted: Collection[Quantity],
    ) -> BatchGradient:
        """Loss of frames and the gradients wanted, taken with dark counts, at scale 1 and divisor 1.

        Args:
            window: that the frames lie in: (4,) int32 y, x, h, w on the canvas, or (h, w) complex values of its own.
            probe: (P, N, N) complex.
            batch: the frames (J,).
            counts: (J, N, N) in the layout of the propagator.
            wanted: what to differentiate for; none gives the loss alone, in double precision.
        """
        asked = tuple(name for name in _ORDER if name in wanted)
        ask = self._traced(asked, batch.intensities is not None, window.dtype, probe.shape)
        size, found = self.chunk(probe), None
        for start in range(0, len(batch.corners_px), size):
            frames = slice(start, start + size)
            got = ask(window, probe, counts[frames], *batch.part(frames))
            found = got if found is None else found.together(got)
        assert found is not None
        return found

    def expected(self, obj: Tensor, probe: Tensor, batch: Batch) -> Tensor:
        """Σ_j w_j Σ_p Σ |P_p Q_j|² () float64: counts expected of frames, by Parseval, without background."""
        modulus, light = self._modulus(obj), tf.zeros([self.side, self.side], tf.float64)
        size = self.chunk(probe[:1])
        for start in range(0, len(batch.corners_px), size):
            frames = slice(start, start + size)
            of_frames = self._weighted_sum(modulus, batch.corners_px[frames], batch.weights()[frames])
            light += tf.cast(of_frames, tf.float64)
        return tf.reduce_sum(light * tf.cast(physics.mode_intensity(probe), tf.float64))

    def _traced(
        self, asked: tuple[Quantity, ...], weighted: bool, given: tf.DType, shape: tf.TensorShape
    ) -> Callable[..., Any]:
        """The function that answers one kind of question, for any number of frames on a window of any size."""
        key = (asked, weighted, given, *shape)
        if key not in self._functions:
            N, spec = self.side, tf.TensorSpec
            window = spec([None, None] if given.is_complex else [4], given)
            known = [window, spec(shape, tf.complex64), spec([None, N, N], tf.float32)]
            of_frames = [spec([None, 2], tf.int32), spec([None, 2], tf.float32), spec([None], tf.float32)]
            signature = [*known, *of_frames[: 3 if weighted else 2]]
            answer = weakref.WeakMethod(self._answer)
            self._functions[key] = traced(lambda *given: answer()(asked, *given), signature=signature)
        return self._functions[key]

    def _answer(
        self,
        asked: tuple[Quantity, ...],
        window: Tensor,
        probe: Tensor,
        counts: Tensor,
        corners: Tensor,
        rest: Tensor,
        weights: Tensor | None = None,
    ) -> BatchGradient:
        """One chunk; A = F ψ, B = F†(2 h A) / norm², so that conj(norm · S P) · B is the object's gradient.

        Modes are taken one by one: TensorFlow is slow where both factors of a product have to be spread.
        """
        obj = window if window.dtype.is_complex else self.canvas.read(window)
        spectra = tf.unstack(tf.signal.fft2d(probe) * tf.cast(self._norm, tf.complex64))
        patches, ramp = self._cut(obj, corners), physics.shift_ramp(rest, self.side)
        shifted = [tf.signal.ifft2d(ramp * spectrum) for spectrum in spectra]
        arrived = [self._arrive(mode * patches) for mode in shifted]
        rate = tf.add_n([physics.mode_intensity(wave[:, None]) for wave in arrived])
        if weights is not None:
            rate *= weights[:, None, None]
        if self.background is not None:
            rate += self.background
        if not asked:  # what decides when to stop should not be rounded away beside the sum
            rate, counts = tf.cast(rate, tf.float64), tf.cast(counts, tf.float64)
        loss = tf.cast(physics.LOSSES[self.loss](rate, counts, self.mask, 1.0), tf.float64)
        found: dict[str, Tensor] = {}
        if "frame_scale" in asked:
            found["gains"] = physics.frame_gains(rate, counts, self.mask, self.background)
        if not set(asked) - {"frame_scale"}:
            return BatchGradient(loss, **found)
        slope = (2 / self._norm**2) * physics.free_slope(self.loss, rate + DARK_COUNTS, counts, self.mask)
        if weights is not None:
            slope *= weights[:, None, None]
        slope = tf.cast(slope, tf.complex64)
        back = [self._leave(wave * slope) for wave in arrived]
        if "object" in asked:
            of_frames = tf.add_n([tf.math.conj(mode) * wave for mode, wave in zip(shifted, back, strict=True)])
            shape = tuple(tf.unstack(tf.shape(obj)))
            found["object"] = physics.accumulate(of_frames[None], corners[None], shape)[0]
        if "probe" in asked or "positions" in asked:
            seen, unmoved = tf.math.conj(patches), tf.math.conj(ramp)
            back = [tf.signal.fft2d(wave * seen) * unmoved for wave in back]
        if "probe" in asked:
            total = tf.stack([tf.reduce_sum(wave, axis=0) for wave in back])
            found["probe"] = tf.signal.ifft2d(total) * tf.cast(self._norm, tf.complex64)
            found["patch_light"] = physics.patch_light(patches, weights)
        if "positions" in asked:
            found["positions"] = self._position_gradient(back, spectra)
        return BatchGradient(loss, **found)

    def _cut(self, obj: Tensor, corners: Tensor) -> Tensor:
        """Patches (J, N, N) of a window; on a processor one by one, since an index for every pixel takes longer."""
        if not self._on_processor:
            return physics.extract(obj[None], corners[None], self.side)[0]
        N, J = self.side, tf.shape(corners)[0]
        patches = tf.TensorArray(obj.dtype, size=J, element_shape=(N, N))

        def one(j: Tensor, made: tf.TensorArray) -> tuple[Tensor, tf.TensorArray]:
            return j + 1, made.write(j, tf.slice(obj, corners[j], [N, N]))

        return tf.while_loop(lambda j, _: j < J, one, (0, patches))[1].stack()

    def _arrive(self, waves: Tensor) -> Tensor:
        """F ψ / norm of exit waves (J, P, N, N)."""
        spectrum, transfer = tf.signal.fft2d(waves), self.propagator.transfer
        return spectrum if transfer is None else tf.signal.ifft2d(spectrum * transfer)

    def _leave(self, waves: Tensor) -> Tensor:
        """F† A · norm of waves (J, P, N, N) at the detector."""
        transfer = self.propagator.transfer
        if transfer is None:
            return tf.signal.ifft2d(waves)
        return tf.signal.ifft2d(tf.signal.fft2d(waves) * tf.math.conj(transfer))

    def _position_gradient(self, back: list[Tensor], spectra: list[Tensor]) -> Tensor:
        """Σ_p Re⟨χ Q*, ∂(S P_p)⟩ by Parseval, from spectra (J, N, N) of S†(χ Q*) and (N, N) of the probe, by mode."""
        # Re⟨a, −2πi f b⟩ = −2π f Im⟨b, a⟩ pixel by pixel, and the sum over pixels is a product of matrices
        along = tf.stack(tf.meshgrid(self._frequency, self._frequency, indexing="ij"))
        slopes = [tf.reshape(tf.math.conj(spectrum) * tf.cast(along, tf.complex64), [2, -1]) for spectrum in spectra]
        products = [
            tf.matmul(tf.reshape(wave, [-1, self.side**2]), slope, transpose_b=True)
            for wave, slope in zip(back, slopes, strict=True)
        ]
        return tf.math.imag(tf.add_n(products)) * (-2 * math.pi / self.side**2)
